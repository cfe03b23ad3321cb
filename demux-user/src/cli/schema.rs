//! `demux schema`: the form of the configuration file, for editors and programs.

use super::{
    Outcome,
    context::{Context, cannot_write},
};
use crate::{
    Error, Result,
    configuration::schema,
    render::{document_schema, schema_nouns},
};

/// Write the JSON Schema of the configuration file
///
/// It is JSON always, and what `demux apply` reads is what it describes. With NOUN it is that of the
/// document which the command of that name writes with -j; error is that of a failure.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Whose output, such as status, bindings or connections
    noun: Option<String>,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux schema > demux.schema.json         begin a file with: #:schema ./demux.schema.json
  demux schema | jq '.\"$defs\".Binding.properties | keys'
  demux schema status                      what demux status -j writes";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let schema = match &self.noun {
            None => schema::schema(),
            Some(noun) => document_schema(noun).ok_or_else(|| {
                let nouns = schema_nouns().join(", ");
                Error::invalid("noun", noun, format!("schemas there are of {nouns}"))
            })?,
        };
        let text =
            serde_json::to_string_pretty(&schema).map_err(|error| cannot_write(error.into()))?;
        writeln!(context.out(), "{text}").map_err(cannot_write)?;
        Ok(Outcome::Done)
    }
}
