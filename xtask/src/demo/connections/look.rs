//! Looking at what demux knows: explanations of packets, and the maps themselves.

use anyhow::Result;
use serde_json::Value;

use super::default_drop::CLOSED;
use crate::demo::{actors::Client, network, stage::Stage};

pub(super) fn explain(stage: &mut Stage<'_>, client: &Client) -> Result<()> {
    stage.step(
        "Why?",
        "explain asks a twin of the loaded program, on the same tables, what it would do with a \
         packet. It sends nothing and changes nothing.",
    )?;
    let known = client.address.to_string();
    let questions = [
        (
            known.as_str(),
            "alice0",
            80,
            "pass",
            "connection",
            "a packet of a connection that has a row",
        ),
        (
            "10.0.0.3:40000",
            "bob0",
            80,
            "pass",
            "binding",
            "a new client of the web server",
        ),
        (
            "10.0.0.3:40000",
            "bob0",
            22,
            "pass",
            "kernel-socket",
            "a new ssh session, which nobody configured",
        ),
        (
            "10.0.0.3:40000",
            "bob0",
            CLOSED,
            "drop",
            "default",
            "the port that nobody listens on",
        ),
    ];
    for (from, device, port, verdict, decided_by, what) in questions {
        let to = network::server(port).to_string();
        let args = ["explain", "tcp", "from", from, "to", &to, "--iface", device];
        stage.demux(&args)?;
        stage.expect(
            &format!("{what}: {verdict}, decided by the {decided_by}"),
            &args,
            |items| {
                items.len() == 1
                    && items[0]["verdict"] == verdict
                    && items[0]["stage"] == decided_by
            },
        )?;
    }
    Ok(())
}

pub(super) fn inside(stage: &mut Stage<'_>, clients: &[Client; 3]) -> Result<()> {
    stage.step(
        "Inside",
        "All state is in BPF maps that are pinned below /sys/fs/bpf. No process of demux is running: \
         every command above has opened them, done its work and ended. dump prints a map, typed.",
    )?;
    stage.demux(&["maps"])?;
    stage.demux(&["dump", "BINDINGS"])?;
    stage.demux(&["dump", "PORTS"])?;
    stage.demux(&["dump", "CONNECTIONS"])?;
    let addresses = clients.each_ref().map(|client| client.address.to_string());
    stage.expect(
        "the map CONNECTIONS has the three four-tuples",
        &["dump", "CONNECTIONS"],
        |items| {
            addresses.iter().all(|remote| {
                let is_it = |row: &Value| {
                    row["local_address"] == "10.0.0.1"
                        && row["local_port"] == 80
                        && remote_of(row) == *remote
                };
                items.iter().any(is_it)
            })
        },
    )
}

/// The other side of a row, as its socket would write it.
fn remote_of(row: &Value) -> String {
    let address = row["remote_address"].as_str().unwrap_or_default();
    format!("{address}:{}", row["remote_port"])
}
