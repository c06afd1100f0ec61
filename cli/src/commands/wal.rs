//! `sluice wal`.

use serde_json::Value;

use crate::args::Wal;
use crate::http::Http;
use crate::output::Output;

pub async fn run(command: Wal, out: &Output) -> anyhow::Result<()> {
    match command {
        Wal::Dump { data_dir, limit } => super::wal_dump::run(&data_dir, limit, out).await,
        Wal::Status { at } => {
            let answer = Http::new(&at.http)?.get("/v1/wal").await?;
            if out.is_json() {
                out.json(&answer);
                return Ok(());
            }
            let own = &answer["own"];
            out.line(format!("{} of {} bytes in use", own["bytes"], own["capacity"]));
            let columns = ["wal", "node", "committed", "closed", "epochs"];
            let rows = answer["logs"].as_array().into_iter().flatten().map(|log| {
                let mut row: Vec<Value> = columns.iter().map(|key| log[*key].clone()).collect();
                row[4] = Value::from(log["epochs"].as_array().map_or(0, Vec::len));
                row
            });
            out.rows(&columns, rows.collect());
            Ok(())
        }
    }
}
