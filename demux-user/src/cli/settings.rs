//! `demux settings`: what `demux set` changes.

use super::{
    Outcome,
    context::{Context, cannot_write},
    names::Names,
};
use crate::{Result, ports, render::SettingRow, settings};

/// Show settings
///
/// Every line is what `demux set` takes, with a blank for the equals sign.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLES:\n  demux settings\n  demux settings -j")]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let Self {} = self;
        list(context)?;
        Ok(Outcome::Done)
    }
}

/// Lists the settings as they are now.
pub(super) fn list(context: &mut Context<'_>) -> Result<()> {
    let opened = context.open()?;
    let names = Names::read()?;
    let config = opened.tables.config()?;
    let interfaces: Vec<_> = opened.tables.interfaces()?;
    let interfaces: Vec<_> = interfaces.into_iter().map(|(_, entry)| entry).collect();
    let ports = ports::settings(&opened.tables)?;
    let mut list = context.list::<SettingRow>();
    for (key, value) in settings::settings(&config, &interfaces, &ports, |index| names.show(index))
    {
        list.push(&SettingRow { key, value })
            .map_err(cannot_write)?;
    }
    list.finish().map_err(cannot_write)
}
