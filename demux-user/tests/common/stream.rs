//! A command that goes on, and the rows that it has written so far.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{
    demux::Demux,
    wait::{wait_for, wait_for_some},
};

/// A command that writes a JSON object a line, until the value is dropped.
#[derive(Debug)]
pub struct Stream {
    child: Child,
    rows: Arc<Mutex<Vec<Value>>>,
}

impl Stream {
    /// Starts a command that listens, and waits until it does.
    pub fn start(demux: &Demux<'_>, line: &str) -> Self {
        let mut command = demux.command(&format!("{line} --jsonl"));
        command.stdout(Stdio::piped());
        let mut child = demux.netns().enter(|| command.spawn()).unwrap();
        let rows: Arc<Mutex<Vec<Value>>> = Arc::default();
        let stdout = child.stdout.take().unwrap();
        thread::spawn({
            let rows = Arc::clone(&rows);
            move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let row = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
                    rows.lock().unwrap().push(row);
                }
            }
        });
        let stream = Self { child, rows };
        let pid = stream.child.id();
        wait_for("a listener", || {
            demux
                .items("dump LISTENERS")
                .iter()
                .any(|row| row["pid"] == pid)
        });
        stream
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The rows so far.
    pub fn rows(&self) -> Vec<Value> {
        self.rows.lock().unwrap().clone()
    }

    /// Waits for a row.
    #[track_caller]
    pub fn wait_for(&self, what: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for_some(what, || self.rows().into_iter().find(&is_wanted))
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Ends the command by a signal, and returns its exit status.
    pub fn end(mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        self.child.wait().unwrap().code()
    }

    /// Waits until the command has ended by itself.
    pub fn ended(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
