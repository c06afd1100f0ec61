//! What the build drags in, and that the expensive part of it is built once.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

const LICENCES: &[&str] = &[
    "Apache-2.0",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "Unicode-3.0",
    "Zlib",
    "CC0-1.0",
    "0BSD",
    "OpenSSL",
    "CDLA-Permissive-2.0",
    "Unlicense",
];

/// `cargo metadata` with `arguments`, as JSON.
pub fn cargo_metadata(arguments: &[&str]) -> anyhow::Result<Value> {
    let out = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(arguments)
        .output()
        .context("cargo metadata")?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).context("cargo metadata printed no JSON")
}

/// More than one built librocksdb means a second profile or feature set slipped in: ten minutes of two cores each time.
pub fn check_rocksdb() -> anyhow::Result<Vec<String>> {
    let metadata = cargo_metadata(&["--no-deps"])?;
    let target = metadata["target_directory"].as_str().context("no target directory")?;
    let mut built: Vec<PathBuf> = Vec::new();
    for profile in ["debug", "release"] {
        let Ok(entries) = std::fs::read_dir(PathBuf::from(target).join(profile).join("build"))
        else {
            continue;
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let is_rocksdb = name.is_some_and(|name| name.starts_with("librocksdb-sys-"));
            if is_rocksdb && path.join("out").is_dir() {
                built.push(path);
            }
        }
    }
    if built.len() < 2 {
        return Ok(Vec::new());
    }
    let list = built.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    Ok(vec![format!(
        "librocksdb was built {} times ({list}): build with --release and --workspace only, then delete all but one",
        built.len()
    )])
}

/// Packages from elsewhere than the registry, or under a licence that is not on the list.
pub fn check_packages() -> anyhow::Result<Vec<String>> {
    let metadata = cargo_metadata(&["--filter-platform", "x86_64-unknown-linux-gnu"])?;
    let packages = metadata["packages"].as_array().context("no packages in cargo metadata")?;
    let mut faults = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(source) = package["source"].as_str() else { continue };
        if !source.starts_with("registry+") {
            faults.push(format!("{name} comes from {source}, not from the registry"));
        }
        let licence = package["license"].as_str().unwrap_or_default();
        if !acceptable(licence) && package["license_file"].is_null() {
            faults.push(format!("{name} is under {licence:?}, which is not on the list"));
        }
    }
    Ok(faults)
}

/// True when one alternative of the expression consists of listed licences only.
fn acceptable(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    let listed =
        |part: &str| LICENCES.contains(&part.trim().trim_end_matches(" WITH LLVM-exception"));
    plain.split(" OR ").any(|alternative| alternative.split(" AND ").all(listed))
        || plain.split(" AND ").all(|part| part.split(" OR ").any(listed))
}

#[cfg(test)]
mod tests {
    use super::acceptable;

    #[test]
    fn licence_expressions_are_read() {
        for good in
            ["MIT", "MIT/Apache-2.0", "(MIT OR Apache-2.0) AND Unicode-3.0", "GPL-3.0 OR MIT"]
        {
            assert!(acceptable(good), "{good}");
        }
        for bad in ["GPL-3.0", "", "MIT AND GPL-2.0"] {
            assert!(!acceptable(bad), "{bad}");
        }
    }
}
