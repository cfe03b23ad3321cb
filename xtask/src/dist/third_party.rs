//! The crates that are linked into `demux`, and what their licences want to be passed on.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process;

/// How the names of files begin that hold a licence or a notice.
const NAMES: [&str; 4] = ["license", "licence", "copying", "notice"];

/// A list of the crates, then each text once, with the crates that it is from.
///
/// # Errors
/// When cargo does not tell which crates there are.
pub(super) fn notices() -> Result<String> {
    let linked = linked()?;
    let mut text = String::from("/usr/sbin/demux contains these crates:\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in &packages()? {
        let field = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
        let name = format!("{} {}", field("name"), field("version"));
        // Those of this repository have no source; their licence is told beside this file.
        if package["source"].is_null() || !linked.contains(&name) {
            continue;
        }
        let manifest = PathBuf::from(field("manifest_path"));
        writeln!(
            text,
            "{name}: {}, {}",
            field("license"),
            field("repository")
        )?;
        for notice in manifest.parent().into_iter().flat_map(files) {
            texts.entry(notice).or_default().push(name.clone());
        }
    }
    let mut texts: Vec<_> = texts
        .into_iter()
        .map(|(text, names)| (names, text))
        .collect();
    texts.sort();
    for (names, notice) in texts {
        let line = "=".repeat(78);
        write!(text, "\n{line}\n{}\n{line}\n\n{notice}\n", names.join(", "))?;
    }
    Ok(text)
}

/// Name and version of each crate that ends up in the binary.
fn linked() -> Result<Vec<String>> {
    let mut tree = process::cargo();
    tree.args([
        "tree",
        "--package",
        "demux-user",
        "--edges",
        "normal,no-proc-macro",
    ])
    .args(["--target", crate::build::TARGET, "--prefix", "none"])
    .args(["--format", "{p}", "--locked"]);
    let printed = process::output(&mut tree)?;
    let mut linked: Vec<String> = printed.lines().filter_map(name_and_version).collect();
    linked.sort();
    linked.dedup();
    Ok(linked)
}

/// `aya 0.14.0` of `aya v0.14.0 (*)`.
fn name_and_version(line: &str) -> Option<String> {
    let (name, rest) = line.split_once(" v")?;
    let version = rest.split(' ').next()?;
    Some(format!("{name} {version}"))
}

/// All that the lock file names, in the order of their names.
fn packages() -> Result<Vec<Value>> {
    let mut metadata = process::cargo();
    metadata.args(["metadata", "--format-version=1", "--locked"]);
    let printed = process::output(&mut metadata)?;
    let mut metadata: Value =
        serde_json::from_str(&printed).context("cargo metadata prints no JSON")?;
    let Value::Array(mut packages) = metadata["packages"].take() else {
        return Ok(Vec::new());
    };
    packages.sort_by_key(|package| package["id"].to_string());
    Ok(packages)
}

/// The licences and notices in the directory of a crate.
fn files(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let is_notice = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_lowercase();
        NAMES.iter().any(|begin| name.starts_with(begin))
    };
    let texts = paths.iter().filter(is_notice).map(fs::read_to_string);
    texts
        .filter_map(Result::ok)
        .map(|text| text.replace("\r\n", "\n").trim_end().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::name_and_version;

    #[test]
    fn a_crate_is_read_from_a_line_of_the_tree() {
        let of = |line| name_and_version(line);
        assert_eq!(of("aya v0.14.0").as_deref(), Some("aya 0.14.0"));
        assert_eq!(of("libc v0.2.1 (*)").as_deref(), Some("libc 0.2.1"));
        assert_eq!(of(""), None);
    }
}
