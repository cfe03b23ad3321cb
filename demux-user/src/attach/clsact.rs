//! The hook for outgoing packets before Linux 6.6: a filter of the qdisc `clsact`, made over netlink.
//!
//! Such a filter has no link. It stays until somebody deletes it, whatever becomes of the pins, and
//! interfaces have several, of several owners. Ours is the one whose program has our id; a pin of that
//! program, one for each interface, says that there is or may be one. While the program is being
//! replaced, the filter may have the egress program of the instance already, and the pin still the one
//! before it.
//!
//! Whether demux made the qdisc too is written where it cannot get lost: in the handle of the filter.

use std::{fs, io, mem, os::fd::AsFd as _, path::Path};

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};
use aya_obj::generated::{
    TC_H_CLSACT, TC_H_MIN_EGRESS, TC_H_MIN_INGRESS, TCA_BPF_ID, TCA_BPF_NAME, TCA_CHAIN, TCA_KIND,
    TCA_OPTIONS,
};
use demux_common::layout::program::EGRESS;

use super::remove_pin;
use crate::{
    Error, Result, bpf,
    interface::Interface,
    netlink::{Netlink, RawMessage, attribute, push_attribute, text},
    object::chain,
    state::Paths,
};

/// The handle of our filter where the qdisc was there before.
const IN_THEIR_QDISC: u32 = 0xde0;

/// The handle of our filter where we have made the qdisc.
const IN_OUR_QDISC: u32 = 0xde1;

/// What the kernel gives to the first filter of a hook.
const USUAL_PRIORITY: u16 = 0xc000;

const KIND: &str = "clsact";

/// A filter on the hook of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Filters run in ascending order of it (`pref` in the words of tc).
    pub priority: u16,
    /// The number that tells filters of one priority apart.
    pub handle: u32,
    /// `bpf`, `flower`, …
    pub kind: String,
    /// The kernel id of its BPF program.
    pub program_id: Option<u32>,
    /// The name given with that program.
    pub program_name: Option<String>,
    /// The packets it is for, as the kernel writes it down.
    protocol: u16,
    chain: u32,
}

impl Filter {
    /// The command that deletes it without demux. A qdisc without filters does nothing.
    #[must_use]
    pub fn removal(&self, interface: &str) -> String {
        format!(
            "tc filter del dev {interface} egress pref {} handle {:#x} bpf",
            self.priority, self.handle
        )
    }

    /// Whether a demux has made it, of whatever instance.
    fn is_of_demux(&self) -> bool {
        self.program_name.as_deref() == Some(EGRESS)
            && [IN_THEIR_QDISC, IN_OUR_QDISC].contains(&self.handle)
    }
}

/// The filters for what leaves an interface, in the order in which they run.
///
/// # Errors
///
/// Where rtnetlink cannot be asked; a kernel without traffic control has none.
pub fn filters(ifindex: u32) -> Result<Vec<Filter>> {
    dump_filters(ifindex, TC_H_MIN_EGRESS)
        .map_err(|source| Error::io("list the filters of egress", source))
}

/// The filter that holds the egress program of an instance; `None` where it was deleted, or its
/// interface.
///
/// # Errors
///
/// Where rtnetlink cannot be asked.
pub fn find(paths: &Paths, ifindex: u32) -> Result<Option<Filter>> {
    match find_own(paths, ifindex) {
        // Programs are their owner's alone, but everybody may see what is on an interface.
        Err(error) if error.keeps_a_pin_shut() => {
            Ok(filters(ifindex)?.into_iter().find(Filter::is_of_demux))
        }
        found => found,
    }
}

/// As [`find`], by the id of the program alone.
fn find_own(paths: &Paths, ifindex: u32) -> Result<Option<Filter>> {
    let Some(id) = program_id(&paths.egress_filter(ifindex))? else {
        return Ok(None);
    };
    let present = program_id(&paths.program(EGRESS))?;
    let mut filters = filters(ifindex)?.into_iter();
    Ok(filters.find(|filter| {
        filter
            .program_id
            .is_some_and(|program| program == id || Some(program) == present)
    }))
}

/// Has a filter hold another program, pinned at `program`, from the next packet on; none is missed in
/// between. Whoever dies here leaves a filter that [`find`] finds, provided that the new program is the
/// egress program of the instance, or else `is_back`.
///
/// # Errors
///
/// What the kernel refuses.
pub(super) fn replace(
    paths: &Paths,
    interface: &Interface,
    filter: &Filter,
    program: &Path,
    is_back: bool,
) -> Result<()> {
    if is_back {
        renew_pin(paths, interface.index, program)?;
    }
    exchange(interface, filter, program)?;
    if !is_back {
        renew_pin(paths, interface.index, program)?;
    }
    Ok(())
}

/// Makes sure that the pin of an interface is of the program that its filter has, which it may not be
/// after a command that was killed while it replaced the program.
pub(super) fn settle(paths: &Paths, ifindex: u32, filter: &Filter) -> Result<()> {
    if program_id(&paths.egress_filter(ifindex))? == filter.program_id {
        return Ok(());
    }
    renew_pin(paths, ifindex, &paths.program(EGRESS))
}

/// Pins the program that is pinned at `program` as that of the filter of an interface.
fn renew_pin(paths: &Paths, ifindex: u32, program: &Path) -> Result<()> {
    let (pin, next) = (
        paths.egress_filter(ifindex),
        paths.next_egress_filter(ifindex),
    );
    // What a killed command has left.
    remove_pin(&next)?;
    bpf::object_get(program, false)
        .and_then(|fd| bpf::object_pin(fd.as_fd(), &next))
        .and_then(|()| fs::rename(&next, &pin))
        .map_err(|source| Error::io(format!("pin {}", pin.display()), source))
}

/// Gives the filter another program: cls_bpf takes one for the other, and whoever runs it sees one of
/// both.
fn exchange(interface: &Interface, filter: &Filter, program: &Path) -> Result<()> {
    let failed = |reason: String| {
        Error::unexpected(
            format!("replace the egress program of {}", interface.name),
            reason,
        )
    };
    let mut classifier =
        SchedClassifier::from_pin(program).map_err(|error| failed(chain(&error)))?;
    let attached = SchedClassifierLink::attached(
        &interface.name,
        TcAttachType::Egress,
        filter.priority,
        TcHandle::from(filter.handle),
        None,
    )
    .map_err(|error| failed(error.to_string()))?;
    let id = classifier
        .attach_to_link(attached)
        .map_err(|error| failed(chain(&error)))?;
    let attached = classifier
        .take_link(id)
        .map_err(|error| failed(chain(&error)))?;
    // Dropping it would delete the filter.
    mem::forget(attached);
    Ok(())
}

/// The kind of the qdisc of an interface that has the place of `clsact`, which may be `ingress` too.
///
/// # Errors
///
/// Where rtnetlink cannot be asked.
pub fn qdisc(ifindex: u32) -> Result<Option<String>> {
    find_qdisc(ifindex).map_err(|source| Error::io("list the qdiscs", source))
}

/// Why the hook of an interface cannot be used, if that is known before trying.
///
/// # Errors
///
/// Where rtnetlink cannot be asked.
pub(super) fn obstacle(ifindex: u32) -> Result<Option<String>> {
    Ok(qdisc(ifindex)?.filter(|kind| kind != KIND).map(|kind| {
        format!("it has a qdisc {kind}, which has no egress and leaves no room for {KIND}")
    }))
}

/// Attaches the program pinned at `program` in front of all others, because one of them may end the
/// chain, and pins it at `pin` too; or says why not.
pub(super) fn attach(
    program: &Path,
    interface: &Interface,
    pin: &Path,
) -> std::result::Result<(), String> {
    if let Some(obstacle) = obstacle(interface.index).map_err(|error| error.to_string())? {
        return Err(obstacle);
    }
    let refused = |error: io::Error| format!("the kernel refused: {error}");
    let fd = bpf::object_get(program, false).map_err(refused)?;
    // The pin first: whoever finds one looks for a filter.
    bpf::object_pin(fd.as_fd(), pin).map_err(refused)?;
    add(program, interface).inspect_err(|_| {
        let _ = remove_pin(pin);
    })
}

/// Makes the filter, and the qdisc where there is none.
fn add(program: &Path, interface: &Interface) -> std::result::Result<(), String> {
    let mut is_our_qdisc =
        delete_orphans(interface.index).map_err(|error| format!("the kernel refused: {error}"))?;
    is_our_qdisc |= make_qdisc(interface)?;
    add_filter(program, interface, is_our_qdisc).inspect_err(|_| {
        if is_our_qdisc {
            let _ = delete_unused_qdisc(interface.index);
        }
    })
}

/// Deletes the filter that holds the egress program of an instance, the qdisc if it was made for it and
/// nobody else has come to use it, and the pin.
///
/// # Errors
///
/// Where the kernel refuses; one that is gone already is no error.
pub fn detach(paths: &Paths, ifindex: u32) -> Result<()> {
    delete(paths, ifindex)?;
    remove_pin(&paths.next_egress_filter(ifindex))?;
    remove_pin(&paths.egress_filter(ifindex))
}

/// As [`detach`], but the pin stays. Tells whether there was such a filter in this namespace.
///
/// # Errors
///
/// As [`detach`].
pub fn delete(paths: &Paths, ifindex: u32) -> Result<bool> {
    let Some(filter) = find_own(paths, ifindex)? else {
        return Ok(false);
    };
    let deleted = delete_filter(ifindex, &filter).and_then(|()| {
        if filter.handle == IN_OUR_QDISC {
            delete_unused_qdisc(ifindex)?;
        }
        Ok(())
    });
    deleted.map_err(|source| {
        let operation = format!("delete the egress filter of the interface with index {ifindex}");
        Error::io(operation, source)
    })?;
    Ok(true)
}

/// Deletes filters of a demux whose pins are gone, and tells whether the qdisc was made for one.
///
/// An instance that is in use has its ingress program on the interface, which was seen to have none.
fn delete_orphans(ifindex: u32) -> io::Result<bool> {
    let mut is_our_qdisc = false;
    let filters = dump_filters(ifindex, TC_H_MIN_EGRESS)?;
    for filter in filters.iter().filter(|filter| filter.is_of_demux()) {
        delete_filter(ifindex, filter)?;
        is_our_qdisc |= filter.handle == IN_OUR_QDISC;
    }
    Ok(is_our_qdisc)
}

/// Makes the qdisc where there is none; `true` where it was not there.
fn make_qdisc(interface: &Interface) -> std::result::Result<bool, String> {
    match qdisc_add_clsact(&interface.name) {
        Ok(()) => Ok(true),
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
            Ok(false)
        }
        Err(error) => Err(format!(
            "the qdisc {KIND} cannot be added: {}",
            chain(&error)
        )),
    }
}

fn add_filter(
    program: &Path,
    interface: &Interface,
    is_our_qdisc: bool,
) -> std::result::Result<(), String> {
    let refused = |error: ProgramError| format!("the kernel refused: {}", chain(&error));
    let present =
        dump_filters(interface.index, TC_H_MIN_EGRESS).map_err(|error| error.to_string())?;
    let handle = if is_our_qdisc {
        IN_OUR_QDISC
    } else {
        IN_THEIR_QDISC
    };
    let options = NlOptions {
        priority: priority(&present),
        handle: TcHandle::from(handle),
        classid: None,
    };
    let mut classifier = SchedClassifier::from_pin(program).map_err(refused)?;
    let id = classifier
        .attach_with_options(
            &interface.name,
            TcAttachType::Egress,
            TcAttachOptions::Netlink(options),
        )
        .map_err(refused)?;
    let attached = classifier.take_link(id).map_err(refused)?;
    // Dropping it would delete the filter.
    mem::forget(attached);
    Ok(())
}

/// A priority of our own, before all others where there is room, as the kernel itself would choose;
/// but never 0, which in a request to delete means every filter there is.
fn priority(present: &[Filter]) -> u16 {
    let taken = |priority| present.iter().any(|filter| filter.priority == priority);
    let lowest = present.iter().map(|filter| filter.priority).min();
    match lowest {
        None => USUAL_PRIORITY,
        Some(lowest) if lowest > 1 => lowest - 1,
        Some(_) => (1..).find(|priority| !taken(*priority)).unwrap_or(u16::MAX),
    }
}

fn delete_filter(ifindex: u32, filter: &Filter) -> io::Result<()> {
    if filter.priority == 0 || filter.handle == 0 {
        // To the kernel, no number means every filter.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut request = tc_message(
        libc::RTM_DELTFILTER,
        ifindex,
        filter.handle,
        class(TC_H_MIN_EGRESS),
        u32::from(filter.priority) << 16 | u32::from(filter.protocol),
    );
    push_kind(&mut request, &filter.kind);
    gone_is_done(Netlink::route()?.request(request, 0))
}

/// Deletes the qdisc if it has no filter, neither for what arrives nor for what leaves.
fn delete_unused_qdisc(ifindex: u32) -> io::Result<()> {
    if find_qdisc(ifindex)?.as_deref() != Some(KIND) {
        return Ok(());
    }
    for hook in [TC_H_MIN_INGRESS, TC_H_MIN_EGRESS] {
        if !dump(libc::RTM_GETTFILTER, ifindex, class(hook))?.is_empty() {
            return Ok(());
        }
    }
    let mut request = tc_message(
        libc::RTM_DELQDISC,
        ifindex,
        TC_H_CLSACT & MAJOR,
        TC_H_CLSACT,
        0,
    );
    push_kind(&mut request, KIND);
    gone_is_done(Netlink::route()?.request(request, 0))
}

fn gone_is_done(answer: io::Result<Vec<RawMessage>>) -> io::Result<()> {
    match answer {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// The kernel id of the program pinned at `pin`; `None` where there is none.
fn program_id(pin: &Path) -> Result<Option<u32>> {
    let info = bpf::object_get(pin, false).and_then(|fd| bpf::program_info(fd.as_fd()));
    match info {
        Ok(info) => Ok(Some(info.id)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io(format!("open {}", pin.display()), source)),
    }
}

/// The bits of a handle that name a qdisc.
const MAJOR: u32 = 0xffff_0000;

/// The bytes of `struct tcmsg`: family and padding, interface, handle, parent, and what else there is.
const HEADER: usize = 20;

/// A hook of the qdisc, as the parent of filters.
const fn class(minor: u32) -> u32 {
    TC_H_CLSACT & MAJOR | minor
}

fn tc_message(message_type: u16, ifindex: u32, handle: u32, parent: u32, info: u32) -> RawMessage {
    let mut payload = Vec::with_capacity(HEADER);
    for word in [0, ifindex, handle, parent, info] {
        payload.extend(word.to_ne_bytes());
    }
    RawMessage {
        message_type,
        payload,
    }
}

fn push_kind(message: &mut RawMessage, kind: &str) {
    let mut kind = kind.as_bytes().to_vec();
    kind.push(0);
    push_attribute(&mut message.payload, TCA_KIND as u16, &kind);
}

/// What the kernel lists, none where it has no traffic control.
fn dump(message_type: u16, ifindex: u32, parent: u32) -> io::Result<Vec<RawMessage>> {
    let request = tc_message(message_type, ifindex, 0, parent, 0);
    match Netlink::route()?.dump(&request) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        answer => answer,
    }
}

fn find_qdisc(ifindex: u32) -> io::Result<Option<String>> {
    let answer = dump(libc::RTM_GETQDISC, ifindex, 0)?;
    Ok(answer.iter().find_map(|message| {
        let payload = &message.payload;
        // Older kernels list the qdiscs of all interfaces, whichever is asked for.
        let is_it = word(payload, 1)? == ifindex && word(payload, 3)? == TC_H_CLSACT;
        let kind = attribute(payload.get(HEADER..)?, TCA_KIND as u16)?;
        is_it.then(|| text(kind))
    }))
}

fn dump_filters(ifindex: u32, hook: u32) -> io::Result<Vec<Filter>> {
    let answer = dump(libc::RTM_GETTFILTER, ifindex, class(hook))?;
    Ok(answer
        .iter()
        .filter_map(|message| parse(&message.payload))
        .filter(|filter| filter.chain == 0)
        .collect())
}

/// A filter; `None` for what only heads a list of them.
fn parse(payload: &[u8]) -> Option<Filter> {
    let attributes = payload.get(HEADER..)?;
    let options = attribute(attributes, TCA_OPTIONS as u16).unwrap_or_default();
    let number = |bytes: &[u8]| Some(u32::from_ne_bytes(bytes.try_into().ok()?));
    let info = word(payload, 4)?;
    let kind = text(attribute(attributes, TCA_KIND as u16)?);
    let is_bpf = kind == "bpf";
    // Other kinds give other meanings to the same numbers.
    let option = |kind: u32| attribute(options, kind as u16).filter(|_| is_bpf);
    Some(Filter {
        priority: (info >> 16) as u16,
        protocol: info as u16,
        handle: word(payload, 2).filter(|handle| *handle != 0)?,
        program_id: option(TCA_BPF_ID).and_then(number),
        program_name: option(TCA_BPF_NAME).map(text),
        chain: attribute(attributes, TCA_CHAIN as u16)
            .and_then(number)
            .unwrap_or(0),
        kind,
    })
}

/// A word of the header of a message, by its number.
fn word(payload: &[u8], number: usize) -> Option<u32> {
    let bytes = payload.get(4 * number..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(priority: u16, handle: u32) -> Filter {
        Filter {
            priority,
            handle,
            kind: "bpf".to_owned(),
            program_id: Some(7),
            program_name: Some(EGRESS.to_owned()),
            protocol: 0x300,
            chain: 0,
        }
    }

    #[test]
    fn ours_comes_before_the_others_and_never_has_the_priority_of_all() {
        let with = |priorities: &[u16]| {
            let present: Vec<Filter> = priorities.iter().map(|&p| filter(p, 1)).collect();
            priority(&present)
        };
        assert_eq!(with(&[]), USUAL_PRIORITY);
        assert_eq!(with(&[USUAL_PRIORITY]), USUAL_PRIORITY - 1);
        assert_eq!(with(&[5, 2]), 1);
        assert_eq!(with(&[1, 2, 4]), 3);
    }

    #[test]
    fn the_command_that_deletes_it_names_nothing_else() {
        assert_eq!(
            filter(7, IN_THEIR_QDISC).removal("eth0"),
            "tc filter del dev eth0 egress pref 7 handle 0xde0 bpf"
        );
    }

    #[test]
    fn a_filter_is_read_from_the_message_of_the_kernel() {
        let mut message = tc_message(0, 3, 0xde1, class(TC_H_MIN_EGRESS), 0xc000_0300);
        push_kind(&mut message, "bpf");
        let mut options = Vec::new();
        push_attribute(&mut options, TCA_BPF_NAME as u16, b"demux_egress\0");
        push_attribute(&mut options, TCA_BPF_ID as u16, &7_u32.to_ne_bytes());
        push_attribute(&mut message.payload, TCA_OPTIONS as u16, &options);
        assert_eq!(parse(&message.payload), Some(filter(USUAL_PRIORITY, 0xde1)));
        let head = tc_message(0, 3, 0, class(TC_H_MIN_EGRESS), 0xc000_0300);
        assert_eq!(parse(&head.payload), None);
        assert_eq!(parse(&[]), None);
    }
}
