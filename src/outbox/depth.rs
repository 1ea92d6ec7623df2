//! Measures how much a relay has not published.

use tokio::sync::OnceCell;
use tokio_postgres::{Row, types::ToSql};

use crate::{
    metrics::{Depth, Query},
    pg::{
        error::QueryError,
        schema::Schema,
        session::{Connection, Prepared},
    },
};

/// Highest number of rows that are counted exactly. Above it the numbers of [`Depth`] are upper
/// bounds.
pub(super) const COUNT_MAX: i64 = 10_000;

/// The measuring statement, prepared at its first use on a session.
#[derive(Debug, Default)]
pub(super) struct Measuring {
    statement: OnceCell<Prepared>,
}

impl Measuring {
    /// Measures how much is not published; `None` before the relay's first start. Every call must
    /// pass the same `connection`.
    pub(super) async fn depth(
        &self,
        connection: &Connection,
        schema: &Schema,
        relay: &str,
    ) -> Result<Option<Depth>, QueryError> {
        let prepare = || connection.prepare(schema.apply(include_str!("sql/measure_depth.sql")));
        let statement = self.statement.get_or_try_init(prepare).await?;
        let parameters: [&(dyn ToSql + Sync); 2] = [&relay, &COUNT_MAX];
        let rows = connection.run(Query::Depth, statement, &parameters).await?;
        rows.first().map(read).transpose()
    }
}

fn read(row: &Row) -> Result<Depth, QueryError> {
    let number = |name: &str| {
        row.try_get::<_, i64>(name).map(|number| u64::try_from(number).unwrap_or_default())
    };
    let age = |name: &str| row.try_get::<_, Option<f64>>(name);
    let counted = number("pending")?;
    let is_exact = number("rows_read")? < COUNT_MAX.unsigned_abs();
    let ages = [age("oldest_age_seconds")?, age("oldest_letter_age_seconds")?];
    Ok(Depth {
        unsettled: if is_exact { counted } else { number("pending_at_most")?.max(counted) },
        retrying: number("retrying")?,
        held: number("held")?,
        dead: number("dead")?,
        oldest_seconds: ages.into_iter().flatten().map(|age| age.max(0.0)).reduce(f64::max),
    })
}
