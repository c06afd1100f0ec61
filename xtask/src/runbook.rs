//! Each entry of the runbook in `docs/operations.md` says what one sees, what to do and what is lost, and names a test
//! that exists.

use anyhow::{Context, ensure};

const PAGE: &str = "docs/operations.md";
const SECTION: &str = "## When something is wrong";
const PARTS: [&str; 4] = ["- seen: ", "- do: ", "- lost: ", "- test: "];

/// Entries that lack a part or name no test, or one that does not exist.
pub fn check() -> anyhow::Result<Vec<String>> {
    let page = read(PAGE).with_context(|| PAGE.to_owned())?;
    let (_, section) = page.split_once(SECTION).with_context(|| format!("{PAGE}: {SECTION}"))?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut faults = Vec::new();
    let entries: Vec<&str> = section.split("\n### ").skip(1).collect();
    ensure!(!entries.is_empty(), "{PAGE}: no entry under {SECTION}");
    for entry in entries {
        let (title, body) = entry.split_once('\n').unwrap_or((entry, ""));
        for part in PARTS.iter().filter(|part| !body.contains(&format!("\n{part}"))) {
            faults.push(format!("{PAGE}, {title:?}: no line {part:?}"));
        }
        for test in tests(body) {
            if !exists(test) {
                faults.push(format!("{PAGE}, {title:?}: no such test: {test}"));
            }
        }
        if tests(body).next().is_none() {
            faults.push(format!("{PAGE}, {title:?}: names no test as `path::name`"));
        }
    }
    Ok(faults)
}

/// What stands in backticks behind `- test: `.
fn tests(body: &str) -> impl Iterator<Item = &str> {
    let (_, behind) = body.split_once("\n- test: ").unwrap_or_default();
    let list = behind.split("\n- ").next().unwrap_or_default();
    list.split('`').skip(1).step_by(2)
}

fn exists(test: &str) -> bool {
    let Some((path, name)) = test.split_once("::") else { return false };
    let text = read(path).unwrap_or_default();
    ["fn ", "def "].iter().any(|word| text.contains(&format!("{word}{name}(")))
}

fn read(path: &str) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    #[test]
    fn tests_are_what_stands_in_backticks() {
        let body = "\n- seen: `a`\n- test: `x.rs::one`, and `y.py::two`\n- more: `b`";
        assert_eq!(super::tests(body).collect::<Vec<_>>(), ["x.rs::one", "y.py::two"]);
        assert_eq!(super::tests("\n- seen: `a`").count(), 0);
    }
}
