-- Records that a person has seen the losses of a relay, with an audit row each.
--
-- $1 text relay, $2 text actor, $3 text reason
-- Columns: losses int8
-- Rows: exactly one. Index: loss_standing. Locks: the rows of those losses.
SELECT "postrider".acknowledge_loss($1::text, $2::text, $3::text) AS losses
