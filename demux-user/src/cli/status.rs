//! `demux status`: the instance and its interfaces.

use std::os::fd::AsFd as _;

use demux_common::config::{Config, Interface, Policy, Reply};

use super::{
    Outcome,
    context::{Context, Opened, cannot_write},
};
use crate::{
    Result,
    attach::{self, Hook, PinnedLink, egress},
    bpf,
    connections::Reader,
    interface::{self, Interface as Device},
    load::reply,
    netns::NetworkNamespace,
    owned::{self, Hooks},
    render::{InterfaceStatus, Status, build_name, write_status},
    state::{self, Paths},
    tables::now,
    upgrade::Build,
};

/// Show what is loaded
///
/// Interfaces first, then the facts of the instance, which belongs to one network namespace.
/// The last line says how to remove everything without demux.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLES:\n  demux status\n  demux -N blue status --pretty")]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let Self {} = self;
        let opened = context.open()?;
        let status = status(&opened)?;
        let format = context.format();
        write_status(&status, format, context.out()).map_err(cannot_write)?;
        Ok(Outcome::Done)
    }
}

/// The state of an instance, with what the user should look at.
pub(super) fn status(opened: &Opened) -> Result<Status> {
    let Opened { tables, paths } = opened;
    let namespace = NetworkNamespace::current()?;
    let config = tables.config()?;
    let totals = Reader::new(tables)?.totals()?;
    let counters = tables.table_counters()?;
    let devices = interface::all()?;
    let mut interfaces = Vec::new();
    let mut warnings = Vec::new();
    let (entries, bindings) = (tables.interfaces()?, tables.bindings()?);
    let rejects = reply::is_in_use(&entries, &bindings);
    for (_, entry) in entries {
        let device = devices.iter().find(|device| device.index == entry.ifindex);
        let link = link(paths, entry.ifindex)?;
        let egress = egress::find(paths, entry.ifindex)?;
        let interface = interface_status(&entry, device, link, egress);
        warnings.extend(warning(paths, &entry, device, link, &interface));
        if let Some(device) = device
            && interface.attached
            && rejects
        {
            warnings.extend(reply_warning(&config, &entry, device)?);
        }
        interfaces.push(interface);
    }
    interfaces.sort_by_key(|interface| interface.ifindex);
    let hooks = owned::hooks(paths, tables)?;
    if hooks == Hooks::Missing {
        warnings.push(
            "processes are not kept from binding the ports of bindings whose target is not the \
             stack; demux load IFACE tries again"
                .to_owned(),
        );
    }
    let meta = tables.meta()?;
    let build = Build::of(&meta);
    if paths.unfinished().exists() {
        warnings.push(
            "a command was killed half-way; the next one of somebody who may write puts it right"
                .to_owned(),
        );
    }
    if build == Build::Mixed {
        warnings.push(
            "an upgrade was killed: programs of two builds run side by side; end it with: \
             demux upgrade"
                .to_owned(),
        );
    }
    Ok(Status {
        netns: namespace
            .name()
            .unwrap_or_else(|| format!("net:[{}]", namespace.inode())),
        netns_cookie: namespace.cookie(),
        track: config.track.name(),
        kernel_sockets: config.kernel_sockets != 0,
        max_connections: tables.max_connections()?,
        connections: totals.rows,
        confirmed: totals.confirmed,
        displaced: counters.over_unconfirmed,
        untracked: counters.untracked,
        max_bindings: tables.max_bindings()?,
        bindings: bindings.len() as u64,
        bind_hooks: hooks.name(),
        build: (build != Build::Mixed).then(|| build_name(meta.build)),
        programs: build.name(),
        memory_bytes: tables.memory_bytes()?,
        path: paths.directory().display().to_string(),
        interfaces,
        warnings,
    })
}

/// What is known of the link that holds the program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Pinned(PinnedLink),
    Absent,
    /// Links are their owner's alone.
    Secret,
}

fn link(paths: &Paths, ifindex: u32) -> Result<Link> {
    match attach::pinned_link(&paths.xdp_link(ifindex)) {
        Ok(Some(link)) => Ok(Link::Pinned(link)),
        Ok(None) => Ok(Link::Absent),
        // Links cannot be opened to be read alone, so a read-only file system keeps them secret, too.
        Err(error) if error.keeps_a_pin_shut() => Ok(Link::Secret),
        Err(error) => Err(error),
    }
}

fn interface_status(
    entry: &Interface,
    device: Option<&Device>,
    link: Link,
    egress: Option<egress::Found>,
) -> InterfaceStatus {
    let (program_id, attached) = match link {
        Link::Pinned(link) => (
            Some(link.program_id),
            link.ifindex == Some(entry.ifindex) && device.is_some(),
        ),
        Link::Absent => (None, false),
        // Everybody may see what is on an interface.
        Link::Secret => {
            let program = device.and_then(|device| device.xdp);
            (program.map(|xdp| xdp.program_id), program.is_some())
        }
    };
    let egress_program_id = egress.as_ref().and_then(|found| found.program_id);
    let now = now();
    let is_over = entry.is_probation_over(now);
    let is_on_probation = entry.probation_ends != 0 && !is_over;
    InterfaceStatus {
        name: device.map_or_else(
            || format!("#{}", entry.ifindex),
            |device| device.name.clone(),
        ),
        ifindex: entry.ifindex,
        mode: entry.mode.name(),
        default: if is_over { Policy::Pass } else { entry.default }.name(),
        reply: entry.reply.name(),
        probation_left_ms: is_on_probation
            .then(|| entry.probation_ends.wrapping_sub(now) / 1_000_000),
        program_id,
        program_tag: program_id.and_then(tag),
        attached,
        egress: Hook::name_of(egress.as_ref().map(|found| found.hook)),
        egress_program_id,
        egress_program_tag: egress_program_id.and_then(tag),
        egress_attached: device.is_some() && egress.as_ref().is_some_and(|found| found.is_attached),
        egress_note: device.and_then(|device| egress::shortcoming(egress.as_ref(), &device.name)),
        egress_removal: device
            .zip(egress.and_then(|found| found.filter))
            .map(|(device, filter)| filter.removal(&device.name)),
    }
}

/// The tag of a program; `None` where the caller may not ask for it.
fn tag(program_id: u32) -> Option<String> {
    let program = bpf::program_open_by_id(program_id).ok()?;
    let info = bpf::program_info(program.as_fd()).ok()?;
    Some(info.tag.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What is wrong with how refusals leave.
fn reply_warning(config: &Config, entry: &Interface, device: &Device) -> Result<Option<String>> {
    let now = reply::reply(device, entry.mode)?;
    let name = &device.name;
    Ok(if now != entry.reply {
        let (now, before, track) = (now.name(), entry.reply.name(), config.track.name());
        // Any setting will do, and this one changes nothing.
        Some(format!(
            "the way back for refusals by {name} is {now} now, but was {before} when last asked for; \
             have it asked for again with: demux set track={track}"
        ))
    } else if now == Reply::None {
        Some(format!(
            "no refusal can leave by {name} from the driver, because its peer takes nothing that XDP \
             sends: what is to be rejected goes to the kernel, which refuses it; the peer needs GRO or \
             an XDP program in native mode"
        ))
    } else {
        None
    })
}

/// What becomes of an interface that is gone.
fn gone(paths: &Paths, index: u32) -> String {
    // Where names cannot be read, the index has to do.
    let names = state::kept_names(paths).unwrap_or_default();
    match names.get(&index) {
        Some(name) => format!(
            "{name}, which had the index {index}, is gone; when it returns, demux daemon attaches it as it \
             was, and demux load {name} anew; have it forgotten with: demux unload {name}"
        ),
        None => format!(
            "the interface with index {index} is gone; its entry goes with the next demux load"
        ),
    }
}

fn warning(
    paths: &Paths,
    entry: &Interface,
    device: Option<&Device>,
    link: Link,
    interface: &InterfaceStatus,
) -> Option<String> {
    let (name, index) = (&interface.name, interface.ifindex);
    let Some(device) = device else {
        return Some(match link {
            Link::Pinned(link) if link.ifindex.is_some() => {
                let mut pins = paths.xdp_link(index).display().to_string();
                if interface.egress == Hook::Tcx.name() {
                    pins = format!("{pins} {}", paths.egress_link(index).display());
                }
                format!(
                    "the interface with index {index} was moved to another network namespace, or \
                     away and back; the program is still on it, but passes its packets unjudged; \
                     detach it with: rm {pins}"
                )
            }
            _ => gone(paths, index),
        });
    };
    if !interface.attached {
        return Some(format!(
            "{name} is not attached any more; attach it again with: demux load {name}"
        ));
    }
    if device.mac.unwrap_or_default() != entry.station {
        return Some(format!(
            "the address of {name} has changed since it was loaded, so that its packets are not \
             judged; load it again with: demux unload {name}; demux load {name}"
        ));
    }
    if entry.is_probation_over(now()) {
        return Some(format!(
            "the probation of {} on {name} has run out, and the default is pass again",
            entry.default.name()
        ));
    }
    let note = interface.egress_note.as_ref()?;
    Some(format!("egress of {name} is {note}"))
}
