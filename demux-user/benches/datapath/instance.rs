//! A real instance of demux on the host of an arena.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use demux_common::{
    command::{Command, Outcome},
    config::Policy,
    connection::{ConnectionKey, State},
    layout::{map, program},
    protocol::Protocol,
    reason::{Reason, Verdict},
    table::Flags,
    tcp::{Half, Marks},
};
use demux_user::{
    bindings::{BindRequest, Destination, Pattern, bind},
    bpf,
    load::{LoadOptions, load},
    netns::NetworkNamespace,
    state::{Instance, Lock},
    tables::{Access, Control, Tables},
};

use zerocopy::IntoBytes as _;

use crate::common::{bpffs::TemporaryBpfFs, pair::HOST};

/// demux, attached to the cable of an arena in the driver, with a default of drop.
pub(crate) struct Demux {
    tables: Tables,
    control: Control,
    program: OwnedFd,
    bpffs: TemporaryBpfFs,
}

impl Demux {
    /// Loads demux and binds these patterns, such as `*:80`. The present namespace is the host's.
    pub(crate) fn load(max_connections: Option<u32>, patterns: &[(Protocol, &str)]) -> Self {
        let options = LoadOptions {
            default: Some(Policy::Drop),
            max_connections,
            ..LoadOptions::default()
        };
        let demux = Self::load_with(&options);
        for &(protocol, text) in patterns {
            let request = BindRequest {
                pattern: Pattern::parse(protocol, text, false).expect("a pattern"),
                target: Destination::Stack,
                fallback: None,
                name: None,
                ifindex: 0,
                flags: 0,
                freebind: true,
            };
            bind(demux.bpffs.bpffs(), &request).expect("a binding");
        }
        demux
    }

    /// Loads demux with these options, whatever the risk.
    pub(crate) fn load_with(options: &LoadOptions) -> Self {
        let bpffs = TemporaryBpfFs::new();
        let options = LoadOptions {
            force: true,
            ..options.clone()
        };
        load(bpffs.bpffs(), &[HOST.to_owned()], &options).expect("demux loads");
        let cookie = NetworkNamespace::current().expect("a namespace").cookie();
        let instance = Instance::open(bpffs.bpffs(), cookie, Lock::Shared).expect("an instance");
        let pin = instance.paths().program(program::INGRESS);
        Self {
            tables: Tables::open(&instance, Access::ReadWrite).expect("its tables"),
            control: Control::open(instance.paths()).expect("its control"),
            program: bpf::object_get(&pin, false).expect("its program"),
            bpffs,
        }
    }

    /// The program for arriving frames.
    pub(crate) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Lets every CPU have sent no refusal for long.
    pub(crate) fn refill(&self) {
        self.set_budgets([0; 2]);
    }

    /// Lets every CPU have sent as many refusals as it may.
    pub(crate) fn spend(&self) {
        // Credit is added up only from this tick on.
        self.set_budgets([self.control.ticks().expect("the clock"), 0]);
    }

    fn set_budgets(&self, budget: [u64; 2]) {
        let map = self.tables.map_fd(map::REPLY_BUDGET).expect("a map");
        let info = bpf::map_info(map).expect("the map");
        let copies = info.value_stride().expect("the CPUs") / size_of_val(&budget);
        let values: Vec<u64> = budget.repeat(copies);
        bpf::map_update(map, 0u32.as_bytes(), values.as_bytes(), 0).expect("a budget");
    }

    /// Enters established connections, all but a thousandth of which must find room.
    pub(crate) fn enter(&self, connections: impl Iterator<Item = (ConnectionKey, [Half; 2])>) {
        let flags = Flags::CONFIRMED | Marks::LOCAL_SEEN | Marks::REMOTE_SEEN;
        let commands: Vec<Command> = connections
            .map(|(key, [remote, local])| Command {
                remote,
                local,
                ..Command::enter(key, State::Established, Flags(flags))
            })
            .collect();
        let outcomes = self.control.execute(&commands).expect("its control runs");
        let is_done = |outcome: &&Outcome| **outcome == Outcome::Done;
        let refused = outcomes.len() - outcomes.iter().filter(is_done).count();
        assert!(refused <= commands.len() / 1000, "{refused} rows");
    }

    /// A check that all but a thousandth of the packets were counted under a reason.
    pub(crate) fn expects<'a>(
        &'a self,
        verdict: Verdict,
        reason: Reason,
    ) -> impl FnMut(u64) -> Result<(), String> + 'a {
        let mut before = 0;
        move |runs| {
            let now = self.count(verdict, reason);
            let counted = now - std::mem::replace(&mut before, now);
            if counted >= runs - runs / 1000 {
                return Ok(());
            }
            let (verdict, reason) = (verdict.name(), reason.name());
            Err(format!(
                "{counted} of {runs} packets were {verdict} {reason}"
            ))
        }
    }

    fn count(&self, verdict: Verdict, reason: Reason) -> u64 {
        let counters = self.tables.counters().expect("the counters");
        counters
            .iter()
            .map(|(_, counters)| counters.get(verdict, reason).packets)
            .sum()
    }
}
