//! Rules for single files: size, ASCII, no leftovers, no path of one machine.

use std::process::Command;

use anyhow::{Context, ensure};

const LINES_MAX: usize = 800;

/// Files that break a rule, each with the rule.
pub fn check() -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    let home = std::env::var("HOME").unwrap_or_default();
    for path in tracked()? {
        let Ok(text) = fs_read(&path) else { continue };
        if path.ends_with(".rs") {
            check_source(&path, &text, &mut faults);
        }
        if home.len() > 1 && text.contains(&format!("{home}/")) {
            faults.push(format!("{path}: names a home directory of one machine"));
        }
    }
    Ok(faults)
}

fn check_source(path: &str, text: &str, faults: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        faults.push(format!("{path}: {lines} lines; a room is read in a sitting ({LINES_MAX})"));
    }
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if !line.is_ascii() {
            faults.push(format!("{path}:{number}: not ASCII"));
        }
        let ignored = concat!("#[", "ignore");
        let stub = concat!("todo", "!(");
        if line.contains(ignored) || line.contains(stub) {
            faults.push(format!("{path}:{number}: a stub or an ignored test"));
        }
    }
}

fn tracked() -> anyhow::Result<Vec<String>> {
    let out = Command::new("git").args(["ls-files", "-z"]).output().context("git ls-files")?;
    ensure!(out.status.success(), "git ls-files failed: not a git checkout?");
    let names = String::from_utf8(out.stdout).context("a file name that is not UTF-8")?;
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[expect(clippy::disallowed_methods, reason = "a build tool reads the checkout")]
fn fs_read(path: &str) -> std::io::Result<String> {
    let bytes = std::fs::read(path)?;
    String::from_utf8(bytes).map_err(std::io::Error::other)
}
