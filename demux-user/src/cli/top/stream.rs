//! The view where there is no screen: a sample after the other.

use std::{thread, time::Instant};

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};

use super::Source;
use crate::{
    Error, Result,
    cli::context::{Context, cannot_write},
    render::{Format, write_top_document, write_top_text},
    top::{Model, Sampler},
};

/// Writes samples until there were `count`.
pub(super) fn run(
    context: &mut Context<'_>,
    mut model: Model,
    source: &Source,
    count: Option<u64>,
) -> Result<()> {
    let wanted = model.wanted();
    let mut sampler = Sampler::default();
    let mut due = Instant::now();
    // There is nothing to compare the first one with.
    let mut shown = None;
    while count.is_none_or(|count| shown < Some(count)) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let started = Instant::now();
        let sample = sampler.sample(&source.open()?, &wanted.selection)?;
        // Never more than half of the time.
        due = started + wanted.interval.max(2 * started.elapsed());
        if let Some(shown) = shown {
            model.take(Ok(sample))?;
            write(context, &model, shown)?;
        }
        shown = Some(shown.map_or(0, |shown| shown + 1));
    }
    Ok(())
}

fn write(context: &mut Context<'_>, model: &Model, shown: u64) -> Result<()> {
    let format = context.format();
    let out = context.out();
    match format {
        Format::Table { header, styled } => {
            if shown > 0 {
                writeln!(out).map_err(cannot_write)?;
            }
            write_top_text(model, header, styled, out)
        }
        Format::Json { .. } | Format::JsonLines => write_top_document(model, now()?, format, out),
    }
    .map_err(cannot_write)
}

/// The time, to the millisecond, as RFC 3339 writes it.
fn now() -> Result<String> {
    let rounded = Timestamp::now().round(
        TimestampRound::new()
            .smallest(Unit::Millisecond)
            .mode(RoundMode::Trunc),
    );
    rounded
        .map(|time| time.to_string())
        .map_err(|error| Error::unexpected("read the clock", error.to_string()))
}
