//! Records with fields that are known only when they are read, as in dumps of maps.

use std::io::{self, Write};

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value;

use super::{
    Format,
    list::{Column, List, left, right},
};

/// Names and values in the order in which they are shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record(pub Vec<(&'static str, Value)>);

impl Record {
    fn cells(&self) -> Vec<String> {
        self.0.iter().map(|(_, value)| cell(value)).collect()
    }

    fn columns(&self) -> Vec<Column> {
        self.0
            .iter()
            .map(|(name, value)| match value {
                Value::Number(_) => right(name),
                _ => left(name),
            })
            .collect()
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Starts a list of records that all have the fields of `first`.
pub fn records<'w>(
    out: &'w mut dyn Write,
    format: Format,
    noun: &str,
    first: Option<&Record>,
) -> List<'w> {
    let columns = first.map(Record::columns).unwrap_or_default();
    List::new(out, format, noun, &columns)
}

impl List<'_> {
    /// Adds a record.
    ///
    /// # Errors
    ///
    /// Where the writer fails.
    pub fn push_record(&mut self, record: &Record) -> io::Result<()> {
        self.push_with(record, || record.cells())
    }
}

/// A value without the quotes of JSON; nothing is a dash.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => "-".into(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{name}={}", cell(value)))
            .collect::<Vec<_>>()
            .join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(format: Format, list: &[Record]) -> String {
        let mut out = Vec::new();
        let mut writer = records(&mut out, format, "dump", list.first());
        for record in list {
            writer.push_record(record).unwrap();
        }
        writer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_keep_their_order() {
        let list = [Record(vec![
            ("port", json!(80)),
            ("name", json!("web")),
            ("flags", json!(["a", "b"])),
            ("device", Value::Null),
        ])];
        assert_eq!(
            written(Format::JsonLines, &list),
            "{\"port\":80,\"name\":\"web\",\"flags\":[\"a\",\"b\"],\"device\":null}\n"
        );
        let table = Format::Table {
            header: true,
            styled: false,
        };
        assert_eq!(
            written(table, &list),
            "port  name  flags  device\n  80  web   a,b    -\n"
        );
        assert_eq!(written(table, &[]), "");
    }
}
