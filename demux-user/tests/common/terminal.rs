//! A terminal for a command: what it draws, and keys for it.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, FromRawFd as _, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Child, Command},
    ptr,
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use super::wait::{wait_for, wait_for_some};

/// A command on a terminal that nobody sees.
pub struct Terminal {
    master: File,
    slave: OwnedFd,
    child: Child,
    parser: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Starts a command, which leads a session on a terminal of so many columns and rows.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let (master, slave) = open(columns, rows);
        let end = || slave.try_clone().unwrap();
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: the closure only makes system calls.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let parser = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let (mut output, drawn) = (master.try_clone().unwrap(), Arc::clone(&parser));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Ends when nobody holds the other end any more.
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                drawn.lock().unwrap().process(&bytes[..length]);
            }
        });
        Self {
            master,
            slave,
            child,
            parser,
        }
    }

    /// Presses keys, as bytes.
    pub fn press(&self, keys: &str) {
        (&self.master).write_all(keys.as_bytes()).unwrap();
    }

    /// Gives the terminal another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        let mut parser = self.parser();
        parser.screen_mut().set_size(rows, columns);
        tcsetwinsize(self.master.as_fd(), winsize(columns, rows)).unwrap();
    }

    /// The modes of the terminal.
    pub fn modes(&self) -> Termios {
        tcgetattr(self.slave.as_fd()).unwrap()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn parser(&self) -> MutexGuard<'_, vt100::Parser> {
        self.parser.lock().unwrap()
    }

    /// Something about the screen as it is now.
    pub fn screen<T>(&self, of: impl FnOnce(&vt100::Screen) -> T) -> T {
        of(self.parser().screen())
    }

    /// The lines of the screen, without blanks at their ends.
    pub fn lines(&self) -> Vec<String> {
        self.screen(|screen| {
            let (_, columns) = screen.size();
            let rows = screen.rows(0, columns);
            rows.map(|row| row.trim_end().to_owned()).collect()
        })
    }

    /// Waits until the screen is as it should be, and returns its lines.
    #[track_caller]
    pub fn wait(&self, what: &str, is_so: impl Fn(&[String]) -> bool) -> Vec<String> {
        let seen = std::cell::RefCell::new(Vec::new());
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(what, || {
                *seen.borrow_mut() = self.lines();
                is_so(&seen.borrow())
            });
        }));
        assert!(
            result.is_ok(),
            "{what}; the screen is\n{}",
            seen.borrow().join("\n")
        );
        seen.into_inner()
    }

    /// Waits until a line has all of these words in their order, and returns it.
    #[track_caller]
    pub fn line(&self, words: &[&str]) -> String {
        let lines = self.wait(&format!("{words:?}"), |lines| {
            lines.iter().any(|line| has(line, words))
        });
        lines
            .into_iter()
            .find(|line| has(line, words))
            .expect("was just there")
    }

    /// Waits until no line has these words.
    #[track_caller]
    pub fn gone(&self, words: &[&str]) {
        self.wait(&format!("no {words:?}"), |lines| {
            !lines.iter().any(|line| has(line, words))
        });
    }

    /// Waits for the end, and returns the exit status, or minus the signal.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        let status = wait_for_some("the end", || self.child.try_wait().unwrap());
        status
            .code()
            .unwrap_or_else(|| -status.signal().unwrap_or_default())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a line has all of these words in their order.
pub fn has(line: &str, words: &[&str]) -> bool {
    let mut rest = line;
    words.iter().all(|word| match rest.split_once(word) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

fn open(columns: u16, rows: u16) -> (File, OwnedFd) {
    let (mut master, mut slave) = (-1, -1);
    let size = winsize(columns, rows);
    let size = libc::winsize {
        ws_row: size.ws_row,
        ws_col: size.ws_col,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptors and the size outlive the call; a name and modes are not asked for.
    let result = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut slave,
            ptr::null_mut(),
            ptr::null(),
            &raw const size,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    for end in [master, slave] {
        // SAFETY: the descriptor is ours; other tests that start commands should not pass it on.
        unsafe { libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    // SAFETY: both were just opened, and nobody else has them.
    unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
}

fn winsize(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
