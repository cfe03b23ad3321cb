//! The live view where there is no screen: a table after the other.

use std::io::{self, Write};

use super::{
    columns::{cell, look},
    header,
};
use crate::{
    render::{Format, list, table::Table},
    top::{Model, View},
};

/// Writes a sample: the instance, and the rows of the view in their order, with every column.
///
/// # Errors
///
/// Where the writer fails.
pub fn write_top_text(
    model: &Model,
    has_header: bool,
    is_styled: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Some(snapshot) = model.snapshot() else {
        return Ok(());
    };
    let view = model.view();
    if has_header {
        writeln!(out, "{}", header::title(&snapshot.facts))?;
        for line in header::lines(&snapshot.facts, false) {
            writeln!(out, "{}", line.to_string().trim_end())?;
        }
        if view == View::Connections && snapshot.matching > model.order().len() as u64 {
            let (first, all) = (model.order().len(), snapshot.matching);
            writeln!(out, "the first {first} of {all}")?;
        }
        writeln!(out)?;
    }
    let columns: Vec<list::Column> = view
        .columns()
        .iter()
        .map(|&column| {
            let look = look(view, column);
            list::Column {
                title: look.title,
                is_right: look.is_right,
            }
        })
        .collect();
    let mut table = Table::new(&columns, has_header, is_styled);
    for &place in model.order() {
        let cells = view.columns().iter();
        let cells = cells.map(|&column| cell(snapshot, view, place, column));
        table.push(cells.collect(), out)?;
    }
    table.finish(out)?;
    out.flush()
}

/// The format of a view that repeats itself: documents on a line each.
#[must_use]
pub(super) const fn on_a_line(format: Format) -> Format {
    match format {
        Format::Json { .. } => Format::Json { pretty: false },
        format => format,
    }
}
