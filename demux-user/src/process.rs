//! Which process: by its number and the time of its start, since numbers are used again.

use std::{fs, io, process};

/// A process of this PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since boot.
    pub started: u64,
}

impl Process {
    /// The calling process.
    ///
    /// # Errors
    ///
    /// Where /proc cannot be read.
    pub fn current() -> io::Result<Self> {
        Self::find(process::id())
    }

    /// The process that has this number now.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] where there is none, or it has ended and nobody has waited for it;
    /// and where /proc cannot be read.
    pub fn find(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|source| {
            // A process that ends while its file is read.
            if source.raw_os_error() == Some(libc::ESRCH) {
                io::ErrorKind::NotFound.into()
            } else {
                source
            }
        })?;
        let (state, started) = parse(&text).ok_or(io::ErrorKind::InvalidData)?;
        if matches!(state, 'Z' | 'X') {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self { pid, started })
    }

    /// Whether it has not ended; what the caller may not know is taken to be so.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match Self::find(self.pid) {
            Ok(process) => process == *self,
            Err(source) => source.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Its name, as the kernel keeps it.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let name = fs::read_to_string(format!("/proc/{}/comm", self.pid)).ok()?;
        self.is_alive().then(|| name.trim_end().to_owned())
    }
}

/// The state and the start time: fields 3 and 22. The name before them may contain anything.
fn parse(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some((state, started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_number_and_start() {
        let this = Process::current().unwrap();
        assert!(this.is_alive());
        let other = Process {
            started: this.started + 1,
            ..this
        };
        assert!(!other.is_alive());
        assert!(this.name().is_some());
    }

    #[test]
    fn names_with_brackets_and_spaces_are_read() {
        let mut stat = String::from("7 (a) b (c) R 1");
        for field in 5..=25 {
            stat += &format!(" {field}");
        }
        assert_eq!(parse(&stat), Some(('R', 22)));
    }

    #[test]
    fn a_process_that_nobody_has_waited_for_is_not_alive() {
        // It lives until its input ends, so it cannot be gone before it was found.
        let mut child = process::Command::new("cat")
            .stdin(process::Stdio::piped())
            .spawn()
            .unwrap();
        let known = Process::find(child.id()).unwrap();
        drop(child.stdin.take());
        while known.is_alive() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!known.is_alive());
    }
}
