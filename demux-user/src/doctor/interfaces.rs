//! Whether demux can do its best on an interface.

use demux_common::config::{Mode, Policy, Reply};

use super::{Area, Finding, Severity, facts::InterfaceFacts};
use crate::{
    attach::{Hook, egress::COST},
    preflight::{self, DriverReport, Native},
};

pub(super) fn judge(facts: &InterfaceFacts) -> Vec<Finding> {
    let device = &facts.interface;
    let mut findings = vec![up(facts)];
    if !device.has_ethernet_header() {
        findings.push(
            finding(
                facts,
                "link-type",
                Severity::Failure,
                "no Ethernet interface",
            )
            .meaning("demux refuses to load on it")
            .fix("load the Ethernet interface below it"),
        );
    }
    findings.push(hook(facts));
    match &facts.report {
        Ok(report) => {
            findings.push(native(facts, report));
            findings.push(queues(facts, report));
        }
        Err(reason) => findings.push(unknown(facts, "native", "its driver", reason)),
    }
    findings.extend(features(facts));
    findings.push(egress(facts));
    findings.push(reply(facts));
    findings.extend(risks(facts));
    findings
}

fn finding(
    facts: &InterfaceFacts,
    id: &'static str,
    severity: Severity,
    summary: impl AsRef<str>,
) -> Finding {
    let name = &facts.interface.name;
    Finding {
        interface: Some(name.clone()),
        ..Finding::new(
            Area::Interfaces,
            id,
            severity,
            format!("{name}: {}", summary.as_ref()),
        )
    }
}

fn unknown(facts: &InterfaceFacts, id: &'static str, what: &str, reason: &str) -> Finding {
    let name = &facts.interface.name;
    Finding {
        interface: Some(name.clone()),
        ..Finding::unknown(Area::Interfaces, id, &format!("{name}: {what}"), reason)
    }
}

fn up(facts: &InterfaceFacts) -> Finding {
    const ID: &str = "link";
    let name = &facts.interface.name;
    if facts.interface.is_up {
        finding(facts, ID, Severity::Ok, "up")
    } else {
        finding(facts, ID, Severity::Note, "not up")
            .meaning("no packet comes or goes")
            .fix(format!("ip link set {name} up"))
    }
}

fn hook(facts: &InterfaceFacts) -> Finding {
    const ID: &str = "hook";
    let (name, xdp) = (&facts.interface.name, facts.interface.xdp);
    match (facts.loaded.is_some(), xdp) {
        (true, Some(xdp)) => finding(
            facts,
            ID,
            Severity::Ok,
            format!("demux is attached, in {} mode", xdp.mode),
        ),
        // The warnings of status tell of it.
        (true, None) => finding(facts, ID, Severity::Ok, "no XDP program is attached"),
        (false, None) => finding(facts, ID, Severity::Ok, "its XDP hook is free"),
        (false, Some(xdp)) => {
            let program = facts.program_name.as_deref().unwrap_or("?");
            finding(
                facts,
                ID,
                Severity::Failure,
                format!(
                    "the XDP program {program} (id {}, {}) holds the hook",
                    xdp.program_id, xdp.mode
                ),
            )
            .meaning("demux cannot be attached beside it")
            .fix(format!(
                "see whose it is with: bpftool net show dev {name}; then detach it, such as with: ip link set {name} xdp off"
            ))
        }
    }
}

/// Whether native mode can be had, or why it is not.
fn native(facts: &InterfaceFacts, report: &DriverReport) -> Finding {
    const ID: &str = "native";
    const SLOWER: &str = "it runs in generic mode, which takes more time for each packet, sees packets that the kernel has merged, and hands none to other CPUs";
    let driver = report.driver.as_deref().unwrap_or("unknown");
    let is_native = facts.loaded.is_some_and(|entry| entry.mode == Mode::Native);
    if is_native {
        return finding(
            facts,
            ID,
            Severity::Ok,
            format!(
                "native mode, by the driver {driver}, with an MTU of {}",
                report.mtu
            ),
        );
    }
    match &report.native {
        Native::Likely => finding(
            facts,
            ID,
            // Loaded in generic mode: somebody wanted that, or did not have it then.
            if facts.loaded.is_some() {
                Severity::Note
            } else {
                Severity::Ok
            },
            format!(
                "the driver {driver} can run XDP, with an MTU of {}",
                report.mtu
            ),
        ),
        Native::Unknown => finding(
            facts,
            ID,
            Severity::Ok,
            format!("only trying tells whether the driver {driver} can run XDP"),
        ),
        Native::Impossible(reason) => {
            let fix = native_fix(facts, report);
            let severity = if fix.is_some() {
                Severity::Warning
            } else {
                Severity::Note
            };
            let found =
                finding(facts, ID, severity, format!("no native mode: {reason}")).meaning(SLOWER);
            match fix {
                Some(fix) => found.fix(fix),
                None => found,
            }
        }
    }
}

/// What to do for native mode, where something can be done.
fn native_fix(facts: &InterfaceFacts, report: &DriverReport) -> Option<String> {
    let name = &facts.interface.name;
    if facts.interface.is_loopback {
        return None;
    }
    if let (Some(own), Some(peer)) = (report.channels, report.peer_channels)
        && own.rx < peer.tx
    {
        let peer_name = facts.peer.as_deref().unwrap_or("PEER");
        return Some(format!(
            "ethtool -L {name} rx {}; or: ethtool -L {peer_name} tx {}",
            peer.tx, own.rx
        ));
    }
    if report.lro == Some(true) {
        return Some(format!("ethtool -K {name} lro off"));
    }
    let is_mtu = matches!(&report.native, Native::Impossible(reason) if reason.contains("MTU"));
    is_mtu.then(|| format!("ip link set {name} mtu {}", preflight::ONE_BUFFER))
}

fn queues(facts: &InterfaceFacts, report: &DriverReport) -> Finding {
    const ID: &str = "queues";
    match report.channels {
        Some(channels) => finding(
            facts,
            ID,
            Severity::Ok,
            format!(
                "{} receive and {} transmit queues",
                channels.rx, channels.tx
            ),
        ),
        None => finding(
            facts,
            ID,
            Severity::Ok,
            "its driver does not tell its queues",
        ),
    }
}

/// Features of the card that change what a program sees.
fn features(facts: &InterfaceFacts) -> Vec<Finding> {
    const ID: &str = "offloads";
    let name = &facts.interface.name;
    let on = match &facts.features {
        Ok(features) => |feature: &str| features.contains(feature),
        Err(reason) => return vec![unknown(facts, ID, "its features", reason)],
    };
    let mut findings = Vec::new();
    if on("rx-lro") {
        findings.push(
            finding(facts, ID, Severity::Warning, "LRO is on")
                .meaning("the card merges packets, which native mode does not allow; some drivers turn it off by themselves then")
                .fix(format!("ethtool -K {name} lro off")),
        );
    }
    if on("rx-gro-hw") {
        findings.push(
            finding(facts, ID, Severity::Note, "hardware GRO is on")
                .meaning("the card merges packets; drivers turn it off for native mode, or refuse that mode")
                .fix(format!("ethtool -K {name} rx-gro-hw off")),
        );
    }
    if on("rx-vlan-hw-parse") && !facts.vlans.is_empty() {
        findings.push(
            finding(
                facts,
                ID,
                Severity::Warning,
                format!(
                    "VLAN tags are taken off by the card, and it has {}",
                    facts.vlans.join(", ")
                ),
            )
            .meaning("the program then sees packets of these VLANs as if they had no tag")
            .fix(format!("ethtool -K {name} rxvlan off")),
        );
    }
    if findings.is_empty() {
        findings.push(finding(facts, ID, Severity::Ok, "no offload in the way"));
    }
    findings
}

fn egress(facts: &InterfaceFacts) -> Finding {
    const ID: &str = "egress";
    match &facts.egress {
        Ok((Some(hook), _)) => finding(
            facts,
            ID,
            Severity::Ok,
            format!("what leaves can be seen by {}", Hook::name_of(Some(*hook))),
        ),
        Ok((None, reason)) => finding(
            facts,
            ID,
            Severity::Warning,
            format!("what leaves cannot be seen: {reason}"),
        )
        .meaning(COST)
        .fix("free a place on that hook; see: bpftool net show"),
        Err(reason) => unknown(facts, ID, "the hook for what leaves", reason),
    }
}

fn reply(facts: &InterfaceFacts) -> Finding {
    const ID: &str = "refusals";
    match &facts.reply {
        Ok(Reply::None) => {
            let peer = facts.peer.as_deref().unwrap_or("PEER");
            finding(
                facts,
                ID,
                Severity::Note,
                "its peer takes nothing that XDP sends: it has neither an XDP program in native mode nor GRO",
            )
            .meaning("what is to be rejected goes to the kernel, which refuses it")
            .fix(format!(
                "ethtool -K {peer} gro on, where the peer is; then demux set KEY=VALUE, with any setting, asks again"
            ))
        }
        Ok(reply) => finding(
            facts,
            ID,
            Severity::Ok,
            format!("refusals can leave by it ({})", reply.name()),
        ),
        Err(reason) => unknown(facts, ID, "how refusals leave", reason),
    }
}

/// What speaks against a default other than `pass`, which is worse where there is such a default.
fn risks(facts: &InterfaceFacts) -> Vec<Finding> {
    const ID: &str = "risk";
    let risks = match &facts.risks {
        Ok(risks) => risks,
        Err(reason) => {
            let what = "NAT, TPROXY, IPVS and devices above it";
            return vec![unknown(facts, ID, what, reason)];
        }
    };
    if risks.is_empty() {
        return vec![finding(
            facts,
            ID,
            Severity::Ok,
            "nothing speaks against a default of drop or reject",
        )];
    }
    let default = facts.loaded.map_or(Policy::Pass, |entry| entry.default);
    risks
        .iter()
        .map(|risk| {
            let found = if default == Policy::Pass {
                finding(facts, ID, Severity::Note, risk.to_string()).meaning(
                    "packets may have no socket yet when demux sees them, so a default of drop or reject is refused without --force",
                )
            } else {
                finding(facts, ID, Severity::Warning, risk.to_string()).meaning(format!(
                    "packets may have no socket yet when demux sees them, and the default is {}",
                    default.name()
                ))
            };
            found.fix(risk.remedy())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        doctor::{only, worst},
        ethtool::Channels,
        interface::{self, AttachedXdp, XdpMode},
        preflight::Risk,
    };
    use demux_common::config::Interface as Entry;

    fn healthy() -> InterfaceFacts {
        let mut interface = interface::by_name("lo").unwrap();
        interface.name = "eth0".into();
        interface.is_loopback = false;
        interface.is_up = true;
        interface.link_type = libc::ARPHRD_ETHER;
        InterfaceFacts {
            interface,
            loaded: None,
            program_name: None,
            report: Ok(DriverReport {
                driver: Some("ice".into()),
                mtu: 1500,
                channels: Some(Channels { rx: 4, tx: 4 }),
                peer_channels: None,
                lro: Some(false),
                xdp: None,
                native: Native::Likely,
                resets_link: Some(true),
            }),
            features: Ok(["rx-gro", "rx-vlan-hw-parse"].map(Into::into).into()),
            egress: Ok((Some(Hook::Tcx), "there".into())),
            risks: Ok(Vec::new()),
            reply: Ok(Reply::Transmit),
            vlans: Vec::new(),
            peer: None,
        }
    }

    fn loaded(default: Policy, mode: Mode) -> InterfaceFacts {
        InterfaceFacts {
            loaded: Some(Entry {
                probation_ends: 0,
                ifindex: 1,
                station: [0; 6],
                default,
                mode,
                egress: 1,
                reply: Reply::Transmit,
                reserved: [0; 2],
            }),
            ..healthy()
        }
    }

    fn impossible(reason: &str, change: impl FnOnce(&mut DriverReport)) -> InterfaceFacts {
        let mut facts = healthy();
        let report = facts.report.as_mut().unwrap();
        report.native = Native::Impossible(reason.into());
        change(report);
        facts
    }

    #[test]
    fn a_good_card_is_well() {
        assert_eq!(worst(&judge(&healthy())), Severity::Ok);
        let facts = loaded(Policy::Drop, Mode::Native);
        assert_eq!(worst(&judge(&facts)), Severity::Ok);
    }

    #[test]
    fn what_keeps_a_card_from_native_mode_is_mended_where_that_can_be() {
        let native = |facts: &InterfaceFacts| only(&judge(facts), "native").clone();
        let mtu = impossible("an MTU of 9000 is too much", |report| report.mtu = 9000);
        assert_eq!(native(&mtu).severity, Severity::Warning);
        assert_eq!(
            native(&mtu).fix.as_deref(),
            Some("ip link set eth0 mtu 3500")
        );
        let lro = impossible("LRO is on", |report| report.lro = Some(true));
        assert_eq!(native(&lro).fix.as_deref(), Some("ethtool -K eth0 lro off"));
        let mut queues = impossible("1 receive queue", |report| {
            report.channels = Some(Channels { rx: 1, tx: 1 });
            report.peer_channels = Some(Channels { rx: 2, tx: 2 });
        });
        queues.peer = Some("eth1".into());
        assert_eq!(
            native(&queues).fix.as_deref(),
            Some("ethtool -L eth0 rx 2; or: ethtool -L eth1 tx 1")
        );
        let none = impossible("the driver has no XDP", |_| {});
        assert_eq!(native(&none).severity, Severity::Note);
        assert_eq!(native(&none).fix, None);
        assert!(native(&none).detail.unwrap().contains("generic mode"));
    }

    #[test]
    fn risks_are_worse_under_a_default_that_drops() {
        let risk = || {
            Ok(vec![Risk::Enslaved {
                interface: "eth0".into(),
                master: "br0".into(),
                kind: "bridge".into(),
            }])
        };
        for (facts, severity) in [
            (healthy(), Severity::Note),
            (loaded(Policy::Pass, Mode::Native), Severity::Note),
            (loaded(Policy::Drop, Mode::Native), Severity::Warning),
            (loaded(Policy::Reject, Mode::Native), Severity::Warning),
        ] {
            let facts = InterfaceFacts {
                risks: risk(),
                ..facts
            };
            let findings = judge(&facts);
            let found = only(&findings, "risk");
            assert_eq!(found.severity, severity);
            assert_eq!(found.fix.as_deref(), Some("load br0 instead"));
            assert_eq!(found.interface.as_deref(), Some("eth0"));
        }
    }

    #[test]
    fn a_hook_that_somebody_else_has_is_a_failure() {
        let mut facts = healthy();
        facts.interface.xdp = Some(AttachedXdp {
            mode: XdpMode::Generic,
            program_id: 7,
        });
        facts.program_name = Some("theirs".into());
        let findings = judge(&facts);
        let found = only(&findings, "hook");
        assert_eq!(found.severity, Severity::Failure);
        assert!(found.summary.contains("theirs (id 7, generic)"));
        assert!(found.fix.as_ref().unwrap().contains("bpftool net"));
    }

    #[test]
    fn offloads_are_told_where_they_matter() {
        let mut facts = healthy();
        facts.vlans = vec!["eth0.5".into()];
        let findings = judge(&facts);
        let found = only(&findings, "offloads");
        assert_eq!(found.severity, Severity::Warning);
        assert!(found.summary.contains("eth0.5"));
        facts.features = Ok(["rx-lro", "rx-gro-hw"].map(Into::into).into());
        let findings = judge(&facts);
        let severities: Vec<_> = findings
            .iter()
            .filter(|found| found.id == "offloads")
            .map(|found| found.severity)
            .collect();
        assert_eq!(severities, [Severity::Warning, Severity::Note]);
    }

    #[test]
    fn a_veth_whose_peer_takes_nothing_and_what_cannot_be_seen_are_notes() {
        let mut facts = healthy();
        facts.reply = Ok(Reply::None);
        facts.peer = Some("veth1".into());
        facts.risks = Err("needs root".into());
        facts.egress = Err("needs root".into());
        facts.report = Err("needs root".into());
        facts.features = Err("needs root".into());
        let findings = judge(&facts);
        assert_eq!(worst(&findings), Severity::Note);
        let found = only(&findings, "refusals");
        assert!(
            found
                .fix
                .as_ref()
                .unwrap()
                .starts_with("ethtool -K veth1 gro on")
        );
        for id in ["risk", "egress", "native", "offloads"] {
            assert!(only(&findings, id).summary.starts_with("eth0: "), "{id}");
        }
    }

    #[test]
    fn an_interface_without_ethernet_or_without_egress_is_told() {
        let mut facts = healthy();
        facts.interface.link_type = 65534;
        facts.interface.is_up = false;
        facts.egress = Ok((None, "the hook is full".into()));
        let findings = judge(&facts);
        assert_eq!(only(&findings, "link-type").severity, Severity::Failure);
        assert_eq!(only(&findings, "link").severity, Severity::Note);
        assert_eq!(only(&findings, "egress").severity, Severity::Warning);
    }
}
