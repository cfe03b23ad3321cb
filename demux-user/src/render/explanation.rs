//! What would happen to a packet, in words and in fields.

use std::borrow::Cow;

use std::io::{self, Write};

use demux_common::reason::{Reason, Verdict};
use serde::Serialize;

use super::{
    Format,
    list::{Column, List, Row, left, right},
    printable,
};

/// What would happen to a packet.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct ExplanationRow {
    /// The number of the packet in its capture, from 1 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packet: Option<u64>,
    /// What would happen.
    pub verdict: &'static str,
    /// Why.
    pub reason: &'static str,
    /// Which step decides.
    pub stage: &'static str,
    /// The binding that decides or owns the row that does.
    pub binding: Option<String>,
    /// Where the packet would go.
    pub target: Cow<'static, str>,
    /// The interface.
    pub iface: String,
    /// `in` or `out`.
    pub direction: &'static str,
    /// `tcp` or `udp`; absent where the packet has no ports.
    pub protocol: Option<&'static str>,
    /// This host's side.
    pub local: Option<String>,
    /// The other side.
    pub remote: Option<String>,
    /// Bytes of the frame as it was on the wire.
    pub length: u64,
}

impl Row for ExplanationRow {
    const NOUN: &'static str = "explain";
    const COLUMNS: &'static [Column] = &[
        right("PACKET"),
        left("VERDICT"),
        left("REASON"),
        left("STAGE"),
        left("BINDING"),
        left("TARGET"),
        left("PROTO"),
        left("REMOTE"),
        left("LOCAL"),
        right("LENGTH"),
    ];

    fn cells(&self) -> Vec<String> {
        let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
        vec![
            self.packet
                .map_or_else(|| "-".into(), |packet| packet.to_string()),
            self.verdict.into(),
            self.reason.into(),
            self.stage.into(),
            or_dash(self.binding.as_deref()),
            self.target.to_string(),
            or_dash(self.protocol),
            or_dash(self.remote.as_deref()),
            or_dash(self.local.as_deref()),
            self.length.to_string(),
        ]
    }
}

/// Writes one explanation: in words for people, as a list of one for programs.
///
/// `reason` is `None` on the way out, where nothing is decided; `pattern` is that of the binding.
///
/// # Errors
///
/// Where the writer fails.
pub fn write_explanation(
    row: &ExplanationRow,
    reason: Option<Reason>,
    pattern: Option<&str>,
    format: Format,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Format::Table { styled, .. } = format else {
        let mut list = List::of::<ExplanationRow>(out, format);
        list.push(row)?;
        return list.finish();
    };
    let (bold, plain) = if styled {
        ("\x1b[1m", "\x1b[0m")
    } else {
        ("", "")
    };
    let Words { why, change } = words(row, reason);
    writeln!(out, "{bold}{}{plain}: {}", row.verdict, printable(&why))?;
    let mut fact = |key: &str, value: &str| writeln!(out, "  {key:<11}{}", printable(value));
    if let (Some(protocol), Some(local), Some(remote)) = (row.protocol, &row.local, &row.remote) {
        let packet = if row.direction == "in" {
            format!("{protocol} from {remote} to {local}, in on {}", row.iface)
        } else {
            format!("{protocol} from {local} to {remote}, out on {}", row.iface)
        };
        fact("packet", &packet)?;
    }
    fact(
        "decided",
        &format!("stage {}, reason {}", row.stage, row.reason),
    )?;
    if let Some(name) = &row.binding {
        let pattern = pattern.map_or_else(String::new, |pattern| format!(" ({pattern})"));
        fact(
            "binding",
            &format!("{name}{pattern}, target {}", row.target),
        )?;
    }
    if let Some(change) = change {
        fact("change it", &change)?;
    }
    out.flush()
}

struct Words {
    why: String,
    /// The commands that make it otherwise, where there are any.
    change: Option<String>,
}

fn words(row: &ExplanationRow, reason: Option<Reason>) -> Words {
    let iface = &row.iface;
    let protocol = row.protocol.unwrap_or("tcp");
    let local = row.local.as_deref().unwrap_or("ADDRESS:PORT");
    let remote = row.remote.as_deref().unwrap_or("ADDRESS:PORT");
    let name = row.binding.as_deref().unwrap_or("?");
    let bind_drop = format!("demux bind {protocol} {local} --to drop");
    let see_row =
        format!("see it with: demux connections proto {protocol} local {local} remote {remote}");
    let Some(reason) = reason else {
        return Words {
            why: "packets that leave are never dropped by demux".into(),
            change: None,
        };
    };
    let (why, change) = match reason {
        Reason::Connection => {
            let owner = match &row.binding {
                Some(name) => format!(", which binding {name} owns"),
                None => String::new(),
            };
            (
                format!("it belongs to a row of the connection table{owner}"),
                Some(match &row.binding {
                    Some(name) => format!("{see_row}; demux unbind {name}"),
                    None => format!("{see_row}; {bind_drop}"),
                }),
            )
        }
        Reason::Bound => (
            format!(
                "binding {name} is the most specific one for {protocol} {local}, and its target is {}",
                row.target
            ),
            Some(format!("demux unbind {name}")),
        ),
        Reason::NoTarget => (
            format!(
                "binding {name} is the most specific one for {protocol} {local}, but nobody takes \
                 packets at its target on receive queue 0 of {iface}: its fallback applies"
            ),
            Some("demux bindings and demux xsks show who should".to_owned()),
        ),
        Reason::KernelSocket => (
            "no binding claims it, but a socket of this host does".into(),
            Some(bind_drop),
        ),
        Reason::NoSocket => (
            format!(
                "no row, no binding and no socket of this host claims it, and the default of {iface} is {}",
                row.target
            ),
            Some(format!(
                "demux bind {protocol} {local}; or: demux set default@{iface}=pass"
            )),
        ),
        Reason::Unbound if row.verdict == Verdict::Pass.name() => (
            format!("no row and no binding claims it, and the default of {iface} is pass"),
            Some(format!(
                "{bind_drop}; or: demux set default@{iface}=drop --try 60"
            )),
        ),
        Reason::Unbound => (
            format!(
                "no row and no binding claims it, and the default of {iface} is {}",
                row.target
            ),
            Some(format!(
                "demux bind {protocol} {local}; or: demux set default@{iface}=pass"
            )),
        ),
        Reason::Probation => (
            format!("nothing claims it, and the probation of the default of {iface} has run out"),
            Some(format!("demux set default@{iface}=drop")),
        ),
        Reason::Unconfigured => (
            format!("demux is attached to {iface}, but has no settings for it"),
            Some(format!("demux unload {iface}; demux load {iface}")),
        ),
        other => (described(other), None),
    };
    Words { why, change }
}

/// The sentence of a reason, to stand behind a colon.
fn described(reason: Reason) -> String {
    let sentence = reason.description().trim_end_matches('.');
    let mut letters = sentence.chars();
    let begins_with_a_word = letters.clone().nth(1).is_some_and(char::is_lowercase);
    match letters.next() {
        Some(first) if begins_with_a_word || sentence.starts_with("A ") => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => sentence.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use demux_common::reason::Stage;

    use super::*;

    fn row(reason: Reason, binding: Option<&str>, verdict: Verdict) -> ExplanationRow {
        ExplanationRow {
            packet: None,
            verdict: verdict.name(),
            reason: reason.name(),
            stage: Stage::Binding.name(),
            binding: binding.map(Into::into),
            target: if verdict == Verdict::Drop {
                "drop".into()
            } else {
                "stack".into()
            },
            iface: "eth0".into(),
            direction: "in",
            protocol: Some("tcp"),
            local: Some("10.0.0.2:80".into()),
            remote: Some("10.0.0.9:40000".into()),
            length: 54,
        }
    }

    const PLAIN: Format = Format::Table {
        header: true,
        styled: false,
    };

    #[test]
    fn people_read_why_and_how_to_change_it() {
        let mut out = Vec::new();
        let row = row(Reason::Bound, Some("web"), Verdict::Drop);
        write_explanation(&row, Some(Reason::Bound), Some("tcp *:80"), PLAIN, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\
drop: binding web is the most specific one for tcp 10.0.0.2:80, and its target is drop
  packet     tcp from 10.0.0.9:40000 to 10.0.0.2:80, in on eth0
  decided    stage binding, reason bound
  binding    web (tcp *:80), target drop
  change it  demux unbind web
"
        );
    }

    #[test]
    fn every_reason_has_its_words() {
        for &reason in Reason::ALL {
            let words = words(&row(reason, None, Verdict::Pass), Some(reason));
            assert!(
                !words.why.is_empty() && !words.why.ends_with('.'),
                "{}",
                words.why
            );
        }
    }

    #[test]
    fn the_json_object_has_the_promised_fields() {
        let row = row(Reason::Bound, Some("web"), Verdict::Pass);
        let value = serde_json::to_value(&row).unwrap();
        for key in ["verdict", "reason", "stage", "binding", "target"] {
            assert!(value[key].is_string(), "{key}");
        }
        assert_eq!(row.cells().len(), ExplanationRow::COLUMNS.len());
    }
}
