//! JSON documents, streamed: `{"schema":"demux.v1.<noun>","items":[…]}`.

use std::io::{self, Write};

use serde::Serialize;

/// A document whose items come one after the other.
///
/// Nothing is written before the first item or the end, so that an error found until then can take
/// its place.
pub(super) struct Document {
    schema: String,
    is_pretty: bool,
    is_begun: bool,
}

impl Document {
    pub(super) fn new(noun: &str, is_pretty: bool) -> Self {
        Self {
            schema: format!("demux.v1.{noun}"),
            is_pretty,
            is_begun: false,
        }
    }

    pub(super) fn push(&mut self, item: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
        if self.is_begun {
            out.write_all(b",")?;
        } else {
            self.begin(out)?;
        }
        if !self.is_pretty {
            return out.write_all(&serde_json::to_vec(item)?);
        }
        // No string of JSON contains a line break.
        for line in serde_json::to_string_pretty(item)?.lines() {
            write!(out, "\n    {line}")?;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let is_empty = !self.is_begun;
        if is_empty {
            self.begin(out)?;
        }
        if !self.is_pretty {
            return out.write_all(b"]}\n");
        }
        if !is_empty {
            out.write_all(b"\n  ")?;
        }
        out.write_all(b"]\n}\n")
    }

    fn begin(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.is_begun = true;
        if self.is_pretty {
            write!(
                out,
                "{{\n  \"schema\": \"{}\",\n  \"items\": [",
                self.schema
            )
        } else {
            write!(out, "{{\"schema\":\"{}\",\"items\":[", self.schema)
        }
    }
}

/// Writes one item on a line of its own.
pub(super) fn write_line(item: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    // Put together first: a call through the trait object for each token costs more.
    let mut line = serde_json::to_vec(item)?;
    line.push(b'\n');
    out.write_all(&line)
}
