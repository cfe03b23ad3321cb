//! What is shown, and what keys do to it.

mod rows;

use std::time::Duration;

use self::rows::{Identity, connection};
use super::{
    column::{Sort, View},
    editor::Editor,
    sampler::Selection,
    snapshot::{ConnectionLine, Snapshot},
    worker::Wanted,
};
use crate::{Error, Result, filter::Filter};

/// A key, or several that mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "keys are what is written on them")]
pub enum Key {
    Char(char),
    Enter,
    Escape,
    Tab,
    BackTab,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Backspace,
    Delete,
    /// Ctrl-U.
    Clear,
    /// Ctrl-L.
    Redraw,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-Z.
    Suspend,
}

/// What whoever has the terminal is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Show what has changed.
    Draw,
    /// Show what has changed, and want other samples.
    Want,
    /// Show everything anew, because something else has written there.
    Redraw,
    /// Stop until continued.
    Suspend,
    /// End.
    Quit,
}

/// What a view begins with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is listed.
    pub view: View,
    /// Its order.
    pub sort: Sort,
    /// The filter, as it was written.
    pub filter: String,
    /// How many connections are kept.
    pub limit: usize,
    /// From one sample to the next.
    pub interval: Duration,
}

/// What is shown in the place of the rows.
#[derive(Clone, Debug)]
pub enum Overlay {
    /// What keys do.
    Help,
    /// A connection, as it was last seen, and whether it is still among the rows.
    Details(Box<ConnectionLine>, bool),
}

/// The rows of the present view, as they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// How many there are.
    pub rows: usize,
    /// The first on the screen.
    pub first: usize,
    /// The selected one.
    pub selected: usize,
}

/// What is shown.
#[derive(Debug)]
pub struct Model {
    view: View,
    sorts: [Sort; View::ALL.len()],
    filter: Filter,
    filter_text: String,
    editor: Option<Editor>,
    overlay: Option<Overlay>,
    is_paused: bool,
    interval: Duration,
    limit: usize,
    snapshot: Option<Snapshot>,
    /// The rows of the view in their order, as places in the snapshot.
    order: Vec<usize>,
    /// The row that the user went to; `None` stays at the first one, whichever that is.
    selected: Option<Identity>,
    shown: Shown,
    /// How many rows there is room for.
    page: usize,
    /// The first line of the overlay that is shown.
    scroll: usize,
    notice: Option<String>,
}

/// The intervals that + and - lead to, in milliseconds.
const INTERVALS: [u64; 10] = [
    100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000,
];

impl Model {
    /// A view without anything in it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] where the filter cannot be understood.
    pub fn new(settings: Settings) -> Result<Self> {
        let mut sorts = View::ALL.map(Sort::initial);
        sorts[settings.view as usize] = settings.sort;
        Ok(Self {
            view: settings.view,
            sorts,
            filter: parse(&settings.filter)?,
            filter_text: settings.filter,
            editor: None,
            overlay: None,
            is_paused: false,
            interval: settings.interval,
            limit: settings.limit,
            snapshot: None,
            order: Vec::new(),
            selected: None,
            shown: Shown {
                rows: 0,
                first: 0,
                selected: 0,
            },
            page: 1,
            scroll: 0,
            notice: None,
        })
    }

    /// What samples are wanted.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted {
            selection: Selection {
                filter: self.filter.clone(),
                sort: self.sorts[View::Connections as usize],
                limit: self.limit,
            },
            interval: self.interval,
            is_paused: self.is_paused,
        }
    }

    /// Takes a sample. Not having one because nothing is loaded is shown, and another one waited for.
    ///
    /// # Errors
    ///
    /// Where waiting would not help.
    pub fn take(&mut self, sample: Result<Snapshot>) -> Result<()> {
        match sample {
            // What was on its way when the user said stop.
            Ok(_) if self.is_paused && self.snapshot.is_some() => {}
            Ok(snapshot) => {
                self.notice = None;
                self.snapshot = Some(snapshot);
                self.arrange();
                self.refresh_details();
            }
            Err(error @ (Error::NotLoaded | Error::NoBpfFs(_) | Error::StaleState { .. })) => {
                self.snapshot = None;
                self.notice = Some(format!("{error}; waiting for demux load"));
                self.arrange();
                self.refresh_details();
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What is listed.
    #[must_use]
    pub const fn view(&self) -> View {
        self.view
    }

    /// The order of what is listed.
    #[must_use]
    pub const fn sort(&self) -> Sort {
        self.sorts[self.view as usize]
    }

    /// The filter, as it was written.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filter_text
    }

    /// The filter that is being edited.
    #[must_use]
    pub const fn editor(&self) -> Option<&Editor> {
        self.editor.as_ref()
    }

    /// What is shown in the place of the rows.
    #[must_use]
    pub const fn overlay(&self) -> Option<&Overlay> {
        self.overlay.as_ref()
    }

    /// The first line of it that is shown.
    #[must_use]
    pub const fn scroll(&self) -> usize {
        self.scroll
    }

    /// Whether nothing is sampled.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// From one sample to the next.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// The last sample.
    #[must_use]
    pub const fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// Something that the user should know.
    #[must_use]
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// The rows of the view in their order, as places in the snapshot.
    #[must_use]
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Which of them are shown.
    #[must_use]
    pub const fn shown(&self) -> Shown {
        self.shown
    }

    /// How many rows there is room for on the screen.
    pub fn set_page(&mut self, rows: usize) {
        self.page = rows.max(1);
        self.follow();
    }

    /// Keeps the lines of an overlay within its end, of which so many are on the screen.
    pub fn limit_scroll(&mut self, lines: usize, page: usize) {
        self.scroll = self.scroll.min(lines.saturating_sub(page));
    }

    /// Does what a key stands for.
    pub fn press(&mut self, key: Key) -> Action {
        match key {
            Key::Interrupt => return Action::Quit,
            Key::Suspend => return Action::Suspend,
            Key::Redraw => return Action::Redraw,
            _ => {}
        }
        if self.editor.is_some() {
            return self.edit(key);
        }
        if self.overlay.is_some()
            && let Some(action) = self.press_over(key)
        {
            return action;
        }
        match key {
            Key::Char('q') | Key::Escape => return Action::Quit,
            Key::Tab => self.show(self.view.step(1)),
            Key::BackTab => self.show(self.view.step(View::ALL.len() - 1)),
            Key::Char(digit @ '1'..='3') => self.show(View::ALL[digit as usize - '1' as usize]),
            Key::Char('s' | '>') => return self.sort_by_next(1),
            Key::Char('<') => return self.sort_by_next(self.view.columns().len() - 1),
            Key::Char('r') => {
                let sort = self.sort();
                return self.order_by(Sort {
                    is_reversed: !sort.is_reversed,
                    ..sort
                });
            }
            Key::Char('/') => self.editor = Some(Editor::new(&self.filter_text)),
            Key::Char('p' | ' ') => {
                self.is_paused = !self.is_paused;
                return Action::Want;
            }
            Key::Char('+') => return self.change_interval(true),
            Key::Char('-') => return self.change_interval(false),
            Key::Char('?' | 'h') => self.open(Overlay::Help),
            Key::Up | Key::Char('k') => self.go(self.shown.selected.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.go(self.shown.selected + 1),
            Key::PageUp => self.go(self.shown.selected.saturating_sub(self.page)),
            Key::PageDown => self.go(self.shown.selected + self.page),
            Key::Home => {
                self.selected = None;
                self.follow();
            }
            Key::End => self.go(usize::MAX),
            Key::Enter => {
                if let Some(line) = self.selected_connection().cloned() {
                    self.open(Overlay::Details(line.into(), true));
                }
            }
            _ => {}
        }
        Action::Draw
    }

    /// The connection that is selected.
    fn selected_connection(&self) -> Option<&ConnectionLine> {
        if self.view != View::Connections {
            return None;
        }
        let place = *self.order.get(self.shown.selected)?;
        self.snapshot.as_ref()?.connections.get(place)
    }

    fn open(&mut self, overlay: Overlay) {
        self.overlay = Some(overlay);
        self.scroll = 0;
    }

    /// Keys that an overlay takes.
    fn press_over(&mut self, key: Key) -> Option<Action> {
        match key {
            Key::Escape | Key::Char('q' | '?') | Key::Enter => self.overlay = None,
            Key::Up => self.scroll = self.scroll.saturating_sub(1),
            Key::Down => self.scroll += 1,
            Key::PageUp => self.scroll = self.scroll.saturating_sub(self.page),
            Key::PageDown => self.scroll += self.page,
            Key::Home => self.scroll = 0,
            Key::Char('p' | ' ' | '+' | '-') => return None,
            _ => {}
        }
        Some(Action::Draw)
    }

    fn edit(&mut self, key: Key) -> Action {
        let Some(editor) = &mut self.editor else {
            return Action::Draw;
        };
        match key {
            Key::Escape => self.editor = None,
            Key::Enter => match parse(editor.text()) {
                Ok(filter) => {
                    self.filter_text = editor.text().trim().to_owned();
                    self.filter = filter;
                    self.editor = None;
                    self.selected = None;
                    self.arrange();
                    return Action::Want;
                }
                Err(error) => editor.error = Some(error.to_string()),
            },
            Key::Char(character) if !character.is_control() => editor.insert(character),
            Key::Backspace => editor.backspace(),
            Key::Delete => editor.delete(),
            Key::Clear => editor.clear(),
            Key::Left => {
                editor.left();
            }
            Key::Right => editor.right(),
            Key::Home => editor.home(),
            Key::End => editor.end(),
            _ => {}
        }
        Action::Draw
    }

    fn show(&mut self, view: View) {
        if view != self.view {
            self.view = view;
            self.selected = None;
            self.arrange();
        }
    }

    fn sort_by_next(&mut self, places: usize) -> Action {
        let columns = self.view.columns();
        let column = self.sort().column;
        let place = columns.iter().position(|known| *known == column);
        let column = columns[(place.unwrap_or_default() + places) % columns.len()];
        self.order_by(Sort {
            column,
            is_reversed: false,
        })
    }

    fn order_by(&mut self, sort: Sort) -> Action {
        self.sorts[self.view as usize] = sort;
        self.arrange();
        // Other connections may come first among all of them; the rest is all here.
        match self.view {
            View::Connections => Action::Want,
            _ => Action::Draw,
        }
    }

    fn change_interval(&mut self, is_longer: bool) -> Action {
        let now = self.interval.as_millis() as u64;
        let next = if is_longer {
            INTERVALS.iter().find(|&&interval| interval > now)
        } else {
            INTERVALS.iter().rfind(|&&interval| interval < now)
        };
        match next {
            Some(&next) => {
                self.interval = Duration::from_millis(next);
                Action::Want
            }
            None => Action::Draw,
        }
    }

    /// Shows in the details what the last sample says.
    fn refresh_details(&mut self) {
        let Some(Overlay::Details(line, is_present)) = &mut self.overlay else {
            return;
        };
        let wanted = connection(line);
        let found = self
            .snapshot
            .iter()
            .flat_map(|snapshot| &snapshot.connections)
            .find(|line| connection(line) == wanted);
        *is_present = found.is_some();
        if let Some(found) = found {
            *line = found.clone().into();
        }
    }
}

fn parse(filter: &str) -> Result<Filter> {
    let words: Vec<&str> = filter.split_whitespace().collect();
    Filter::parse(&words)
}

#[cfg(test)]
mod tests;
