//! Errors: a plain line and a hint for people, an object for programs.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use serde::Serialize;

use super::{Format, printable};

/// What is told about an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ErrorView {
    /// A word that programs know it by.
    pub code: Cow<'static, str>,
    /// What went wrong, in one line.
    pub message: String,
    /// What can be done about it, in one line.
    pub hint: Option<String>,
}

impl From<&crate::Error> for ErrorView {
    fn from(error: &crate::Error) -> Self {
        Self {
            code: error.code().to_owned().into(),
            message: error.to_string(),
            hint: error.hint(),
        }
    }
}

/// Writes an error: a line and a hint to `err`, and an object to `out` where programs read that.
///
/// # Errors
///
/// Where a writer fails.
pub fn write_error(
    error: &ErrorView,
    format: Format,
    is_styled: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<()> {
    let (red, cyan, plain) = if is_styled {
        ("\x1b[1;31m", "\x1b[36m", "\x1b[0m")
    } else {
        ("", "", "")
    };
    writeln!(err, "{red}demux:{plain} {}", printable(&error.message))?;
    if let Some(hint) = &error.hint {
        writeln!(err, "{cyan}hint:{plain} {}", printable(hint))?;
    }
    err.flush()?;
    if !format.is_json() {
        return Ok(());
    }
    #[derive(Serialize)]
    struct Document<'a> {
        error: &'a ErrorView,
    }
    let document = Document { error };
    match format {
        Format::Json { pretty: true } => serde_json::to_writer_pretty(&mut *out, &document)?,
        _ => serde_json::to_writer(&mut *out, &document)?,
    }
    out.write_all(b"\n")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format) -> (String, String) {
        let error = ErrorView::from(&crate::Error::NotAttached("eth\x1b0".into()));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        write_error(&error, format, false, &mut out, &mut err).unwrap();
        (
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    #[test]
    fn people_read_a_line_and_a_hint() {
        let (out, err) = written(Format::Table {
            header: true,
            styled: false,
        });
        assert_eq!(out, "");
        assert_eq!(
            err,
            "demux: demux is not attached to eth\\u{1b}0\nhint: attach it with: demux load eth\\u{1b}0\n"
        );
    }

    #[test]
    fn programs_read_an_object_besides() {
        let (out, err) = written(Format::JsonLines);
        assert!(err.starts_with("demux: "));
        let document: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(document["error"]["code"], "not_attached");
        assert!(document["error"]["hint"].is_string());
    }
}
