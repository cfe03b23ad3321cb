//! What is there to be read and to type less: manual pages, and completions for shells.

mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use common::demux::{bare, finish};

/// The standard output of a command of demux that needs nothing to be loaded.
#[track_caller]
fn ok(line: &str) -> String {
    let run = finish(&mut bare(line), line);
    assert_eq!(run.status, 0, "{run}");
    run.stdout
}

/// What a program prints, on both outputs, and whether it succeeds.
#[track_caller]
fn run(program: &str, args: &[&str]) -> (bool, String) {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.success(), text)
}

/// The commands that the help names.
fn commands() -> Vec<String> {
    let help = ok("--help");
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let list = list.take_while(|line| !line.is_empty());
    // A line that is indented further goes on with what one says.
    list.filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// What a roff program is right to say of every page, and what changes nothing about it.
const HARMLESS: [&str; 2] = ["missing date", "skipping paragraph macro"];

#[test]
fn manual_pages_render_without_complaints() {
    let directory = tempfile::tempdir().unwrap();
    ok(&format!("man {}", directory.path().display()));
    let page = |name: &str| directory.path().join(format!("{name}.1"));
    let mut names: Vec<String> = commands()
        .iter()
        .map(|name| format!("demux-{name}"))
        .collect();
    names.push("demux".to_owned());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), names.len());
    for name in names {
        let path = page(&name);
        let path = path.to_str().unwrap();
        let (_, complaints) = run("mandoc", &["-Tlint", "-Wwarning", path]);
        let complaints: Vec<&str> = complaints
            .lines()
            .filter(|line| !HARMLESS.iter().any(|harmless| line.contains(harmless)))
            .collect();
        assert_eq!(complaints, [""; 0], "{name}");

        // Without the overstriking that shows letters as bold.
        let (is_done, text) = run("mandoc", &["-Tutf8", "-Owidth=100", path]);
        assert!(is_done, "{name}: {text}");
        let text = plain(&text);
        assert!(text.starts_with(&format!("{name}(1)")), "{text}");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES"] {
            assert!(
                text.lines().any(|line| line == section),
                "{section} is missing: {text}"
            );
        }
        let source = format!("demux {}", env!("CARGO_PKG_VERSION"));
        let last = text.lines().next_back().unwrap_or_default();
        assert!(last.starts_with(&source), "{last}");
        examples_are_those_of_the_help(&name, &text);
    }
}

/// Examples must be there word by word and line by line, to be copied.
#[track_caller]
fn examples_are_those_of_the_help(name: &str, page: &str) {
    let command = name.strip_prefix("demux").unwrap().replace('-', "");
    let help = ok(format!("{command} --help").trim_start());
    let examples = help.lines().skip_while(|line| *line != "EXAMPLES:").skip(1);
    let examples: Vec<&str> = examples.filter(|line| !line.trim().is_empty()).collect();
    assert!(!examples.is_empty(), "{name} has no examples: {help}");
    for example in examples {
        let is_there = page.lines().any(|line| line.trim() == example.trim());
        assert!(is_there, "{name}: {example:?} is missing in {page}");
    }
}

/// The text of a terminal without letters that are struck over.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for letter in text.chars() {
        if letter == '\u{8}' {
            plain.pop();
        } else {
            plain.push(letter);
        }
    }
    plain
}

/// A completion script as a shell finds it.
fn completions(shell: &str, directory: &Path, name: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, ok(&format!("completions {shell}"))).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn bash_completes_commands_options_and_their_values() {
    let directory = tempfile::tempdir().unwrap();
    let script = completions("bash", directory.path(), "demux");
    // As readline does: words, the one to be completed, and the function that was registered.
    let complete = |words: &[&str]| -> Vec<String> {
        let program = r#"
            set -euo pipefail
            source "$1"; shift
            [[ $(complete -p demux) =~ -F\ ([^ ]+) ]]
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            set +e
            "${BASH_REMATCH[1]}" demux "${@: -1}" "${@: -2:1}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let mut args = vec!["--noprofile", "--norc", "-c", program, "bash", &script];
        args.extend(words);
        let (is_done, text) = run("bash", &args);
        assert!(is_done, "{words:?}: {text}");
        text.lines().map(str::to_owned).collect()
    };
    assert_eq!(complete(&["demux", "bi"]), ["bind", "bindings"]);
    let mut all = complete(&["demux", ""]);
    all.retain(|word| !word.starts_with('-'));
    for command in commands() {
        assert!(all.contains(&command), "{command} is missing in {all:?}");
    }
    assert_eq!(
        complete(&["demux", "load", "--max-c"]),
        ["--max-connections"]
    );
    assert_eq!(complete(&["demux", "load", "--mode", "na"]), ["native"]);
    assert_eq!(complete(&["demux", "completions", "z"]), ["zsh"]);
}

#[test]
fn zsh_takes_the_completions_for_its_own() {
    let directory = tempfile::tempdir().unwrap();
    completions("zsh", directory.path(), "_demux");
    let program = r#"
        fpath=($1 $fpath)
        autoload -Uz compinit
        compinit -D -u || exit 1
        print -r -- function $_comps[demux]
        autoload +X _demux || exit 1
        # What the function offers, without an editor that would show it.
        _describe() { print -rl -- ${(P)4} }
        # Once, to define what it is made of.
        _arguments() { return 1 }
        _demux
        _demux_commands"#;
    let path = directory.path().to_str().unwrap();
    let (is_done, text) = run("zsh-static", &["-f", "-c", program, "zsh", path]);
    assert!(is_done, "{text}");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("function _demux"), "{text}");
    let offered: Vec<&str> = lines.filter_map(|line| line.split(':').next()).collect();
    for command in commands() {
        assert!(
            offered.contains(&command.as_str()),
            "{command} is missing: {text}"
        );
    }
}
