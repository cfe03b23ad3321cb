//! What applying a configuration changes, and what is wrong with one.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    list::{Column, Row, left, right},
    text::printable,
};
use crate::{apply::Change, configuration::Fault};

/// Something that changes.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct ChangeRow(pub Change);

impl Row for ChangeRow {
    const NOUN: &'static str = "apply";
    const COLUMNS: &'static [Column] = &[left("CHANGE")];

    fn cells(&self) -> Vec<String> {
        vec![self.0.to_string()]
    }
}

/// Something wrong with a file.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct FaultRow(pub Fault);

impl Row for FaultRow {
    const NOUN: &'static str = "apply";
    const COLUMNS: &'static [Column] = &[
        left("FILE"),
        right("LINE"),
        right("COLUMN"),
        left("MESSAGE"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.0.file.display().to_string(),
            self.0.line.to_string(),
            self.0.column.to_string(),
            self.0.message.clone(),
        ]
    }
}

/// Writes changes as a difference: a line for each, coloured by what happens.
///
/// # Errors
///
/// Where the writer fails.
pub fn write_changes(changes: &[Change], is_styled: bool, out: &mut dyn Write) -> io::Result<()> {
    for change in changes {
        let line = change.to_string();
        let line = printable(&line);
        let colour = match change.action.sign() {
            '+' => "\x1b[32m",
            '-' => "\x1b[31m",
            _ => "\x1b[33m",
        };
        if is_styled {
            writeln!(out, "{colour}{line}\x1b[0m")?;
        } else {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// Writes what is wrong, each with the line that it is in and a mark below.
///
/// # Errors
///
/// Where the writer fails.
pub fn write_faults(faults: &[Fault], out: &mut dyn Write) -> io::Result<()> {
    for fault in faults {
        writeln!(out, "{}", printable(&fault.to_string()))?;
        let number = fault.line.to_string();
        let blank = " ".repeat(number.len());
        // A tab would be wider above than below.
        let text = fault.text.replace('\t', " ");
        let (text, indent) = (printable(&text), " ".repeat(fault.column - 1));
        writeln!(out, "{number} | {text}")?;
        writeln!(out, "{blank} | {indent}{}", "^".repeat(fault.width))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stands_below_what_is_meant() {
        let text = "a = 1\n\tünknown = 2\n";
        let at = text.find('ü').unwrap();
        let span = at..at + "ünknown".len();
        let fault = Fault::at(text, "/f".as_ref(), &span, "no such key".into());
        let mut out = Vec::new();
        write_faults(&[fault], &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "/f:2:2: no such key\n2 |  ünknown = 2\n  |  ^^^^^^^\n"
        );
    }
}
