//! `demux man`: manual pages.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use clap_mangen::Man;

use super::{Outcome, context::Context};
use crate::{Error, Result};

/// Write manual pages, one for each command
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLES:\n  demux man /usr/local/share/man/man1\n  man -l demux-load.1")]
pub(super) struct Args {
    /// The directory to write them to, which must exist
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let mut command = super::command();
        command.build();
        let mut commands = vec![command.clone()];
        commands.extend(command.get_subcommands().cloned());
        for command in commands {
            let name = command.get_display_name().unwrap_or("demux");
            let path = self.directory.join(format!("{name}.1"));
            write_page(command, &path)
                .map_err(|source| Error::io(format!("write {}", path.display()), source))?;
        }
        context.note(format!(
            "manual pages are in {0}; read one with: man -l {0}/demux.1",
            self.directory.display()
        ));
        Ok(Outcome::Done)
    }
}

fn write_page(command: clap::Command, path: &Path) -> io::Result<()> {
    let examples = command.get_after_help().map(ToString::to_string);
    let mut page = BufWriter::new(File::create(path)?);
    // A page has no date, which clap_mangen would leave out, and the rest would take its place.
    writeln!(
        page,
        ".TH {name} 1 \"\" \"demux {version}\" demux",
        name = command.get_display_name().unwrap_or("demux"),
        version = env!("CARGO_PKG_VERSION")
    )?;
    let man = Man::new(command);
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    man.render_subcommands_section(&mut page)?;
    // As they are: a paragraph would be filled.
    writeln!(page, ".SH EXAMPLES\n.nf")?;
    for line in examples.iter().flat_map(|text| text.lines()).skip(1) {
        writeln!(page, "{}", roff(line.strip_prefix("  ").unwrap_or(line)))?;
    }
    writeln!(page, ".fi")?;
    page.flush()
}

/// A line of text that roff leaves as it is.
fn roff(line: &str) -> String {
    let escaped = line.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) {
        format!("\\&{escaped}")
    } else {
        escaped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_request() {
        assert_eq!(roff("a -b \\c"), "a \\-b \\ec");
        assert_eq!(roff(".so x"), "\\&.so x");
    }
}
