//! A line of text that is being edited.

/// A line of text with a cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Editor {
    text: String,
    /// Where the next character goes, in bytes.
    cursor: usize,
    /// What is wrong with the text.
    pub error: Option<String>,
}

impl Editor {
    /// Begins with a text, behind its end.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            cursor: text.len(),
            error: None,
        }
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is before the cursor.
    #[must_use]
    pub fn before(&self) -> &str {
        &self.text[..self.cursor]
    }

    /// Adds a character.
    pub fn insert(&mut self, character: char) {
        self.text.insert(self.cursor, character);
        self.cursor += character.len_utf8();
        self.error = None;
    }

    /// Removes the character before the cursor.
    pub fn backspace(&mut self) {
        if self.left() {
            self.delete();
        }
    }

    /// Removes the character at the cursor.
    pub fn delete(&mut self) {
        if self.cursor < self.text.len() {
            self.text.remove(self.cursor);
            self.error = None;
        }
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Goes one character back, if there is one.
    pub fn left(&mut self) -> bool {
        let Some(last) = self.before().chars().next_back() else {
            return false;
        };
        self.cursor -= last.len_utf8();
        true
    }

    /// Goes one character on, if there is one.
    pub fn right(&mut self) {
        if let Some(next) = self.text[self.cursor..].chars().next() {
            self.cursor += next.len_utf8();
        }
    }

    /// Goes to the beginning.
    pub const fn home(&mut self) {
        self.cursor = 0;
    }

    /// Goes behind the end.
    pub const fn end(&mut self) {
        self.cursor = self.text.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_come_and_go_at_the_cursor() {
        let mut editor = Editor::new("lport 8");
        editor.insert('0');
        editor.home();
        editor.insert('ü');
        editor.delete();
        assert_eq!((editor.text(), editor.before()), ("üport 80", "ü"));
        editor.backspace();
        editor.backspace();
        assert_eq!((editor.text(), editor.before()), ("port 80", ""));
        editor.end();
        editor.right();
        editor.delete();
        assert!(editor.left());
        editor.delete();
        assert_eq!(editor.text(), "port 8");
        editor.clear();
        assert_eq!(editor.text(), "");
        assert!(!editor.left());
    }

    #[test]
    fn what_is_changed_is_not_wrong_any_more() {
        let mut editor = Editor::new("x");
        editor.error = Some("no".into());
        editor.left();
        assert!(editor.error.is_some());
        editor.insert('y');
        assert!(editor.error.is_none());
    }
}
