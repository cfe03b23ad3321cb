//! What runs inside a machine: the kernel tests of demux-user, linked without shared libraries.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{build, process};

/// Executables and the arguments of the test binary.
pub(crate) struct Guest {
    /// The test binary.
    pub(crate) test: PathBuf,
    /// Other executables, which the test finds under the same path as here.
    pub(crate) programs: Vec<PathBuf>,
    /// Arguments of the test binary.
    pub(crate) args: Vec<String>,
}

impl Guest {
    /// Builds the integration test `kernel` of demux-user.
    ///
    /// # Errors
    /// When it does not compile.
    pub(crate) fn build(args: Vec<String>) -> Result<Self> {
        let mut cargo = build::static_cargo("test");
        cargo
            .args(["--no-run", "--package", "demux-user", "--test", "kernel"])
            .arg("--message-format=json-render-diagnostics")
            .stdout(Stdio::piped());
        let shown = process::shown(&cargo);
        let output = cargo
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .with_context(|| format!("cannot start {shown}"))?;
        if !output.status.success() {
            bail!("{shown} failed ({})", output.status);
        }
        let messages = String::from_utf8_lossy(&output.stdout);
        let (mut test, mut programs) = (None, Vec::new());
        for (kind, executable) in messages.lines().filter_map(executable) {
            match kind.as_str() {
                "test" => test = Some(executable),
                _ => programs.push(executable),
            }
        }
        Ok(Self {
            test: test.with_context(|| format!("{shown} built no test"))?,
            programs,
            args,
        })
    }
}

/// Kind and path of the executable that cargo's `message` announces.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = Path::new(message.get("executable")?.as_str()?).to_path_buf();
    let kind = message.pointer("/target/kind/0")?.as_str()?.to_owned();
    Some((kind, path))
}
