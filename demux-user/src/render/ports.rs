//! Used local ports, one owner a row.

use std::borrow::Cow;

use serde::Serialize;

use super::list::{Column, Row, left, right};

/// How many local endpoints a cell shows.
const SHOWN: usize = 2;

/// A local port, or a range of ports, and one of its owners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct PortRow {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The port; of a range, the first.
    pub port: u16,
    /// The last port of the range; the same as `port` where there is none.
    pub last_port: u16,
    /// `kernel`, `binding`, `reservation` or `reserved`.
    pub owner: &'static str,
    /// The process that holds the kernel's sockets, where it has one that can be seen.
    pub pid: Option<u32>,
    /// Its name.
    pub process: Option<String>,
    /// The name of the binding.
    pub binding: Option<String>,
    /// Where the packets of the binding go.
    pub target: Option<Cow<'static, str>>,
    /// The device of the binding.
    pub dev: Option<String>,
    /// The local endpoints, as users write them; none for reserved ports.
    pub local: Vec<String>,
    /// The states of the kernel's sockets.
    pub states: Vec<&'static str>,
    /// How many sockets, or how many reservations, there are.
    pub count: Option<u64>,
}

impl Row for PortRow {
    const NOUN: &'static str = "ports";
    const COLUMNS: &'static [Column] = &[
        left("PROTO"),
        right("PORT"),
        left("OWNER"),
        right("PID"),
        left("PROCESS"),
        left("BINDING"),
        left("LOCAL"),
        left("STATES"),
        right("COUNT"),
    ];

    fn cells(&self) -> Vec<String> {
        let or_dash = |text: Option<String>| {
            text.filter(|text| !text.is_empty())
                .unwrap_or_else(|| "-".into())
        };
        let ports = match (self.port, self.last_port) {
            (0, u16::MAX) => "*".into(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let mut local = self.local[..self.local.len().min(SHOWN)].join(",");
        if self.local.len() > SHOWN {
            local.push_str(&format!(",+{}", self.local.len() - SHOWN));
        }
        vec![
            self.protocol.into(),
            ports,
            self.owner.into(),
            or_dash(self.pid.map(|pid| pid.to_string())),
            or_dash(self.process.clone()),
            or_dash(self.binding.clone()),
            or_dash(Some(local)),
            or_dash(Some(self.states.join(","))),
            or_dash(self.count.map(|count| count.to_string())),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> PortRow {
        PortRow {
            protocol: "tcp",
            port: 80,
            last_port: 80,
            owner: "kernel",
            pid: Some(7),
            process: Some("nginx".into()),
            local: vec!["*:80".into()],
            states: vec!["ESTABLISHED", "LISTEN"],
            count: Some(3),
            ..PortRow::default()
        }
    }

    #[test]
    fn every_column_has_its_cell() {
        assert_eq!(
            row().cells(),
            [
                "tcp",
                "80",
                "kernel",
                "7",
                "nginx",
                "-",
                "*:80",
                "ESTABLISHED,LISTEN",
                "3"
            ]
        );
        assert_eq!(row().cells().len(), PortRow::COLUMNS.len());
    }

    #[test]
    fn ranges_and_long_lists_are_short() {
        let cells = |last_port, local: &[&str]| {
            let mut row = row();
            row.last_port = last_port;
            row.local = local.iter().map(ToString::to_string).collect();
            row.cells()
        };
        assert_eq!(cells(89, &[])[1], "80-89");
        assert_eq!(cells(80, &[])[6], "-");
        assert_eq!(cells(80, &["a", "b"])[6], "a,b");
        assert_eq!(cells(80, &["a", "b", "c", "d"])[6], "a,b,+2");
    }

    #[test]
    fn the_json_object_has_the_promised_fields() {
        assert_eq!(
            serde_json::to_value(row()).unwrap(),
            serde_json::json!({
                "protocol": "tcp", "port": 80, "last_port": 80, "owner": "kernel", "pid": 7,
                "process": "nginx", "binding": null, "target": null, "dev": null,
                "local": ["*:80"], "states": ["ESTABLISHED", "LISTEN"], "count": 3,
            })
        );
    }
}
