//! Tables without borders, as those of ss and ip.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ColumnConstraint, Width, presets};

use super::{list::Column, text::printable};

/// Rows that are aligned together. A longer table is written in sections, so that its first rows
/// come soon and memory stays bounded; columns only grow from one section to the next.
const SECTION: usize = 4096;

/// Blanks between two columns.
const GAP: u16 = 2;

pub(super) struct Table {
    columns: Vec<Column>,
    /// Widths that earlier sections had.
    widths: Vec<u16>,
    is_header_due: bool,
    is_styled: bool,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &[Column], has_header: bool, is_styled: bool) -> Self {
        Self {
            columns: columns.to_vec(),
            widths: vec![0; columns.len()],
            is_header_due: has_header && !columns.is_empty(),
            is_styled,
            rows: Vec::new(),
        }
    }

    /// Makes the first columns at least so wide.
    pub(super) fn widen(&mut self, widths: &[u16]) {
        for (width, least) in self.widths.iter_mut().zip(widths) {
            *width = (*width).max(*least);
        }
    }

    pub(super) fn push(&mut self, cells: Vec<String>, out: &mut dyn Write) -> io::Result<()> {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
        if self.rows.len() < SECTION {
            return Ok(());
        }
        self.write_section(out)
    }

    pub(super) fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.rows.is_empty() && !self.is_header_due {
            return Ok(());
        }
        self.write_section(out)
    }

    fn write_section(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        // The header is an ordinary row, so that it needs no separator.
        if self.is_header_due {
            table.add_row(self.columns.iter().map(|column| column.title));
        }
        for cells in self.rows.drain(..) {
            table.add_row(cells.iter().map(|cell| printable(cell)));
        }
        let last = self.columns.len() - 1;
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if index == last { 0 } else { GAP }));
            if self.columns[index].is_right {
                column.set_cell_alignment(CellAlignment::Right);
            }
            let width = self.widths[index] + column.padding_width();
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
        }
        for (width, seen) in self
            .widths
            .iter_mut()
            .zip(table.column_max_content_widths())
        {
            *width = seen.max(*width);
        }
        for line in table.lines() {
            let line = line.trim_end();
            if std::mem::take(&mut self.is_header_due) && self.is_styled {
                writeln!(out, "\x1b[1m{line}\x1b[0m")?;
            } else {
                writeln!(out, "{line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::list::{left, right},
        *,
    };

    #[test]
    fn a_long_table_is_written_in_sections_under_one_header() {
        let mut out = Vec::new();
        let mut table = Table::new(&[left("ABC"), right("N")], true, false);
        for index in 0..SECTION + 1 {
            table
                .push(vec!["wide cell".into(), index.to_string()], &mut out)
                .unwrap();
        }
        table.finish(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), SECTION + 2);
        assert_eq!(lines[0], "ABC           N");
        assert_eq!(lines[1], "wide cell     0");
        assert_eq!(lines[SECTION + 1], "wide cell  4096");
    }

    #[test]
    fn cells_cannot_move_the_cursor() {
        let mut out = Vec::new();
        let mut table = Table::new(&[left("NAME")], false, false);
        table.push(vec!["a\x1b[2Jb\nc".into()], &mut out).unwrap();
        table.finish(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a\\u{1b}[2Jb\\nc\n");
    }

    #[test]
    fn a_styled_header_is_bold() {
        let mut out = Vec::new();
        let mut table = Table::new(&[left("NAME")], true, true);
        table.push(vec!["a".into()], &mut out).unwrap();
        table.finish(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "\x1b[1mNAME\x1b[0m\na\n");
    }
}
