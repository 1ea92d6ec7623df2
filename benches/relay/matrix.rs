//! Drains backlogs that differ in one dimension each, once, beside the ceiling of the same shape.

use anyhow::Result;

use crate::{
    backlog::{self, Shape, USUAL},
    drain,
    drained::{Backlog, Extent, Rounds},
    options::Options,
    report::{Report, Row},
    stage::{Stage, open_transaction},
};

/// Shape that no other part measures, with `thousands` of thousand events, or `quick` in a quick
/// run.
struct Case {
    name: &'static str,
    database: &'static str,
    shape: Shape,
    thousands: u64,
    quick: u64,
}

const CASES: [Case; 6] = [
    Case {
        name: "100 B",
        database: "payload_100",
        shape: Shape { payload_bytes: 100, ..USUAL },
        thousands: 500,
        quick: 50,
    },
    Case {
        name: "4 KB",
        database: "payload_4096",
        shape: Shape { payload_bytes: 4096, ..USUAL },
        thousands: 500,
        quick: 20,
    },
    Case {
        name: "100 keys",
        database: "keys_100",
        shape: Shape { keys: 100, ..USUAL },
        thousands: 500,
        quick: 50,
    },
    Case {
        name: "1,000,000 keys",
        database: "keys_million",
        shape: Shape { keys: 1_000_000, ..USUAL },
        thousands: 500,
        quick: 50,
    },
    Case {
        name: "a small backlog",
        database: "backlog_small",
        shape: USUAL,
        thousands: 10,
        quick: 10,
    },
    // A quick run leaves this case out: the part `large` has the largest backlog there.
    Case {
        name: "a huge backlog",
        database: "backlog_huge",
        shape: USUAL,
        thousands: 5_000,
        quick: 0,
    },
];

pub(crate) async fn run(stage: &Stage, options: &Options) -> Result<Report> {
    let mut report = Report::default();
    for case in &CASES {
        let count = options.scaled(case.thousands, case.quick) * 1000;
        if count > 0 {
            let rounds = drain::rounds(stage, case.database, case.shape, count, 1).await?;
            report.drains.push(rounds.row(case.name, count));
        }
    }
    report.drains.push(beside_open_transaction(stage, options).await?);
    Ok(report)
}

/// Drains a backlog while an older transaction is open on another table of the database.
async fn beside_open_transaction(stage: &Stage, options: &Options) -> Result<Row> {
    let (database, count) = ("open_transaction", options.scaled(500, 50) * 1000);
    let client = stage.database(database).await?;
    let open = open_transaction(stage, database).await?;
    backlog::insert(&client, USUAL, count).await?;
    backlog::tidy(&client).await?;
    let mut rounds = Rounds::default();
    let backlog = Backlog { database, shape: USUAL, count, extent: Extent::Whole };
    rounds.round(stage, &client, backlog).await?;
    drop((open, client));
    stage.drop_database(database).await?;
    Ok(rounds.row("an open transaction elsewhere", count))
}
