//! Lists of rows in any format, written as they come where the format allows it.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    Format,
    json::{Document, write_line},
    table::Table,
};

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// What the header calls it.
    pub title: &'static str,
    /// Whether its cells stand at its right edge, as numbers do.
    pub is_right: bool,
}

/// A column of text.
#[must_use]
pub const fn left(title: &'static str) -> Column {
    Column {
        title,
        is_right: false,
    }
}

/// A column of numbers.
#[must_use]
pub const fn right(title: &'static str) -> Column {
    Column {
        title,
        is_right: true,
    }
}

/// Something that a command lists.
pub trait Row: Serialize {
    /// What a JSON document calls its schema: `demux.v1.<noun>`.
    const NOUN: &'static str;
    /// How wide the first columns are at least: for lists whose header is written before their rows are
    /// known.
    const WIDTHS: &'static [u16] = &[];
    /// The columns of the table.
    const COLUMNS: &'static [Column];

    /// One cell for each column.
    fn cells(&self) -> Vec<String>;
}

/// A list that is being written.
pub struct List<'w> {
    out: &'w mut dyn Write,
    kind: Kind,
}

enum Kind {
    Table(Table),
    Json(Document),
    JsonLines,
}

impl<'w> List<'w> {
    /// A list of rows of one type.
    pub fn of<R: Row>(out: &'w mut dyn Write, format: Format) -> Self {
        let mut list = Self::new(out, format, R::NOUN, R::COLUMNS);
        if let Kind::Table(table) = &mut list.kind {
            table.widen(R::WIDTHS);
        }
        list
    }

    /// A list with columns that only the caller knows.
    pub fn new(out: &'w mut dyn Write, format: Format, noun: &str, columns: &[Column]) -> Self {
        let kind = match format {
            Format::Table { header, styled } => Kind::Table(Table::new(columns, header, styled)),
            Format::Json { pretty } => Kind::Json(Document::new(noun, pretty)),
            Format::JsonLines => Kind::JsonLines,
        };
        Self { out, kind }
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// Where the writer fails.
    pub fn push<R: Row>(&mut self, row: &R) -> io::Result<()> {
        self.push_with(row, || row.cells())
    }

    /// Adds an item, and the cells that show it in a table.
    ///
    /// # Errors
    ///
    /// Where the writer fails.
    pub fn push_with(
        &mut self,
        item: &impl Serialize,
        cells: impl FnOnce() -> Vec<String>,
    ) -> io::Result<()> {
        match &mut self.kind {
            Kind::Table(table) => table.push(cells(), self.out),
            Kind::Json(document) => document.push(item, self.out),
            Kind::JsonLines => write_line(item, self.out),
        }
    }

    /// Writes out what there is so far, of a list that goes on.
    ///
    /// # Errors
    ///
    /// Where the writer fails.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Kind::Table(table) = &mut self.kind {
            table.finish(self.out)?;
        }
        self.out.flush()
    }

    /// Writes what is left, and everything out.
    ///
    /// # Errors
    ///
    /// Where the writer fails.
    pub fn finish(mut self) -> io::Result<()> {
        match &mut self.kind {
            Kind::Table(table) => table.finish(self.out)?,
            Kind::Json(document) => document.finish(self.out)?,
            Kind::JsonLines => {}
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Fruit {
        name: &'static str,
        count: u32,
    }

    impl Row for Fruit {
        const NOUN: &'static str = "fruits";
        const COLUMNS: &'static [Column] = &[left("NAME"), right("COUNT")];

        fn cells(&self) -> Vec<String> {
            vec![self.name.into(), self.count.to_string()]
        }
    }

    fn written(format: Format, fruits: &[Fruit]) -> String {
        let mut out = Vec::new();
        let mut list = List::of::<Fruit>(&mut out, format);
        for fruit in fruits {
            list.push(fruit).unwrap();
        }
        list.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    const FRUITS: [Fruit; 2] = [
        Fruit {
            name: "apple",
            count: 7,
        },
        Fruit {
            name: "fig",
            count: 1234567,
        },
    ];

    #[test]
    fn a_table_aligns_its_columns_and_trails_no_blanks() {
        let table = |header| Format::Table {
            header,
            styled: false,
        };
        assert_eq!(
            written(table(true), &FRUITS),
            "NAME     COUNT\napple        7\nfig    1234567\n"
        );
        assert_eq!(
            written(table(false), &FRUITS),
            "apple        7\nfig    1234567\n"
        );
        assert_eq!(written(table(true), &[]), "NAME  COUNT\n");
        assert_eq!(written(table(false), &[]), "");
    }

    #[test]
    fn json_is_one_document_with_its_schema() {
        assert_eq!(
            written(Format::Json { pretty: false }, &FRUITS),
            concat!(
                r#"{"schema":"demux.v1.fruits","items":[{"name":"apple","count":7},"#,
                r#"{"name":"fig","count":1234567}]}"#,
                "\n"
            )
        );
        assert_eq!(
            written(Format::Json { pretty: false }, &[]),
            "{\"schema\":\"demux.v1.fruits\",\"items\":[]}\n"
        );
    }

    #[test]
    fn pretty_json_is_the_same_document() {
        for fruits in [&FRUITS[..], &FRUITS[..1], &[]] {
            let parse = |pretty| -> serde_json::Value {
                serde_json::from_str(&written(Format::Json { pretty }, fruits)).unwrap()
            };
            assert_eq!(parse(true), parse(false));
        }
        assert_eq!(
            written(Format::Json { pretty: true }, &FRUITS[..1]),
            "{\n  \"schema\": \"demux.v1.fruits\",\n  \"items\": [\n    {\n      \"name\": \"apple\",\n      \"count\": 7\n    }\n  ]\n}\n"
        );
    }

    #[test]
    fn json_lines_are_the_items_alone() {
        assert_eq!(
            written(Format::JsonLines, &FRUITS),
            "{\"name\":\"apple\",\"count\":7}\n{\"name\":\"fig\",\"count\":1234567}\n"
        );
    }
}
