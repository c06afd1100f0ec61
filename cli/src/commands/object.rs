//! `sluice object`.

use serde_json::{Value, json};

use crate::args::{Object, StoreFlags};
use crate::http::{Http, escaped};
use crate::output::Output;
use crate::place;

pub async fn run(command: Object, out: &Output) -> anyhow::Result<()> {
    match command {
        Object::List { at } => list(&Http::new(&at.http)?, out).await,
        Object::Locate { topic, partition, offset, at } => {
            let path = format!(
                "/v1/objects/locate?topic={}&partition={partition}&offset={offset}",
                escaped(&topic)
            );
            let found = Http::new(&at.http)?.get(&path).await?;
            if out.is_json() {
                out.json(&found);
                return Ok(());
            }
            let place = ["object", "lost", "wal"].map(|name| &found[name]);
            let place = place.into_iter().find(|place| place.is_object()).unwrap_or(&Value::Null);
            let covers =
                place.is_object().then(|| format!("[{}, {})", place["start"], place["end"]));
            let mut shown = json!({
                "in": found["in"],
                "covers": covers,
                "log_start": found["log_start"],
                "committed_end": found["committed_end"],
                "durable_end": found["durable_end"],
            });
            if found["object"].is_object() {
                shown["object"] = found["object"]["object"].clone();
                shown["key"] = found["object"]["key"].clone();
            }
            out.document(&shown);
            Ok(())
        }
        Object::Dump { key, store } => dump(&key, &store, out).await,
        Object::Fsck { .. } => unreachable!("has an exit code of its own"),
    }
}

async fn list(http: &Http, out: &Output) -> anyhow::Result<()> {
    let columns = ["object", "stage", "bytes", "first", "end", "key"];
    let mut rows: Vec<Vec<Value>> = Vec::new();
    let mut after = String::new();
    loop {
        let page = http.get(&format!("/v1/objects?limit=1000{after}")).await?;
        for one in page["objects"].as_array().into_iter().flatten() {
            rows.push(columns.iter().map(|key| one[*key].clone()).collect());
            after = format!("&after={}", one["object"]);
        }
        if page["more"] != Value::Bool(true) {
            break;
        }
    }
    out.rows(&columns, rows);
    Ok(())
}

async fn dump(key: &str, flags: &StoreFlags, out: &Output) -> anyhow::Result<()> {
    let cluster = place::cluster(flags).await?;
    let whole =
        cluster.prefix.parts().next().is_none_or(|_| key.starts_with(cluster.prefix.as_ref()));
    let path = if whole {
        object_store::path::Path::parse(key)?
    } else {
        object_store::path::Path::parse(format!("{}/{key}", cluster.prefix))?
    };
    let rows = super::object_dump::rows(&*cluster.store, &path).await?;
    out.rows(&super::object_dump::COLUMNS, rows);
    Ok(())
}
