//! What is wrong with a configuration file, and where.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Something that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// The line as it is written.
    pub text: String,
    /// How many characters of the line are meant; 1 at least.
    #[serde(skip)]
    pub width: usize,
    /// Whether it contradicts another part of the file, and would be right without it.
    #[serde(skip)]
    pub is_conflict: bool,
}

/// Everything that is wrong with the files; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

/// A step on the way from the top of a file to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'s> {
    /// To the value of a key.
    Key(&'s str),
    /// To the key itself.
    Name(&'s str),
    /// To an element of an array.
    Index(usize),
}

impl Fault {
    /// A fault at some bytes of a text.
    #[must_use]
    pub fn at(text: &str, path: &Path, span: &Range<usize>, message: String) -> Self {
        let start = text.floor_char_boundary(span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |end| end + 1);
        let line_end = text[start..]
            .find('\n')
            .map_or(text.len(), |length| start + length);
        let line_text = text[line_start..line_end].trim_end_matches('\r');
        let end = text.floor_char_boundary(span.end.clamp(start, line_end));
        Self {
            file: path.to_owned(),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            message,
            text: line_text.to_owned(),
            width: text[start..end].chars().count().max(1),
            is_conflict: false,
        }
    }

    /// What the parser has found wrong.
    #[must_use]
    pub fn of_parser(text: &str, path: &Path, error: &toml::de::Error) -> Self {
        let message = error.message().lines().collect::<Vec<_>>().join(": ");
        Self::at(text, path, &error.span().unwrap_or(0..0), message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}",
            self.file.display(),
            self.line,
            self.column,
            self.message
        )
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.0.first() else {
            return f.write_str("nothing is wrong");
        };
        write!(f, "{first}")?;
        match self.0.len() - 1 {
            0 => Ok(()),
            1 => f.write_str(" (and 1 more)"),
            more => write!(f, " (and {more} more)"),
        }
    }
}

/// Where values of a text stand, which is parsed once more for it: nobody needs it while all is well.
pub(super) struct Places<'t>(Option<Spanned<DeTable<'t>>>);

impl<'t> Places<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        Self(DeTable::parse(text).ok())
    }

    /// The bytes of a value, or of what is nearest to it on the way there.
    pub(super) fn find(&self, steps: &[Step<'_>]) -> Range<usize> {
        enum Place<'p, 't> {
            Table(&'p DeTable<'t>),
            Value(&'p DeValue<'t>),
        }
        let Some(root) = &self.0 else {
            return 0..0;
        };
        let mut span = 0..0;
        let mut place = Place::Table(root.get_ref());
        for step in steps {
            let table = match place {
                Place::Table(table) => Some(table),
                Place::Value(value) => value.as_table(),
            };
            let next = match (step, place, table) {
                (Step::Key(key) | Step::Name(key), _, Some(table)) => {
                    let entry = table.iter().find(|(name, _)| name.get_ref() == key);
                    entry.map(|(name, value)| match step {
                        Step::Name(_) => (name.span(), value),
                        _ => (value.span(), value),
                    })
                }
                (Step::Index(index), Place::Value(value), _) => value
                    .as_array()
                    .and_then(|array| array.get(*index))
                    .map(|value| (value.span(), value)),
                _ => None,
            };
            let Some((found, value)) = next else {
                break;
            };
            span = found;
            place = Place::Value(value.get_ref());
        }
        span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "[settings]\ntimeout.bad = 7\n\n[[binding]]\nlocal = 'ä:80' # ü\n[[binding]]\nto='x'\n";

    #[test]
    fn values_are_found_by_their_way() {
        let places = Places::of(TEXT);
        let at = |steps: &[Step<'_>]| {
            let fault = Fault::at(TEXT, Path::new("f"), &places.find(steps), String::new());
            (fault.line, fault.column, fault.width)
        };
        use Step::{Index, Key, Name};
        assert_eq!(
            at(&[Key("binding"), Index(0), Key("local")]),
            (5, 9, 6),
            "with its quotes"
        );
        assert_eq!(at(&[Key("binding"), Index(1), Name("to")]), (7, 1, 2));
        assert_eq!(
            at(&[Key("settings"), Key("timeout"), Name("bad")]),
            (2, 9, 3)
        );
        // What is not there is shown where it would be.
        assert_eq!(at(&[Key("binding"), Index(1), Key("name")]).0, 6);
        assert_eq!(at(&[Key("nothing")]), (1, 1, 1));
    }

    #[test]
    fn a_fault_has_the_line_that_it_is_in() {
        let fault = Fault::at("a\r\nbc\r\n", Path::new("/f"), &(4..5), "no".into());
        assert_eq!(fault.to_string(), "/f:2:2: no");
        assert_eq!(fault.text, "bc");
        let end = Fault::at("a\n", Path::new("/f"), &(2..2), "no".into());
        assert_eq!((end.line, end.column, end.text.as_str()), (2, 1, ""));
    }
}
