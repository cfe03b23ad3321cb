//! A configuration as TOML.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value};

use super::list::{Column, Row, left};
use crate::configuration::sections::File;

/// The running state as a configuration.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct ExportRow(pub File);

impl Row for ExportRow {
    const NOUN: &'static str = "export";
    const COLUMNS: &'static [Column] = &[left("CONFIGURATION")];

    fn cells(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Writes a configuration as TOML, behind lines of a comment.
///
/// # Errors
///
/// Where the writer fails.
pub fn write_toml(file: &File, comment: &[String], out: &mut dyn Write) -> io::Result<()> {
    for line in comment {
        writeln!(out, "# {}", super::printable(line))?;
    }
    let Value::Object(sections) = serde_json::to_value(file)? else {
        return Ok(());
    };
    for (key, value) in ordered(&sections) {
        match value {
            Value::Object(table) => write_table(&format!("[{key}]"), table, out)?,
            Value::Array(tables) => {
                for table in tables.iter().filter_map(Value::as_object) {
                    write_table(&format!("[[{key}]]"), table, out)?;
                }
            }
            value => write_pair(key, value, out)?,
        }
    }
    Ok(())
}

/// In which order keys are written; others come behind, by their names.
const ORDER: [&str; 14] = [
    "version",
    "instance",
    "settings",
    "interface",
    "binding",
    "name",
    "protocol",
    "local",
    "to",
    "fallback",
    "track",
    "kernel-sockets",
    "mode",
    "egress",
];

fn ordered(table: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut pairs: Vec<(&String, &Value)> = table.iter().collect();
    let place = |key: &str| ORDER.iter().position(|other| *other == key);
    pairs.sort_by_key(|(key, _)| place(key).unwrap_or(ORDER.len()));
    pairs
}

fn write_table(head: &str, table: &Map<String, Value>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{head}")?;
    write_pairs("", table, out)
}

/// Keys of tables within are dotted, as `demux set` has them.
fn write_pairs(prefix: &str, table: &Map<String, Value>, out: &mut dyn Write) -> io::Result<()> {
    for (key, value) in ordered(table) {
        match value {
            Value::Object(inner) => write_pairs(&format!("{prefix}{key}."), inner, out)?,
            value => write_pair(&format!("{prefix}{key}"), value, out)?,
        }
    }
    Ok(())
}

fn write_pair(key: &str, value: &Value, out: &mut dyn Write) -> io::Result<()> {
    // Strings, numbers and truth are written in TOML as in JSON, but for one character.
    writeln!(
        out,
        "{key} = {}",
        value.to_string().replace('\u{7f}', "\\u007f")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::{Source, check::check};

    #[test]
    fn what_is_written_is_read_back() {
        let text = "version = 1\n\n[instance]\nmax_bindings = 9\n\n[settings]\ntrack = \"bound\"\n\
                    kernel-sockets = false\nephemeral.range = \"5000-5999\"\n\
                    timeout.syn-sent = 7\n\n[[interface]]\nname = \"e\\\"\\u007f\"\n\
                    default = \"drop\"\n\n[[binding]]\nname = \"web\"\nprotocol = \"tcp\"\n\
                    local = \"[::]:80\"\nv6_only = true\n";
        let file: File = toml::from_str(text).unwrap();
        let mut out = Vec::new();
        write_toml(&file, &["a comment".into()], &mut out).unwrap();
        let written = String::from_utf8(out).unwrap();
        assert_eq!(written, format!("# a comment\n{text}"));
        let source = Source {
            path: "/f".into(),
            text: written,
            is_part: false,
        };
        assert_eq!(check(&[source]).unwrap().bindings.len(), 1);
    }
}
