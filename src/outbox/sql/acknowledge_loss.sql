-- Records that a person has seen the losses of a relay, with an audit row for each. A loss is an
-- incident after which the stream lacks published events that the outbox no longer has.
--
-- $1 text relay, $2 text actor, $3 text reason
-- Columns: losses int8 (acknowledged now)
-- Rows: exactly one. Index: loss_standing. Locks: the rows of those losses.
SELECT "postrider".acknowledge_loss($1::text, $2::text, $3::text) AS losses
