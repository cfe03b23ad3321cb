//! `demux explain`: what would happen to a packet.

mod packet;

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use demux_common::{
    binding::Binding,
    config::Interface,
    decide::Decision,
    protocol::Protocol,
    reason::{Stage, Verdict},
};

use self::packet::Packet;
use super::{
    Outcome,
    context::{Context, cannot_write},
    names::Names,
};
use crate::{
    Error, Result,
    bindings::{Labels, Pattern, change::name_of},
    explain::{
        Endpoints, Twin,
        capture::Capture,
        frame::{self, Flags},
    },
    interface,
    render::{ExplanationRow, Format, write_explanation},
};

/// Say what would happen to a packet, and why
///
/// Asks a twin of the program, which runs on the live tables, changes nothing and sends nothing.
/// The packet is made from endpoints, or read from a capture file (pcap or pcapng, Ethernet), of which
/// every packet is explained as if it arrived now.
///
/// The direction is `in` unless given. What leaves is never dropped.
#[derive(Debug, clap::Args)]
#[command(
    after_help = EXAMPLES,
    override_usage = "demux explain [OPTIONS] <tcp|udp> from <ENDPOINT> to <ENDPOINT> [in|out]\n       demux explain [OPTIONS] --pcap <FILE>"
)]
pub(super) struct Args {
    /// tcp or udp, from ENDPOINT, to ENDPOINT, in or out
    #[arg(
        value_name = "PACKET",
        required_unless_present = "pcap",
        conflicts_with = "pcap"
    )]
    words: Vec<String>,
    /// The flags of a TCP segment, with commas between them [default: syn]
    #[arg(long, conflicts_with = "pcap")]
    flags: Option<String>,
    /// The interface that the packet arrives on; needed where several are loaded
    #[arg(long, value_name = "IFACE")]
    iface: Option<String>,
    /// Explain the packets of a capture file
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux explain tcp from 192.0.2.7:40000 to 10.0.0.2:80
  demux explain tcp from 192.0.2.7:40000 to 10.0.0.2:80 --flags ack,psh
  demux explain udp from [2001:db8::9]:53 to [2001:db8::2]:40000 --iface eth0
  tcpdump -i eth1 -w /tmp/seen.pcap -c 10; demux explain --pcap /tmp/seen.pcap";

/// Where a packet is explained, and what names what is found.
struct Place {
    twin: Twin,
    entry: Interface,
    iface: String,
    bindings: Vec<(u16, Binding)>,
    labels: Labels,
}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        match &self.pcap {
            Some(path) => self.explain_capture(context, path)?,
            None => self.explain_packet(context)?,
        }
        Ok(Outcome::Done)
    }

    fn explain_packet(&self, context: &mut Context<'_>) -> Result<()> {
        let packet = Packet::parse(&self.words)?;
        let flags = match &self.flags {
            Some(_) if packet.protocol == Protocol::Udp => {
                return Err(Error::invalid("option", "--flags", "UDP has no flags"));
            }
            Some(flags) => Flags::parse(flags)?,
            None => Flags::SYN,
        };
        // Refuses endpoints of different IP versions before anything is looked for.
        frame::build(packet.protocol, packet.from, packet.to, flags, [0; 6])?;
        let place = self.place(context)?;
        let format = context.format();
        if packet.is_out {
            let row = place.egress(&packet);
            return write_explanation(&row, None, None, format, context.out())
                .map_err(cannot_write);
        }
        let Packet {
            protocol, from, to, ..
        } = packet;
        let frame = frame::build(protocol, from, to, flags, place.entry.station)?;
        let decision = place.twin.explain(&frame, place.entry.ifindex)?;
        let row = ExplanationRow {
            protocol: Some(protocol.name()),
            local: Some(to.to_string()),
            remote: Some(from.to_string()),
            ..place.row(&frame, &decision)
        };
        let pattern = place.pattern(decision.binding);
        write_explanation(
            &row,
            Some(decision.reason),
            pattern.as_deref(),
            format,
            context.out(),
        )
        .map_err(cannot_write)
    }

    fn explain_capture(&self, context: &mut Context<'_>, path: &Path) -> Result<()> {
        let mut capture = Capture::open(path)?;
        // What is no capture is refused before anything is printed.
        let mut next = Ok(capture.next_frame()?);
        let place = self.place(context)?;
        // One document is either the packets or an error.
        let is_collected = matches!(context.format(), Format::Json { .. });
        let mut collected = Vec::new();
        let mut is_cut = false;
        let mut list = context.list::<ExplanationRow>();
        let mut number = 0;
        let failure = loop {
            let captured = match next {
                Ok(Some(captured)) => captured,
                Ok(None) => break None,
                Err(error) if is_collected => return Err(error),
                // What was read before is worth reading.
                Err(error) => break Some(error),
            };
            number += 1;
            let decision = place.twin.explain(&captured.frame, place.entry.ifindex)?;
            is_cut |= captured.is_cut();
            let row = ExplanationRow {
                packet: Some(number),
                length: captured.length.into(),
                ..place.row(&captured.frame, &decision)
            };
            if is_collected {
                collected.push(row);
            } else {
                list.push(&row).map_err(cannot_write)?;
            }
            next = capture.next_frame();
        };
        for row in &collected {
            list.push(row).map_err(cannot_write)?;
        }
        list.finish().map_err(cannot_write)?;
        if is_cut {
            context.warn("packets were captured in part only, and are explained as far as they go");
        }
        failure.map_or(Ok(()), Err)
    }

    fn place(&self, context: &Context<'_>) -> Result<Place> {
        let opened = context.open()?;
        let names = Names::read()?;
        let entries = opened.tables.interfaces()?;
        let entry = match (&self.iface, entries.as_slice()) {
            (Some(name), entries) => {
                let index = interface::by_name(name)?.index;
                entries
                    .iter()
                    .find(|(_, entry)| entry.ifindex == index)
                    .ok_or_else(|| Error::NotAttached(name.clone()))?
                    .1
            }
            (None, [(_, only)]) => *only,
            (None, []) => return Err(Error::NotAttached("any interface".into())),
            (None, several) => {
                let names: Vec<_> = several
                    .iter()
                    .map(|(_, entry)| names.show(entry.ifindex))
                    .collect();
                return Err(Error::invalid(
                    "option",
                    "--iface",
                    format!(
                        "several interfaces are loaded; name one of {}",
                        names.join(", ")
                    ),
                ));
            }
        };
        if names.get(entry.ifindex).is_none() {
            return Err(Error::UnknownInterface(names.show(entry.ifindex)));
        }
        let bindings = opened.tables.bindings()?;
        Ok(Place {
            twin: Twin::open(&opened.paths)?,
            labels: Labels::read(&opened.tables, &bindings)?,
            bindings,
            iface: names.show(entry.ifindex),
            entry,
        })
    }
}

impl Place {
    fn binding(&self, index: u16) -> Option<&Binding> {
        let (_, binding) = self.bindings.iter().find(|(other, _)| *other == index)?;
        Some(binding)
    }

    /// Where the packet goes, with what users write behind the kind of target.
    fn target(&self, decision: &Decision) -> Cow<'static, str> {
        match self.binding(decision.binding) {
            Some(binding) if decision.target.is_steered() => {
                self.labels.of(decision.binding, binding)
            }
            _ => decision.target.name().into(),
        }
    }

    fn pattern(&self, index: u16) -> Option<String> {
        let pattern = Pattern::of(self.binding(index)?);
        Some(format!("{} {pattern}", pattern.protocol.name()))
    }

    fn row(&self, frame: &[u8], decision: &Decision) -> ExplanationRow {
        let endpoints = Endpoints::of(frame);
        ExplanationRow {
            packet: None,
            verdict: decision.verdict.name(),
            reason: decision.reason.name(),
            stage: decision.stage.name(),
            binding: self.binding(decision.binding).map(name_of),
            target: self.target(decision),
            iface: self.iface.clone(),
            direction: "in",
            protocol: endpoints.map(|endpoints| endpoints.protocol),
            local: endpoints.map(|endpoints| endpoints.local.to_string()),
            remote: endpoints.map(|endpoints| endpoints.remote.to_string()),
            length: frame.len() as u64,
        }
    }

    fn egress(&self, packet: &Packet) -> ExplanationRow {
        ExplanationRow {
            packet: None,
            verdict: Verdict::Pass.name(),
            reason: "egress",
            stage: Stage::Default.name(),
            binding: None,
            target: "stack".into(),
            iface: self.iface.clone(),
            direction: "out",
            protocol: Some(packet.protocol.name()),
            local: Some(packet.from.to_string()),
            remote: Some(packet.to.to_string()),
            length: 0,
        }
    }
}
