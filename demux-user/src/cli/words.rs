//! Arguments that are one of a few words.

use std::ffi::OsStr;

use clap::{
    Arg, Command, Error,
    builder::{PossibleValue, TypedValueParser},
    error::ErrorKind,
};

/// Reads one of a few words.
#[derive(Clone)]
pub(super) struct Words<T: 'static> {
    /// What the argument is called in errors.
    pub(super) what: &'static str,
    /// The words, what they mean, and what the help says about them.
    pub(super) words: &'static [(&'static str, T, &'static str)],
}

impl<T: Copy + Send + Sync + 'static> TypedValueParser for Words<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        _argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, Error> {
        let found = self.words.iter().find(|(word, ..)| value == *word);
        if let Some((_, meaning, _)) = found {
            return Ok(*meaning);
        }
        let value = value.to_string_lossy();
        let names: Vec<_> = self.words.iter().map(|(word, ..)| *word).collect();
        let names = names.join(", ");
        let what = self.what;
        let message = format!("unknown {what} {value:?}; available: {names}");
        Err(Error::raw(ErrorKind::InvalidValue, message).with_cmd(command))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.words.iter().map(|(word, _, help)| {
            PossibleValue::new(*word).help(*help)
        })))
    }
}
