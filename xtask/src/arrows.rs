//! Which room may use which. Read from `cargo metadata`, so that a dependency that is declared but not used counts too.

use anyhow::Context;
use serde_json::Value;

/// For each room the rooms it may use. Tests may use any room.
const MAY_USE: &[(&str, &[&str])] = &[
    ("common", &[]),
    ("protocol", &["common"]),
    ("wal", &["common"]),
    ("meta", &["common"]),
    ("meta-rocks", &["common", "meta"]),
    ("storage", &["common", "wal", "meta"]),
    ("partition", &["common", "protocol", "wal", "meta", "storage"]),
    ("coordinator", &["common", "protocol"]),
    ("sink", &["common", "protocol", "wal", "meta", "storage", "partition"]),
    (
        "broker",
        &[
            "common",
            "protocol",
            "wal",
            "meta",
            "meta-rocks",
            "storage",
            "partition",
            "coordinator",
            "sink",
        ],
    ),
    (
        "sluice",
        &[
            "common",
            "protocol",
            "wal",
            "meta",
            "meta-rocks",
            "storage",
            "partition",
            "coordinator",
            "sink",
            "broker",
        ],
    ),
    ("xtask", &[]),
];

/// Rooms whose normal dependencies point up or sideways.
pub fn check() -> anyhow::Result<Vec<String>> {
    let metadata = super::build::cargo_metadata(&["--no-deps"])?;
    let packages = metadata["packages"].as_array().context("no packages in cargo metadata")?;
    let names: Vec<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let mut faults = Vec::new();
    for package in packages {
        let room = package["name"].as_str().context("a package without a name")?;
        if manifest_is_test(package) {
            continue;
        }
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == room) else {
            faults.push(format!("{room} is not in the table of rooms in xtask/src/arrows.rs"));
            continue;
        };
        for used in package["dependencies"].as_array().into_iter().flatten() {
            let used_name = used["name"].as_str().unwrap_or_default();
            let for_tests = used["kind"].as_str() == Some("dev");
            if names.contains(&used_name) && !for_tests && !allowed.contains(&used_name) {
                faults.push(format!("{room} must not use {used_name}"));
            }
        }
    }
    Ok(faults)
}

fn manifest_is_test(package: &Value) -> bool {
    package["manifest_path"].as_str().is_some_and(|path| path.contains("/tests/"))
}
