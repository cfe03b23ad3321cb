//! The stage: commentary, commands and claims of a scene, in steps; a failure names its step.

use std::{
    path::PathBuf,
    process::ExitStatus,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::Value;

use super::{
    actors::{Client, PATIENCE},
    demux::Demux,
    interrupt,
    narration::Narrator,
};

/// How long to wait between two looks at something that has not happened yet.
const PAUSE: Duration = Duration::from_millis(20);

/// Where a scene is played.
pub(super) struct Stage<'a> {
    demux: &'a Demux,
    narrator: Narrator,
    started: Instant,
    step: usize,
    title: String,
    claims: usize,
    is_kept: bool,
}

impl<'a> Stage<'a> {
    pub(super) fn new(demux: &'a Demux, narrator: Narrator, is_kept: bool) -> Self {
        Self {
            demux,
            narrator,
            started: Instant::now(),
            step: 0,
            title: String::new(),
            claims: 0,
            is_kept,
        }
    }

    /// Begins a step and says what it is about.
    ///
    /// # Errors
    /// When the demo was interrupted.
    pub(super) fn step(&mut self, title: &str, text: &str) -> Result<()> {
        self.step += 1;
        title.clone_into(&mut self.title);
        self.narrator.title(self.step, title);
        self.narrator.say(text);
        interrupt::check()
    }

    /// Says more.
    pub(super) fn say(&self, text: &str) {
        self.narrator.say("");
        self.narrator.say(text);
    }

    /// Shows a picture.
    pub(super) fn show(&self, picture: &str) {
        self.narrator.show("");
        self.narrator.show(picture);
    }

    /// A line of a table.
    pub(super) fn tell(&self, line: &str) {
        self.narrator.show(line);
    }

    /// Whether somebody wants to look around afterwards.
    pub(super) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Where the `demux` is that the scene uses.
    pub(super) fn demux_path(&self) -> String {
        self.demux.shown_path()
    }

    /// Where an example is that was built together with that `demux`.
    pub(super) fn example(&self, name: &str) -> PathBuf {
        self.demux.example(name)
    }

    /// Runs `demux` in view of the audience; it must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn demux(&self, args: &[&str]) -> Result<()> {
        interrupt::check()?;
        self.narrator.command(&Demux::line(args));
        let status = self.demux.run(args)?;
        interrupt::check()?;
        if !status.success() {
            return self.fail(
                &format!("`{}` succeeds", Demux::line(args)),
                &status.to_string(),
            );
        }
        Ok(())
    }

    /// Runs `demux` in view of the audience, and returns the lines that it printed.
    ///
    /// # Errors
    /// When it does not succeed.
    pub(super) fn lines(&self, args: &[&str]) -> Result<Vec<String>> {
        let (status, text) = self.output(args)?;
        if !status.success() {
            let expected = format!("`{}` succeeds", Demux::line(args));
            self.fail(&expected, &format!("{status}: {text}"))?;
        }
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Runs `demux` in view of the audience, and claims that it refuses: that it exits with `code`
    /// and says why in these words.
    ///
    /// # Errors
    /// When it does something else.
    pub(super) fn refused(
        &mut self,
        claim: &str,
        args: &[&str],
        code: i32,
        words: &str,
    ) -> Result<()> {
        let (status, text) = self.output(args)?;
        let is_refused = status.code() == Some(code) && text.contains(words);
        self.claim(
            claim,
            is_refused,
            &format!("{status}: {text:?}, not {code} and {words:?}"),
        )
    }

    /// Runs `demux` and shows what it prints: its results, then what it says about them.
    fn output(&self, args: &[&str]) -> Result<(ExitStatus, String)> {
        interrupt::check()?;
        self.narrator.command(&Demux::line(args));
        let output = self.demux.output(args)?;
        interrupt::check()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).trim_end().to_owned();
        self.narrator.show(&text);
        Ok((output.status, text))
    }

    /// The items that a command prints as JSON.
    ///
    /// # Errors
    /// When the command fails, or the demo was interrupted.
    pub(super) fn items(&self, args: &[&str]) -> Result<Vec<Value>> {
        let items = self.demux.items(args);
        // Ctrl-C ends the command too, which is then not to blame.
        interrupt::check()?;
        items
    }

    /// Claims something about what a command prints as JSON, and waits until it is so.
    ///
    /// # Errors
    /// When it does not become so.
    pub(super) fn expect(
        &mut self,
        claim: &str,
        args: &[&str],
        holds: impl Fn(&[Value]) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let items = self.items(args)?;
            if holds(&items) {
                self.confirmed(claim);
                return Ok(());
            }
            if Instant::now() > deadline {
                let seen = format!("{} --json: {}", Demux::line(args), Value::Array(items));
                return self.fail(claim, &seen);
            }
            thread::sleep(PAUSE);
        }
    }

    /// Claims something about what was `seen`.
    ///
    /// # Errors
    /// When it is not so.
    pub(super) fn claim(&mut self, claim: &str, holds: bool, seen: &str) -> Result<()> {
        interrupt::check()?;
        if !holds {
            return self.fail(claim, seen);
        }
        self.confirmed(claim);
        Ok(())
    }

    /// Shows a command other than `demux`, before its output.
    pub(super) fn command(&self, line: &str) {
        self.narrator.command(line);
    }

    /// Somebody does something.
    pub(super) fn act(&self, who: &str, what: &str) {
        self.narrator.act(who, what);
    }

    /// A client says something to its server and must be answered.
    ///
    /// # Errors
    /// When no answer comes.
    pub(super) fn ask(&self, client: &mut Client, line: &str) -> Result<()> {
        interrupt::check()?;
        match client.ask(line) {
            Ok(answer) => {
                self.act(client.name, &format!("\"{line}\" -> \"{answer}\""));
                Ok(())
            }
            Err(error) => self.fail(
                &format!("{} is answered", client.name),
                &format!("{error:#}"),
            ),
        }
    }

    /// Sums up a scene that went as it should, once its network is gone.
    pub(super) fn end(&self) {
        self.narrator.say("");
        self.narrator.say(&format!(
            "The namespaces are gone, and demux with them. {} claims were checked in {:.1} s.",
            self.claims,
            self.started.elapsed().as_secs_f64()
        ));
    }

    fn confirmed(&mut self, claim: &str) {
        self.claims += 1;
        self.narrator.confirm(claim);
    }

    fn fail(&self, expected: &str, seen: &str) -> Result<()> {
        bail!(
            "step {} ({}) did not go as told\n  expected: {expected}\n  seen: {seen}",
            self.step,
            self.title,
        )
    }
}
