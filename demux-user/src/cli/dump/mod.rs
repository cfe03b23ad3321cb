//! `demux dump`: the entries of one map.

mod allocator;
mod decode;
mod fields;
mod listen;
mod steering;

use std::io::Write;

use demux_common::layout::map;

use self::decode::Decoder;
use super::{
    Outcome,
    context::{Context, cannot_write},
    names::Names,
};
use crate::{
    Error, Result,
    bpf::BatchReader,
    render::{Format, List, Record, records},
};

/// Dump one map, typed; empty slots are skipped
///
/// Shows what is stored, rows that have expired included; `demux maps` lists the maps.
/// Maps that hold a value for each CPU are shown so.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLES:\n  demux dump BINDINGS\n  demux dump connections --jsonl")]
pub(super) struct Args {
    /// The map
    #[arg(value_name = "MAP")]
    map: String,
}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let name = map::ALL
            .iter()
            .find(|name| name.eq_ignore_ascii_case(&self.map))
            .ok_or_else(|| Error::MapNotFound(self.map.clone()))?;
        let opened = context.open()?;
        let names = Names::read()?;
        if *name == map::XSKS {
            return Err(Error::Unsupported {
                operation: format!("dump the map {name}"),
                reason: "the kernel shows its entries to nobody; demux xsks lists the sockets"
                    .to_owned(),
            });
        }
        let failed = |source| Error::io(format!("read the map {name}"), source);
        let decoder = Decoder::new(name, &names, opened.tables.info(name)?.cpu_stride());
        let fd = opened.tables.map_fd(name)?;
        let format = context.format();
        let mut sink = Sink::Empty(context.out(), format);
        if *name == map::CPUS {
            for (cpu, queue) in opened.tables.cpus()? {
                sink.push(&Record(vec![("cpu", cpu.into()), ("queue", queue.into())]))?;
            }
            sink.finish()?;
            return Ok(Outcome::Done);
        }
        let mut reader = BatchReader::new(fd).map_err(failed)?;
        while let Some(batch) = reader.next_batch().map_err(failed)? {
            for (key, value) in batch.iter() {
                for record in decoder.decode(key, value)? {
                    sink.push(&record)?;
                }
            }
        }
        sink.finish()?;
        Ok(Outcome::Done)
    }
}

/// A list whose columns its first record brings.
enum Sink<'w> {
    Empty(&'w mut dyn Write, Format),
    Begun(List<'w>),
    Taken,
}

impl Sink<'_> {
    fn push(&mut self, record: &Record) -> Result<()> {
        *self = match std::mem::replace(self, Self::Taken) {
            Self::Empty(out, format) => Self::Begun(records(out, format, "dump", Some(record))),
            other => other,
        };
        match self {
            Self::Begun(list) => list.push_record(record).map_err(cannot_write),
            Self::Empty(..) | Self::Taken => Ok(()),
        }
    }

    fn finish(self) -> Result<()> {
        let list = match self {
            Self::Empty(out, format) => records(out, format, "dump", None),
            Self::Begun(list) => list,
            Self::Taken => return Ok(()),
        };
        list.finish().map_err(cannot_write)
    }
}
