//! Wrong usage, told like every other error; and the help, which is none.

use std::{ffi::OsString, io::Write};

use clap::{Error, error::ErrorKind};

use super::context::Styles;
use crate::render::{ErrorView, Format, write_error};

/// The status that usage errors end with.
const USAGE: u8 = 2;

/// Tells what is wrong with the arguments, or the help that they ask for; returns the exit status.
pub(super) fn report(
    error: &Error,
    arguments: &[OsString],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let styles = Styles::choose(clap::ColorChoice::Auto);
    let render = |is_styled| {
        let text = error.render();
        if is_styled {
            text.ansi().to_string()
        } else {
            text.to_string()
        }
    };
    // Where the text cannot be written, the status still tells.
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = out.write_all(render(styles.out).as_bytes());
            let _ = out.flush();
            return 0;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if !is_json(arguments) => {
            let _ = err.write_all(render(styles.err).as_bytes());
            return USAGE;
        }
        _ => {}
    }
    let format = if is_json(arguments) {
        Format::Json { pretty: false }
    } else {
        Format::Table {
            header: true,
            styled: false,
        }
    };
    let _ = write_error(&view(error), format, styles.err, out, err);
    // Status 2 may be that of a command that was run.
    if is_exec(arguments) {
        super::exec::FAILED
    } else {
        USAGE
    }
}

/// Whether the arguments, wrong as they are, name the command that runs others.
fn is_exec(arguments: &[OsString]) -> bool {
    let mut arguments = arguments
        .iter()
        .skip(1)
        .filter_map(|argument| argument.to_str());
    while let Some(argument) = arguments.next() {
        match argument {
            // Global options with a value of their own.
            "-N" | "--netns" | "--bpffs" | "--color" => {
                arguments.next();
            }
            option if option.starts_with('-') => {}
            command => return command == "exec",
        }
    }
    false
}

/// Makes one line and a hint of clap's paragraphs.
fn view(error: &Error) -> ErrorView {
    let text = error.to_string();
    let mut lines = Vec::new();
    let mut tips = Vec::new();
    let mut help = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(tip) = line.strip_prefix("tip: ") {
            tips.push(tip.to_owned());
        } else if let Some(usage) = line.strip_prefix("Usage: ") {
            // The words of the command, up to its first argument.
            let words: Vec<_> = usage
                .split(' ')
                .take_while(|word| word.chars().all(|letter| letter.is_ascii_lowercase()))
                .collect();
            help = Some(format!("see: {} --help", words.join(" ")));
        } else if !line.starts_with("For more information") && help.is_none() {
            lines.push(line.strip_prefix("error: ").unwrap_or(line));
        }
    }
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "arguments are missing".into(),
        _ => lines.join(" "),
    };
    tips.extend(help);
    let hint = if tips.is_empty() {
        "see: demux --help".into()
    } else {
        tips.join("; ")
    };
    ErrorView {
        code: "usage".into(),
        message,
        hint: Some(hint),
    }
}

/// Whether the arguments, wrong as they are, ask for JSON.
fn is_json(arguments: &[OsString]) -> bool {
    arguments
        .iter()
        .skip(1)
        .take_while(|argument| *argument != "--")
        .filter_map(|argument| argument.to_str())
        .any(|argument| match argument.strip_prefix('-') {
            Some("-json" | "-jsonl" | "-pretty") => true,
            // Among short options; N takes the rest as its value.
            Some(short) if !short.starts_with('-') => short
                .chars()
                .take_while(|&letter| letter != 'N')
                .any(|letter| letter == 'j'),
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_runs_others_is_recognised_wherever_it_stands() {
        let is = |line: &str| {
            let arguments: Vec<OsString> = line.split(' ').map(Into::into).collect();
            is_exec(&arguments)
        };
        assert!(is("demux exec --bogus"));
        assert!(is("demux -q -N exec --color always exec"));
        assert!(!is("demux status exec"));
        assert!(!is("demux -N exec"));
    }

    #[test]
    fn json_is_recognised_before_arguments_are_understood() {
        let asks = |arguments: &[&str]| {
            let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
            is_json(&arguments)
        };
        assert!(asks(&["demux", "-j", "status"]));
        assert!(asks(&["demux", "bogus", "--jsonl"]));
        assert!(asks(&["demux", "-qj"]));
        assert!(!asks(&["demux", "-Nj"]));
        assert!(!asks(&["demux", "--", "-j"]));
        assert!(!asks(&["demux", "--json-like", "status"]));
    }
}
