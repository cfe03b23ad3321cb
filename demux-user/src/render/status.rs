//! The state of the whole instance.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    Format, bytes,
    list::{Column, Row, left, right},
    milliseconds, printable,
    table::Table,
};

/// The state of an instance.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The network namespace: its name, or its inode number as `net:[4026531840]`.
    pub netns: String,
    /// Its cookie, which is the name of the instance.
    pub netns_cookie: u64,
    /// Which endpoints get rows.
    pub track: &'static str,
    /// Whether the kernel's own sockets are asked.
    pub kernel_sockets: bool,
    /// How many rows the connection table has room for.
    pub max_connections: u32,
    /// How many rows there are.
    pub connections: u64,
    /// How many of them this host consented to.
    pub confirmed: u64,
    /// How many rows were made in the place of one that this host had not consented to, since the
    /// instance was made.
    pub displaced: u64,
    /// How many packets would have made a row, had there been room.
    pub untracked: u64,
    /// How many bindings there is room for.
    pub max_bindings: u32,
    /// How many there are.
    pub bindings: u64,
    /// Whether processes are kept from binding what bindings own: `attached`, `missing`, or
    /// `unneeded` where they own nothing.
    pub bind_hooks: &'static str,
    /// Of which build the programs are, in hexadecimal; `null` where they are of several.
    pub build: Option<String>,
    /// Whether that is this demux: `current`, `other`, or `mixed` where they are of several builds.
    pub programs: &'static str,
    /// Bytes of memory that the tables take.
    pub memory_bytes: u64,
    /// Where everything is pinned.
    pub path: String,
    /// The interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// What the user should look at.
    pub warnings: Vec<String>,
}

/// The state of an interface.
#[derive(Clone, Debug, Serialize)]
pub struct InterfaceStatus {
    /// Its name; its index behind a # where it is gone.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// `native` or `generic`.
    pub mode: &'static str,
    /// The default that applies now.
    pub default: &'static str,
    /// How a refusal leaves: `transmit`, `redirect`, or `none` where the kernel refuses.
    pub reply: &'static str,
    /// Milliseconds until a default on probation is `pass` again.
    pub probation_left_ms: Option<u64>,
    /// The kernel's id of the program.
    pub program_id: Option<u32>,
    /// The kernel's hash of the program's instructions, where the caller may know.
    pub program_tag: Option<String>,
    /// Whether packets reach the program.
    pub attached: bool,
    /// `tcx`, `clsact`, or `none` where what leaves is not seen.
    pub egress: &'static str,
    /// The kernel's id of the egress program.
    pub egress_program_id: Option<u32>,
    /// As `program_tag`, of the egress program.
    pub egress_program_tag: Option<String>,
    /// Whether what leaves reaches that program.
    pub egress_attached: bool,
    /// Why it does not, and what that costs.
    pub egress_note: Option<String>,
    /// The command that detaches that program without demux, where removing the pins does not.
    pub egress_removal: Option<String>,
}

impl Row for Status {
    const NOUN: &'static str = "status";
    const COLUMNS: &'static [Column] = &[
        left("IFACE"),
        right("INDEX"),
        left("MODE"),
        left("DEFAULT"),
        left("PROBATION"),
        right("PROGRAM"),
        left("ATTACHED"),
        left("EGRESS"),
        left("REPLY"),
    ];

    fn cells(&self) -> Vec<String> {
        Vec::new()
    }
}

impl InterfaceStatus {
    fn cells(&self) -> Vec<String> {
        let dash = || "-".to_owned();
        vec![
            self.name.clone(),
            self.ifindex.to_string(),
            self.mode.into(),
            self.default.into(),
            self.probation_left_ms
                .map_or_else(dash, |left| format!("{} left", milliseconds(left))),
            self.program_id.map_or_else(dash, |id| id.to_string()),
            if self.attached { "yes" } else { "no" }.into(),
            match (self.egress, self.egress_attached) {
                ("none", _) | (_, true) => self.egress.into(),
                (hook, false) => format!("{hook}, lost"),
            },
            self.reply.into(),
        ]
    }
}

/// Writes the state for people: the interfaces, and then the instance.
///
/// # Errors
///
/// Where the writer fails.
pub fn write_status(status: &Status, format: Format, out: &mut dyn Write) -> io::Result<()> {
    let Format::Table { header, styled } = format else {
        let mut list = super::List::of::<Status>(out, format);
        list.push(status)?;
        return list.finish();
    };
    let mut table = Table::new(Status::COLUMNS, header, styled);
    for interface in &status.interfaces {
        table.push(interface.cells(), out)?;
    }
    table.finish(out)?;
    if header {
        writeln!(out)?;
    }
    let mut fact = |key: &str, value: String| writeln!(out, "{key:<16}{}", printable(&value));
    fact("netns", status.netns.clone())?;
    fact("track", status.track.into())?;
    let asked = if status.kernel_sockets {
        "asked"
    } else {
        "not asked"
    };
    fact("kernel sockets", asked.into())?;
    fact(
        "connections",
        format!(
            "{} ({} confirmed), for up to {}",
            status.connections, status.confirmed, status.max_connections
        ),
    )?;
    if status.displaced != 0 || status.untracked != 0 {
        fact(
            "pressure",
            format!(
                "{} unconfirmed rows displaced, {} packets untracked",
                status.displaced, status.untracked
            ),
        )?;
    }
    fact(
        "bindings",
        format!("{} of {}", status.bindings, status.max_bindings),
    )?;
    let build = status.build.as_deref().unwrap_or("several builds");
    fact(
        "programs",
        match status.programs {
            "current" => format!("{build}, of this demux"),
            _ => format!("{build}, not of this demux; replace them with: demux upgrade"),
        },
    )?;
    fact("memory", bytes(status.memory_bytes))?;
    let mut removal = format!("demux unload --all; without demux: rm -r {}", status.path);
    for command in status
        .interfaces
        .iter()
        .filter_map(|interface| interface.egress_removal.as_ref())
    {
        removal = format!("{removal}; {command}");
    }
    fact("removal", removal)?;
    let (yellow, plain) = if styled {
        ("\x1b[1;33m", "\x1b[0m")
    } else {
        ("", "")
    };
    for warning in &status.warnings {
        writeln!(out, "{yellow}warning:{plain} {}", printable(warning))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            netns: "blue".into(),
            netns_cookie: 7,
            track: "local",
            kernel_sockets: true,
            max_connections: 131_072,
            connections: 3,
            confirmed: 2,
            displaced: 5,
            untracked: 1,
            max_bindings: 4095,
            bindings: 1,
            bind_hooks: "unneeded",
            build: Some("0badcafe".into()),
            programs: "other",
            memory_bytes: 20 << 20,
            path: "/sys/fs/bpf/demux/7".into(),
            interfaces: vec![InterfaceStatus {
                name: "eth0".into(),
                ifindex: 2,
                mode: "native",
                default: "drop",
                reply: "transmit",
                probation_left_ms: Some(41_000),
                program_id: Some(12),
                program_tag: Some("0123456789abcdef".into()),
                attached: true,
                egress: "clsact",
                egress_program_id: Some(13),
                egress_program_tag: None,
                egress_attached: true,
                egress_note: None,
                egress_removal: Some("tc filter del dev eth0 egress".into()),
            }],
            warnings: vec!["eth\x1b1 is gone".into()],
        }
    }

    #[test]
    fn people_read_interfaces_and_then_facts() {
        let mut out = Vec::new();
        let format = Format::Table {
            header: true,
            styled: false,
        };
        write_status(&status(), format, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\
IFACE  INDEX  MODE    DEFAULT  PROBATION  PROGRAM  ATTACHED  EGRESS  REPLY
eth0       2  native  drop     41s left        12  yes       clsact  transmit

netns           blue
track           local
kernel sockets  asked
connections     3 (2 confirmed), for up to 131072
pressure        5 unconfirmed rows displaced, 1 packets untracked
bindings        1 of 4095
programs        0badcafe, not of this demux; replace them with: demux upgrade
memory          20.0 MiB
removal         demux unload --all; without demux: rm -r /sys/fs/bpf/demux/7; tc filter del dev eth0 egress
warning: eth\\u{1b}1 is gone
"
        );
    }

    #[test]
    fn programs_read_one_item() {
        let mut out = Vec::new();
        write_status(&status(), Format::Json { pretty: false }, &mut out).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(document["schema"], "demux.v1.status");
        assert_eq!(document["items"].as_array().map(Vec::len), Some(1));
        let item = &document["items"][0];
        assert_eq!(item["interfaces"][0]["attached"], true);
        assert_eq!(item["kernel_sockets"], true);
    }
}
