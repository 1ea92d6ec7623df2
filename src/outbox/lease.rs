//! The lease of a relay in its row of `position`: taken, renewed and released.

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

/// An instance that asks for the lease.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// For people: host and process.
    pub holder: String,
    /// A random id of this process's start.
    pub instance: Uuid,
    /// The process, as another one of its machine recognises it.
    pub process: Option<String>,
    /// For how long a lease holds without being renewed.
    pub length: Duration,
}

/// The lease as somebody else sees it.
#[derive(Debug, Clone)]
pub struct Leader {
    /// The fencing number of the last holding.
    pub term: i64,
    /// The leader's host and process, or those of the last one.
    pub holder: String,
    /// The process that leads, or led last; `None` before the first lease.
    pub instance: Option<Uuid>,
    /// That process, as another one of its machine recognises it.
    pub process: Option<String>,
    /// How long the lease still holds, by the server's clock; `None` when it was released or has
    /// expired.
    pub left: Option<Duration>,
    /// The server process of the leader's session; `None` behind a pooler.
    pub backend_pid: Option<i32>,
    /// The state of that session, as the server sees it.
    pub session: LeaderSession,
    /// A program of before there were leases leads.
    pub is_locked: bool,
    /// Whether an instance can have written when the lease ends.
    pub end: LeaseEnd,
}

/// A relay of the same route that is led with another number of shards. Both would publish the same
/// events, in no order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// Its name.
    pub relay: String,
    /// Who leads it: host and process.
    pub holder: String,
}

pub(super) async fn rival(
    connection: &Connection,
    schema: &Schema,
    (route, shards): (&str, u32),
) -> Result<Option<Rival>, QueryError> {
    let shards = i32::try_from(shards).unwrap_or(i32::MAX);
    let sql = schema.apply(include_str!("sql/find_rival.sql"));
    let rows = connection.query(&sql, &[&route, &shards]).await?;
    let read =
        |row: &Row| Ok(Rival { relay: row.try_get("relay")?, holder: row.try_get("holder")? });
    rows.first().map(read).transpose()
}

/// The end of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEnd {
    /// No later than any instance takes a lease for, or there is none.
    Plausible,
    /// Later than any instance takes a lease for.
    TooLate,
}

/// The state of the leader's session, as the server sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaderSession {
    /// The session stands.
    Alive,
    /// The session has ended.
    Gone,
    /// The session was opened through a pooler or on another server, or this role may not see it.
    Unknown,
}

impl Leader {
    /// Whether somebody leads now.
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

/// The position and its circumstances at the moment it was acquired.
#[derive(Debug)]
pub struct Acquired {
    /// The fencing number of this holding.
    pub term: i64,
    /// How far everything is settled.
    pub position: Position,
    /// Exclusive lower bound for the `seq` of rows that begin from now on.
    pub fence: Seq,
    /// No row with a higher `seq` was handed to the broker by an earlier leader.
    pub sent_to: Seq,
    /// The stream as of the last settlement.
    pub stream: StreamMark,
    /// The stream's name and when it was created, as of then; `None` for a time that is not known.
    pub stream_identity: Option<(String, Option<i64>)>,
    /// Rows that were settled as published.
    pub published: i64,
    /// Whether rows are read again that were settled once.
    pub course: Course,
    /// Where the position was made.
    pub origin: Origin,
    /// Whether inserting transactions can notify.
    pub notifies: bool,
}

/// Whether a position goes over its rows for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// The first time: every letter is of a row that the position has passed.
    Onward,
    /// Again, after a healing: letters may be of rows that the position has not passed again.
    Again,
}

/// How a position that was made in another cluster stands in this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignPosition {
    /// The position is true here: `pg_upgrade` made this cluster of the other one.
    Upgraded,
    /// The position means nothing here: the database was restored from a dump.
    Restored,
}

/// Where a position was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// In this cluster.
    Here,
    /// In another one, from which this database was restored: it means nothing here.
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
            // A number that was not drawn yet cannot have been sent.
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
                Origin::Here
            } else {
                Origin::AnotherCluster
            },
            notifies: row.try_get("notifies")?,
        })
    }
}

impl Outbox {
    /// The leader of this relay; `None` when the relay has never run.
    ///
    /// # Errors
    /// As the session's.
    pub async fn leader(&self) -> Result<Option<Leader>, QueryError> {
        let longest = LEASE_MAX.as_secs_f64();
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.relay, &longest];
        let rows =
            self.connection.run(Query::Lock, &self.statements.read_lease, &parameters).await?;
        rows.first().map(Leader::read).transpose()
    }

    /// Shortens a lease that ends later than any instance can have written to the longest one that
    /// an instance takes. Returns whether there was something to shorten.
    ///
    /// # Errors
    /// As the session's.
    pub async fn shorten_lease(&self) -> Result<bool, QueryError> {
        let sql = self.schema.apply(include_str!("sql/shorten_lease.sql"));
        let longest = LEASE_MAX.as_secs_f64();
        let rows = self.connection.query(&sql, &[&self.relay, &longest]).await?;
        Ok(!rows.is_empty())
    }

    /// Takes the lease, and the position under a new term; `None` when another instance has it.
    /// `ended` is a term whose session was seen to have ended.
    ///
    /// # Errors
    /// As the session's.
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

    /// Renews the lease, after which rows up to `sent_to` may be handed over.
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

    /// Gives the lease up, and tells those that wait for it.
    ///
    /// # Errors
    /// As the session's; the lease ends by itself then.
    pub async fn release(&self, term: i64) -> Result<(), QueryError> {
        let channel = self.schema.lease_channel();
        self.connection
            .run(Query::Lock, &self.statements.release_lease, &[&self.relay, &term, &channel])
            .await
            .map(drop)
    }

    /// A relay of the same route that is led with another number of shards, if there is one.
    ///
    /// # Errors
    /// As the session's.
    pub async fn rival(&self, route: (&str, u32)) -> Result<Option<Rival>, QueryError> {
        rival(&self.connection, &self.schema, route).await
    }

    /// Ends the terms of leaders of the route whose lease has expired, with another number of shards.
    ///
    /// # Errors
    /// As the session's.
    pub async fn fence_rivals(&self, (route, shards): (&str, u32)) -> Result<(), QueryError> {
        let shards = i32::try_from(shards).unwrap_or(i32::MAX);
        let sql = self.schema.apply(include_str!("sql/fence_rivals.sql"));
        self.connection.query(&sql, &[&route, &shards]).await.map(drop)
    }

    /// Listens for a lease that is given up, where the session can.
    ///
    /// # Errors
    /// As the session's.
    pub async fn listen_for_lease(&self) -> Result<(), QueryError> {
        match self.connection.sharing() {
            Sharing::Own => {
                let listen = format!("LISTEN \"{}\"", self.schema.lease_channel());
                self.connection.execute(&listen).await
            }
            Sharing::Shared => Ok(()),
        }
    }
}
