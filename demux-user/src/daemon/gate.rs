//! What an owner may send on an interface, and the reports of what it has sent.
//!
//! AF_XDP sends whatever it is given. So the daemon lets pass only what the owner could have received an
//! answer to: a whole TCP segment or UDP datagram, from an endpoint of the set, and from the station that
//! the interface is. Everything else (ARP, ICMP, fragments, what is for a group) is the kernel's to send.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use demux_common::{
    address::Address,
    matcher::Endpoint,
    parse::parse,
    protocol::Protocol,
    sent::{BATCH, Sent},
};

use super::rights::{Right, Rights, Snapshot};
use crate::{Result, interface, tables::Sender};

/// How many answers about endpoints are kept.
const ANSWERS: usize = 1024;

/// How often the interface is looked at again, if a frame does not fit it.
const RENEWAL: Duration = Duration::from_secs(1);

/// An Ethernet header with two VLAN tags.
const LINK_HEADERS: usize = 14 + 2 * 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    set: u16,
    ifindex: u32,
    rights: Arc<Rights>,
    /// `None` while the tables cannot be read: then nothing may be sent.
    snapshot: Option<Arc<Snapshot>>,
    answers: HashMap<(Address, Protocol, u16), bool>,
    link: Link,
    sender: Sender,
    reports: Vec<Sent>,
}

/// What is asked of a frame for the sake of the interface.
#[derive(Debug)]
struct Link {
    station: Option<[u8; 6]>,
    longest: usize,
    read: Instant,
}

impl Gate {
    /// The gate of a set, by its index, on an interface.
    ///
    /// # Errors
    ///
    /// Where rtnetlink cannot be asked.
    pub(super) fn new(set: u16, ifindex: u32, rights: Arc<Rights>, sender: Sender) -> Result<Self> {
        Ok(Self {
            set,
            ifindex,
            rights,
            snapshot: None,
            answers: HashMap::new(),
            link: Link::read(ifindex)?,
            sender,
            reports: Vec::with_capacity(BATCH),
        })
    }

    /// To be called before frames are judged: takes note of changes.
    pub(super) fn begin(&mut self) {
        let before = self.snapshot.as_ref().map(|snapshot| snapshot.epoch());
        self.snapshot = self.rights.now().ok();
        if self.snapshot.as_ref().map(|snapshot| snapshot.epoch()) != before {
            self.answers.clear();
        }
    }

    /// The report of a frame that may be sent; `None` for one that may not.
    #[must_use]
    pub(super) fn judge(&mut self, frame: &[u8]) -> Option<Sent> {
        let parsed = parse(frame).ok()?;
        if !self.link.fits(frame) && !self.renewed_link_fits(frame) {
            return None;
        }
        let report = Sent::new(self.ifindex, &parsed);
        let endpoint = Endpoint {
            address: report.key.local_address,
            family: report.family,
            protocol: report.key.protocol,
            ifindex: self.ifindex,
            port: report.key.local_port,
            reserved: 0,
        };
        self.is_granted(&endpoint).then_some(report)
    }

    fn is_granted(&mut self, endpoint: &Endpoint) -> bool {
        // Of which version an address is, it says itself.
        let key = (endpoint.address, endpoint.protocol, endpoint.port);
        if let Some(answer) = self.answers.get(&key) {
            return *answer;
        }
        let Some(snapshot) = &self.snapshot else {
            return false;
        };
        let mut right = snapshot.of(self.set, endpoint);
        if right == Right::Foreign {
            match self.rights.renewed() {
                Ok(renewed) => right = renewed.of(self.set, endpoint),
                Err(_) => return false,
            }
        }
        // The address may become this host's without a change of the configuration.
        if right != Right::Foreign {
            if self.answers.len() >= ANSWERS {
                self.answers.clear();
            }
            self.answers.insert(key, right == Right::Granted);
        }
        right == Right::Granted
    }

    fn renewed_link_fits(&mut self, frame: &[u8]) -> bool {
        if self.link.read.elapsed() < RENEWAL {
            return false;
        }
        match Link::read(self.ifindex) {
            Ok(link) => self.link = link,
            Err(_) => self.link.read = Instant::now(),
        }
        self.link.fits(frame)
    }

    /// Notes the report of a frame that is about to leave.
    pub(super) fn note(&mut self, report: Sent) {
        self.reports.push(report);
    }

    /// Enters what was noted into the connection table.
    pub(super) fn report(&mut self) {
        if !self.reports.is_empty() {
            // If the instance is gone, so is its table.
            let _ = self.sender.report(&self.reports);
            self.reports.clear();
        }
    }
}

impl Link {
    fn read(ifindex: u32) -> Result<Self> {
        let interface = interface::by_index(ifindex)?;
        Ok(Self {
            station: interface.as_ref().and_then(|interface| interface.mac),
            longest: interface.map_or(0, |interface| interface.mtu as usize + LINK_HEADERS),
            read: Instant::now(),
        })
    }

    /// Whether a frame comes from this station, and is not longer than the device sends.
    fn fits(&self, frame: &[u8]) -> bool {
        frame.len() <= self.longest
            && self
                .station
                .is_none_or(|station| frame.get(6..12) == Some(&station))
    }
}
