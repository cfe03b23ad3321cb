//! What stands in the place of the rows: the keys, or everything about one connection.

use super::amount::{amount, byte_amount, rate};
use crate::{
    render::{bytes, milliseconds, printable},
    top::{ConnectionLine, Rates},
};

/// What keys do.
pub(super) const HELP: &[&str] = &[
    "Tab, 1 2 3        connections, bindings, counters",
    "s or >, <         order by the next or the last column",
    "r                 the other way around",
    "/                 filter connections, as demux connections does:",
    "                  state established rport = :443 and not local fd00::/8",
    "                  Enter applies it, Esc leaves it as it was, Ctrl-U clears it",
    "p or Space        pause, and go on",
    "+ -               longer or shorter between two samples",
    "arrows, PgUp/Dn   go to another row; End goes to the last",
    "Home              go to the first, and stay with whichever is the first",
    "Enter             everything about the connection",
    "Ctrl-L, Ctrl-Z    draw anew; suspend",
    "q or Esc          leave this page; end",
    "",
    "PKT/S are packets a second in both directions, IN/S and OUT/S bytes a second.",
    "A dash is a rate that is not known yet.",
];

/// Everything about a connection, as keys and values.
pub(super) fn details(line: &ConnectionLine, is_present: bool) -> Vec<(&'static str, String)> {
    let ConnectionLine { row, figures } = line;
    let known = |of: fn(&Rates) -> f64| figures.rates.as_ref().map(of);
    let mut lines = vec![
        ("protocol", row.protocol.name().into()),
        ("local", row.local.to_string()),
        ("remote", row.remote.to_string()),
        ("state", row.state.name().into()),
        (
            "direction",
            match row.direction.name() {
                "in" => "in: the remote opened it".into(),
                _ => "out: this host opened it".into(),
            },
        ),
        (
            "confirmed",
            if row.is_confirmed { "yes" } else { "no" }.into(),
        ),
        (
            "binding",
            row.binding
                .as_deref()
                .map_or_else(|| "-".into(), |name| printable(name).into_owned()),
        ),
        ("target", printable(&row.target).into_owned()),
        (
            "arrived",
            moved(
                row.rx_packets,
                row.rx_bytes,
                known(|rates| rates.rx_packets),
                known(|rates| rates.rx_bytes),
            ),
        ),
        (
            "left",
            moved(
                row.tx_packets,
                row.tx_bytes,
                known(|rates| rates.tx_packets),
                known(|rates| rates.tx_bytes),
            ),
        ),
        ("seen", row.seen.name().into()),
        ("age", milliseconds(row.age_ms)),
        ("idle", milliseconds(row.idle_ms)),
        ("expires", format!("in {}", milliseconds(row.expires_ms))),
    ];
    if !is_present {
        lines.push((
            "note",
            "not among the rows any more; this is what was last seen".into(),
        ));
    }
    lines
}

fn moved(packets: u64, sum: u64, packet_rate: Option<f64>, byte_rate: Option<f64>) -> String {
    format!(
        "{packets} packets, {}; {} packets/s, {} bytes/s",
        bytes(sum),
        rate(packet_rate, amount),
        rate(byte_rate, byte_amount)
    )
}
