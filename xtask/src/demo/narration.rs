//! The commentary: what is printed, and how it looks.
//!
//! Nothing here fails: where nobody reads any more, the play goes on in silence and cleans up.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
};

/// Commentary is wrapped at this column; terminals have at least so many.
const WIDTH: usize = 78;

/// Writes the commentary to standard output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Narrator {
    colours: bool,
}

impl Narrator {
    /// Uses colours where a person reads along.
    pub(super) fn new() -> Self {
        let is_unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colours: io::stdout().is_terminal() && !is_unwanted,
        }
    }

    /// The first line of every demo.
    pub(super) fn announce(self) {
        line("No real interface is touched: everything happens in throw-away network namespaces.");
    }

    /// Begins a step.
    pub(super) fn title(self, number: usize, title: &str) {
        line("");
        line(&self.styled("1", &format!("== {number}. {title}")));
        line("");
    }

    /// A paragraph.
    pub(super) fn say(self, text: &str) {
        for wrapped in wrap(text, WIDTH) {
            line(&wrapped);
        }
    }

    /// Something whose line breaks matter.
    pub(super) fn show(self, text: &str) {
        line(text);
    }

    /// A command line, before its output.
    pub(super) fn command(self, command: &str) {
        line("");
        line(&self.styled("36", &format!("$ {command}")));
    }

    /// What somebody did and what came of it.
    pub(super) fn act(self, who: &str, what: &str) {
        line(&format!(
            "  {}  {what}",
            self.styled("35", &format!("{who:<11}"))
        ));
    }

    /// A claim that was found to be true.
    pub(super) fn confirm(self, claim: &str) {
        let mut prefix = self.styled("32", "ok");
        for wrapped in wrap(claim, WIDTH - 4) {
            line(&format!("{prefix}  {wrapped}"));
            prefix = "  ".to_owned();
        }
    }

    fn styled(self, style: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

fn line(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Breaks `text` between words into lines of at most `width` columns.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(last) if last.is_empty() => last.push_str(word),
            Some(last) if last.len() + 1 + word.len() <= width => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn paragraphs_break_between_words() {
        assert_eq!(wrap("one two  three", 8), ["one two", "three"]);
        assert_eq!(wrap("a-word-too-long b", 4), ["a-word-too-long", "b"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
