//! The lease of a relay, in its row of `position`: acquiring, renewing, releasing.

use std::time::Duration;

use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{Outbox, SettleError, settle::Authority};
use crate::{
    delivery::{LEASE_MAX, StreamMark},
    event::{EventId, Position, Seq, Snapshot},
    metrics::Query,
    pg::{
        error::QueryError,
        schema::Schema,
        session::{Connection, Sharing},
    },
};

/// An instance that tries to acquire the lease.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Host and process, for people.
    pub holder: String,
    /// A random id, which each start of the program draws.
    pub instance: Uuid,
    /// Identity of the process, by which processes of one machine recognise each other.
    pub process: Option<String>,
    /// Time for which the lease is valid after each renewal.
    pub length: Duration,
}

/// The lease as another instance reads it.
#[derive(Debug, Clone)]
pub struct Leader {
    /// The fencing number of the last holding.
    pub term: i64,
    /// Host and process of the leader, or of the last leader.
    pub holder: String,
    /// Random id of the process that leads, or led last; `None` before the first lease.
    pub instance: Option<Uuid>,
    /// Identity of that process, by which processes of one machine recognise each other.
    pub process: Option<String>,
    /// Remaining time of the lease by the server's clock; `None` when it was released or has
    /// expired.
    pub left: Option<Duration>,
    /// The server process of the leader's session; `None` behind a pooler.
    pub backend_pid: Option<i32>,
    /// State of that session according to the server.
    pub session: LeaderSession,
    /// Whether an older version of the program leads, which holds a lock instead of a lease.
    pub is_locked: bool,
    /// Whether the time at which the lease ends is plausible.
    pub end: LeaseEnd,
}

/// A relay of the same route that is led with another number of shards. Two such relays would
/// publish the same events, in no common order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// Name of the relay.
    pub relay: String,
    /// Host and process of its leader.
    pub holder: String,
}

pub(super) async fn rival(
    connection: &Connection,
    schema: &Schema,
    (route, shards): (&str, i32),
) -> Result<Option<Rival>, QueryError> {
    let sql = schema.apply(include_str!("sql/find_rival.sql"));
    let rows = connection.query(&sql, &[&route, &shards]).await?;
    let read =
        |row: &Row| Ok(Rival { relay: row.try_get("relay")?, holder: row.try_get("holder")? });
    rows.first().map(read).transpose()
}

/// Plausibility of the time at which a lease ends. A later time than any lease can have comes from
/// a manual change, or from a server clock that was ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEnd {
    /// The lease ends no later than the longest lease that can be configured, or there is no lease.
    Plausible,
    /// The lease ends later than the longest lease that can be configured.
    TooLate,
}

/// State of the leader's session according to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaderSession {
    /// The session is open.
    Alive,
    /// The session has ended.
    Gone,
    /// The session was opened through a pooler, before a restart of the server or on another one,
    /// or this role may not see it.
    Unknown,
}

impl Leader {
    /// Whether an instance leads now.
    pub fn leads(&self) -> bool {
        self.left.is_some() || self.is_locked
    }

    pub(super) fn read(row: &Row) -> Result<Self, QueryError> {
        let left = row.try_get::<_, Option<f64>>("left_seconds")?;
        let left = left.filter(|seconds| *seconds > 0.0);
        Ok(Self {
            term: row.try_get("term")?,
            holder: row.try_get("holder")?,
            instance: row.try_get("instance")?,
            process: row.try_get("process")?,
            left: left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            backend_pid: row.try_get("backend_pid")?,
            session: match row.try_get("session")? {
                "alive" => LeaderSession::Alive,
                "gone" => LeaderSession::Gone,
                _ => LeaderSession::Unknown,
            },
            is_locked: row.try_get("locked")?,
            end: if row.try_get("is_overlong")? { LeaseEnd::TooLate } else { LeaseEnd::Plausible },
        })
    }
}

/// The position at the moment of acquisition, and facts that were read with it.
#[derive(Debug)]
pub struct Acquired {
    /// The fencing number of this holding.
    pub term: i64,
    /// Position up to which everything is settled.
    pub position: Position,
    /// Exclusive lower bound for the `seq` of rows that are inserted by transactions that begin
    /// later.
    pub fence: Seq,
    /// Highest `seq`, inclusive, of the rows that an earlier leader may have handed to the broker.
    pub sent_to: Seq,
    /// The stream sequences that were known at the last settlement.
    pub stream: StreamMark,
    /// The stream's name and creation time at the last settlement. The creation time is `None` when
    /// unknown.
    pub stream_identity: Option<(String, Option<i64>)>,
    /// Number of rows that this position has settled as published so far.
    pub published: i64,
    /// Whether the relay reads rows again that were settled before.
    pub course: Course,
    /// Whether this Postgres cluster made the position, or another one.
    pub origin: PositionOrigin,
    /// Whether inserting transactions can notify a sleeping relay. By default they cannot where the
    /// server allows two-phase commit.
    pub notifies: bool,
}

/// Course of a position over the rows: for the first time, or again after a healing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// First pass: every letter belongs to a row that the position has passed.
    Onward,
    /// Repeated pass, after a healing: letters may belong to rows that the position has not passed
    /// again.
    Again,
}

/// Meaning in this cluster of a position that another cluster made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignPosition {
    /// The position is valid: `pg_upgrade` made this cluster of the other one.
    Upgraded,
    /// The position is not valid: the database was restored from a dump.
    Restored,
}

/// The cluster that made a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PositionOrigin {
    /// The cluster of this server.
    Here,
    /// Another cluster, from which this database was restored. The position has no meaning here.
    AnotherCluster,
}

impl Acquired {
    fn read(row: &Row) -> Result<Self, QueryError> {
        let snapshot = |name: &str| row.try_get(name).map(Snapshot::new);
        let seq = |name: &str| row.try_get(name).map(Seq);
        let fence: Seq = seq("fence")?;
        let sent_to = row.try_get::<_, Option<i64>>("sent_to")?.map(Seq);
        Ok(Self {
            term: row.try_get("term")?,
            position: Position {
                settled: snapshot("snapshot")?,
                floor: seq("floor")?,
                target: snapshot("target")?,
                target_floor: seq("target_floor")?,
                bookmark: seq("bookmark")?,
            },
            fence,
            // A `seq` that was not drawn yet cannot have been sent.
            sent_to: sent_to.map_or(fence, |sent_to| sent_to.min(fence)),
            stream: StreamMark {
                acked: row.try_get::<_, i64>("stream_seq")?.unsigned_abs(),
                event_id: row.try_get::<_, Option<_>>("stream_event_id")?.map(EventId),
                floor: row.try_get::<_, i64>("stream_floor")?.unsigned_abs(),
            },
            stream_identity: match row.try_get::<_, Option<String>>("stream_name")? {
                Some(name) => Some((name, row.try_get("stream_created_ns")?)),
                None => None,
            },
            published: row.try_get("published")?,
            course: if row.try_get("healing")? { Course::Again } else { Course::Onward },
            origin: if row.try_get::<_, i64>("system_id")? == row.try_get::<_, i64>("cluster_id")? {
                PositionOrigin::Here
            } else {
                PositionOrigin::AnotherCluster
            },
            notifies: row.try_get("notifies")?,
        })
    }
}

impl Outbox {
    /// The leader of this relay; `None` when the relay has never run.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn leader(&self) -> Result<Option<Leader>, QueryError> {
        let longest = LEASE_MAX.as_secs_f64();
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.relay, &longest];
        let rows =
            self.connection.run(Query::Lock, &self.statements.read_lease, &parameters).await?;
        rows.first().map(Leader::read).transpose()
    }

    /// Shortens a lease that ends later than the longest lease that can be configured. It then has
    /// that length from now on. Returns whether the lease was shortened.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn shorten_lease(&self) -> Result<bool, QueryError> {
        let sql = self.schema.apply(include_str!("sql/shorten_lease.sql"));
        let longest = LEASE_MAX.as_secs_f64();
        let rows = self.connection.query(&sql, &[&self.relay, &longest]).await?;
        Ok(!rows.is_empty())
    }

    /// Acquires the lease, and the position under a new term; `None` when another instance leads.
    /// `ended` is a term whose leader's session has ended, so that its lease counts as free.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn acquire(
        &self,
        candidate: &Candidate,
        ended: Option<i64>,
    ) -> Result<Option<Acquired>, QueryError> {
        let Candidate { holder, instance, process, length } = candidate;
        let is_own = self.connection.sharing() == Sharing::Own;
        let seconds = length.as_secs_f64();
        let rows = self
            .connection
            .run(
                Query::Lock,
                &self.statements.acquire_lease,
                &[&self.relay, holder, instance, &seconds, &ended, &is_own, process],
            )
            .await?;
        rows.first().map(Acquired::read).transpose()
    }

    /// Renews the lease. After that, rows up to `sent_to` may be handed to the broker.
    ///
    /// # Errors
    /// [`SettleError::TermLost`] is final for this holding.
    pub async fn renew(&self, authority: &Authority, sent_to: Seq) -> Result<(), SettleError> {
        let seconds = authority.lease.as_secs_f64();
        let rows = self
            .connection
            .run(
                Query::Lock,
                &self.statements.renew_lease,
                &[&self.relay, &authority.term, &seconds, &sent_to.0],
            )
            .await?;
        match rows.first() {
            Some(_) => Ok(()),
            None => Err(SettleError::TermLost { term: authority.term }),
        }
    }

    /// Releases the lease and notifies the standbys.
    ///
    /// # Errors
    /// The errors of the session. The lease then ends by itself when its time is over.
    pub async fn release(&self, term: i64) -> Result<(), QueryError> {
        let channel = self.schema.lease_channel();
        self.connection
            .run(Query::Lock, &self.statements.release_lease, &[&self.relay, &term, &channel])
            .await
            .map(drop)
    }

    /// A relay of the same route that is led with another number of shards; `None` when there is
    /// none.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn rival(&self, route: (&str, i32)) -> Result<Option<Rival>, QueryError> {
        rival(&self.connection, &self.schema, route).await
    }

    /// Increases the terms of the route's relays with another number of shards and an expired
    /// lease. So their old leaders can write nothing more.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn fence_rivals(&self, (route, shards): (&str, i32)) -> Result<(), QueryError> {
        let sql = self.schema.apply(include_str!("sql/fence_rivals.sql"));
        self.connection.query(&sql, &[&route, &shards]).await.map(drop)
    }

    /// Shortens the leases of the route's relays with another number of shards to the longest lease
    /// that can be configured. Returns whether a lease was shortened.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn shorten_rivals(&self, (route, shards): (&str, i32)) -> Result<bool, QueryError> {
        let sql = self.schema.apply(include_str!("sql/shorten_rivals.sql"));
        let longest = LEASE_MAX.as_secs_f64();
        Ok(!self.connection.query(&sql, &[&route, &shards, &longest]).await?.is_empty())
    }

    /// Whether the route has positions of relays with another number of shards.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn has_rivals(&self, (route, shards): (&str, i32)) -> Result<bool, QueryError> {
        let sql = self.schema.apply(include_str!("sql/has_rivals.sql"));
        let rows = self.connection.query(&sql, &[&route, &shards]).await?;
        rows.first().map_or(Ok(false), |row| Ok(row.try_get("has_rivals")?))
    }

    /// Listens for notifications of released leases, if the session is this relay's alone. On a
    /// session that a pooler shares, it does nothing.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn listen_for_lease(&self) -> Result<(), QueryError> {
        match self.connection.sharing() {
            Sharing::Own => {
                let listen = format!("LISTEN \"{}\"", self.schema.lease_channel());
                self.connection.execute(&listen).await
            }
            Sharing::Shared => Ok(()),
        }
    }

    /// Takes over a position whose cluster became this one by `pg_upgrade`. Returns whether it was
    /// taken over.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn take_over_upgrade(&self, term: i64) -> Result<bool, QueryError> {
        let statement = &self.statements.take_over_position;
        let row = self.connection.run_one(Query::Lock, statement, &[&self.relay, &term]).await?;
        Ok(row.try_get("taken")?)
    }
}
