//! The owner of the set: the example of an HTTP server on smoltcp, as a process of its own.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::demo::{actors::enter, network::SERVER, stage::Stage};

/// The name of the example.
pub(super) const EXAMPLE: &str = "http_smoltcp";

/// What it says.
pub(super) const TEXT: &str = "hello from user space\n";

/// The process, which ends with the value.
pub(super) struct Owner {
    child: Child,
}

impl Owner {
    /// Starts it in view of the audience, and waits until it serves.
    pub(super) fn start(stage: &Stage<'_>) -> Result<Self> {
        let args = [
            "--set",
            "web",
            "--iface",
            "alice0",
            "--address",
            "10.0.0.1:8080",
            "--access",
            "direct",
        ];
        stage.command(&format!("{EXAMPLE} {} &", args.join(" ")));
        let binary = stage.example(EXAMPLE);
        let mut command = Command::new(&binary);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let child = enter(SERVER, || {
            let child = command.spawn();
            child.with_context(|| format!("cannot start {}", binary.display()))
        })?;
        let mut owner = Self { child };
        let stdout = owner.child.stdout.take().context("no pipe")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.is_empty() {
            bail!("{EXAMPLE} has ended: {}", owner.child.wait()?);
        }
        stage.tell(line.trim_end());
        Ok(owner)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it in view of the audience, as nothing else can, and waits until it is gone.
    pub(super) fn kill(mut self, stage: &Stage<'_>) -> Result<()> {
        stage.command(&format!("kill -9 {}", self.pid()));
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
