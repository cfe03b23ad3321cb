//! What alice gets for a request: she asks with curl.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::demo::{
    actors::enter,
    interrupt,
    network::{self, ALICE},
    stage::Stage,
};

/// What curl exits with when nobody listens, and when nobody answers in time.
const REFUSED: i32 = 7;
const TIMEOUT: i32 = 28;

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The body of an answer.
    Text(String),
    /// A reset.
    Refused,
    /// Nothing, for a second.
    Silence,
}

/// The `curl` command.
///
/// # Errors
/// When there is none and none can be fetched.
pub(in crate::demo) fn curl() -> Result<PathBuf> {
    network::program("curl")
}

/// Lets alice ask for `/` at `port` of the server, in view of the audience.
pub(super) fn ask(stage: &Stage<'_>, port: u16) -> Result<Answer> {
    interrupt::check()?;
    let url = format!("http://{}/", network::server(port));
    let args = ["--silent", "--show-error", "--max-time", "1", &url];
    stage.command(&format!("ip netns exec {ALICE} curl {}", args.join(" ")));
    let mut command = Command::new(curl()?);
    // No proxy is between namespaces, whatever the environment says.
    command
        .args(args)
        .args(["--noproxy", "*"])
        .stdin(Stdio::null());
    let output = enter(ALICE, || command.output().context("cannot start curl"))?;
    interrupt::check()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    for line in text.lines().chain(errors.lines()) {
        stage.tell(line);
    }
    match output.status.code() {
        Some(0) => Ok(Answer::Text(text)),
        Some(REFUSED) => Ok(Answer::Refused),
        Some(TIMEOUT) => Ok(Answer::Silence),
        _ => bail!("curl failed ({}): {errors}", output.status),
    }
}
