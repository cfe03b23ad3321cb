//! The terminal: taken, given back, and given back whatever happens.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, IsTerminal as _},
    panic,
    sync::Once,
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};

use crate::{Error, Result, render::draw_top, top::Model};

/// Whether there is a terminal to draw on and to read keys from.
pub(super) fn is_usable() -> bool {
    let can_move = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    let has_keys =
        || io::stdin().is_terminal() || OpenOptions::new().read(true).open("/dev/tty").is_ok();
    can_move && io::stdout().is_terminal() && has_keys()
}

/// The terminal while the view has it; dropping it gives it back.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<File>>>,
    is_taken: bool,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn take() -> Result<Self> {
        give_back_on_panic()?;
        let output = BufWriter::new(output()?);
        let mut screen = Self {
            terminal: Terminal::new(CrosstermBackend::new(output)).map_err(cannot_use)?,
            is_taken: false,
        };
        screen.enter()?;
        Ok(screen)
    }

    /// Takes it again, after it was given back.
    pub(super) fn enter(&mut self) -> Result<()> {
        self.is_taken = true;
        enable_raw_mode().map_err(cannot_use)?;
        execute!(self.terminal.backend_mut(), EnterAlternateScreen).map_err(cannot_use)?;
        self.terminal.hide_cursor().map_err(cannot_use)?;
        self.forget()
    }

    /// Makes the best of it after this process was stopped without being asked: a shell may have used
    /// the terminal meanwhile, and have set its modes.
    pub(super) fn renew(&mut self) -> Result<()> {
        // The modes are only set where they are not believed to be set.
        disable_raw_mode()
            .and_then(|()| enable_raw_mode())
            .map_err(cannot_use)?;
        self.terminal.hide_cursor().map_err(cannot_use)?;
        self.forget()
    }

    /// Has everything drawn anew.
    pub(super) fn forget(&mut self) -> Result<()> {
        // Not by `clear`, which asks the terminal where the cursor is and waits for the answer.
        let size = self.terminal.size().map_err(cannot_use)?;
        self.terminal.resize(size.into()).map_err(cannot_use)
    }

    /// Gives the terminal back, as it was.
    pub(super) fn leave(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.is_taken) {
            return Ok(());
        }
        let shown = execute!(self.terminal.backend_mut(), LeaveAlternateScreen, Show);
        // The one should be tried though the other has failed.
        disable_raw_mode().and(shown).map_err(cannot_use)
    }

    /// Shows what has changed.
    pub(super) fn draw(&mut self, model: &mut Model, is_coloured: bool) -> Result<()> {
        self.terminal
            .draw(|frame| draw_top(frame, model, is_coloured))
            .map(|_frame| ())
            .map_err(cannot_use)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The error that led here is the one to tell.
        let _ = self.leave();
    }
}

/// Standard output, past the lock that the command holds on it: a panic may be in any thread.
fn output() -> Result<File> {
    rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 0)
        .map(File::from)
        .map_err(|error| cannot_use(error.into()))
}

fn give_back_on_panic() -> Result<()> {
    static ONCE: Once = Once::new();
    let output = output()?;
    ONCE.call_once(move || {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // A panic is told as well as it can be.
            let _ = execute!(&output, LeaveAlternateScreen, Show);
            let _ = disable_raw_mode();
            before(panic);
        }));
    });
    Ok(())
}

fn cannot_use(source: io::Error) -> Error {
    Error::io("use the terminal", source)
}
