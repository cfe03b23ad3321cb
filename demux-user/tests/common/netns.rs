//! Throw-away network namespaces, made by the kernel's own means: no `ip`, nothing left behind.
//!
//! ```ignore
//! let client = Netns::new();
//! let server = Netns::new();
//! client.veth("c0", &server, "s0");
//! client.add_address("c0", "10.0.0.1/24");
//! server.add_address("s0", "10.0.0.2/24");
//! server.enter(|| TcpListener::bind("10.0.0.2:80"));
//! ```

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    panic,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use demux_user::{interface, local_address, netlink::Netlink};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{InfoData, InfoVeth, LinkAttribute, LinkMessage},
    route::RouteMessage,
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// A network namespace that lives as long as the value, with its loopback interface up.
#[derive(Debug)]
pub struct Netns {
    file: File,
    name: Option<PathBuf>,
}

/// How many queues each end of a veth pair is to have.
#[derive(Debug, Clone, Copy)]
pub struct Queues {
    pub rx: u32,
    pub tx: u32,
}

impl Queues {
    pub const ONE: Self = Self { rx: 1, tx: 1 };
}

impl Netns {
    /// A new namespace without a name. [`Netns::selector`] is what `demux -N` takes for it.
    pub fn new() -> Self {
        let file = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new namespace (needs root)");
            File::open("/proc/thread-self/ns/net").expect("the namespace")
        })
        .join()
        .expect("the thread that makes a namespace");
        let namespace = Self { file, name: None };
        namespace.set_up("lo");
        namespace
    }

    /// A new namespace that also has a name, unique to this process, as `ip netns add` gives it.
    pub fn named() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut namespace = Self::new();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/run/netns/demux-test-{}-{count}", process::id()));
        fs::create_dir_all("/run/netns").expect("/run/netns");
        File::create(&path).expect("the file for the name");
        mount(
            Some(namespace.selector().as_str()),
            &path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .expect("the mount of the name");
        namespace.name = Some(path);
        namespace
    }

    /// What `-N` takes to select this namespace: its name, or a path that other processes can open.
    pub fn selector(&self) -> String {
        match &self.name {
            Some(path) => path.file_name().unwrap().to_str().unwrap().to_owned(),
            None => format!("/proc/{}/fd/{}", process::id(), self.file.as_raw_fd()),
        }
    }

    /// The descriptor of the namespace.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Runs `work` on a thread in this namespace; a panic in it goes on in the caller.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&self.file, CloneFlags::CLONE_NEWNET).expect("entering a namespace");
                    work()
                })
                .join()
        });
        result.unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    /// Makes a veth pair, `name` here and `peer_name` in `peer`, both up, with the kernel's queues.
    pub fn veth(&self, name: &str, peer: &Self, peer_name: &str) {
        self.make_veth(name, None, peer, peer_name, None);
    }

    /// As [`Netns::veth`], with so many queues on either end.
    pub fn veth_with_queues(
        &self,
        name: &str,
        queues: Queues,
        peer: &Self,
        peer_name: &str,
        peer_queues: Queues,
    ) {
        self.make_veth(name, Some(queues), peer, peer_name, Some(peer_queues));
    }

    fn make_veth(
        &self,
        name: &str,
        queues: Option<Queues>,
        peer: &Self,
        peer_name: &str,
        peer_queues: Option<Queues>,
    ) {
        let mut other = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer_name)
            .setns_by_fd(peer.file.as_raw_fd())
            .build();
        other.attributes.extend(queue_attributes(peer_queues));
        let mut link = LinkVeth::new(name, peer_name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(other)))
            .build();
        link.attributes.extend(queue_attributes(queues));
        self.add_link(link);
        self.set_up(name);
        peer.set_up(peer_name);
    }

    /// Adds an interface described by one of the builders of rtnetlink.
    pub fn add_link(&self, link: LinkMessage) {
        self.request(
            RouteNetlinkMessage::NewLink(link),
            NLM_F_CREATE | NLM_F_EXCL,
        );
    }

    /// Changes an interface: [`Netns::link`] begins such a description.
    pub fn set_link(&self, link: LinkMessage) {
        self.request(RouteNetlinkMessage::SetLink(link), 0);
    }

    /// Begins to describe a change to an existing interface.
    pub fn link(&self, name: &str) -> LinkMessageBuilder<LinkUnspec> {
        LinkUnspec::new_with_index(self.index(name))
    }

    pub fn set_up(&self, name: &str) {
        self.set_link(self.link(name).up().build());
    }

    pub fn set_down(&self, name: &str) {
        self.set_link(self.link(name).down().build());
    }

    pub fn set_mtu(&self, name: &str, mtu: u32) {
        self.set_link(self.link(name).mtu(mtu).build());
    }

    /// Renames an interface, which must be down on kernels before 6.2.
    pub fn rename(&self, name: &str, to: &str) {
        self.set_link(self.link(name).name(to).build());
    }

    /// Enslaves an interface to a bridge, bond or VRF.
    pub fn set_master(&self, name: &str, master: &str) {
        self.set_link(self.link(name).controller(self.index(master)).build());
    }

    /// Moves an interface to another namespace, where it is down.
    pub fn move_to(&self, name: &str, other: &Self) {
        self.set_link(self.link(name).setns_by_fd(other.file.as_raw_fd()).build());
    }

    pub fn delete_link(&self, name: &str) {
        let link = self.link(name).build();
        self.request(RouteNetlinkMessage::DelLink(link), 0);
    }

    /// The index of an interface.
    pub fn index(&self, name: &str) -> u32 {
        self.interface(name).index
    }

    /// The Ethernet address of an interface.
    pub fn mac(&self, name: &str) -> [u8; 6] {
        self.interface(name).mac.expect("an Ethernet address")
    }

    /// All about an interface.
    pub fn interface(&self, name: &str) -> interface::Interface {
        self.enter(|| interface::by_name(name).unwrap())
    }

    /// Adds an address with its prefix length, such as `10.0.0.1/24`, and waits until it can be used,
    /// which for IPv6 takes a moment after the interface came up.
    pub fn add_address(&self, name: &str, address: &str) {
        let net: IpNet = address.parse().expect("an address with a prefix length");
        let mut message = AddressMessage::default();
        message.header.family = match net {
            IpNet::V4(_) => AddressFamily::Inet,
            IpNet::V6(_) => AddressFamily::Inet6,
        };
        message.header.index = self.index(name);
        message.header.prefix_len = net.prefix_len();
        message.attributes = vec![
            AddressAttribute::Address(net.addr()),
            AddressAttribute::Local(net.addr()),
            // Nobody else has it, and waiting to be sure takes two seconds.
            AddressAttribute::Flags(AddressFlags::Nodad),
        ];
        self.request(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
        );
        if self.interface(name).is_up {
            self.wait_for_address(net.addr());
        }
    }

    fn wait_for_address(&self, address: IpAddr) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let host = IpNet::from(address);
        while !self.enter(|| local_address::local_prefixes().unwrap().contains(&host)) {
            assert!(Instant::now() < deadline, "{address} never became usable");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Adds a route; [`RouteMessageBuilder`] describes it.
    pub fn add_route(&self, route: RouteMessage) {
        self.request(
            RouteNetlinkMessage::NewRoute(route),
            NLM_F_CREATE | NLM_F_EXCL,
        );
    }

    /// Sends what no other route takes through `gateway`.
    pub fn add_default_route(&self, gateway: &str) {
        let route = match gateway.parse().expect("an address") {
            IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(gateway)
                .build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new()
                .gateway(gateway)
                .build(),
        };
        self.add_route(route);
    }

    /// Sets a sysctl of this namespace, such as `net/ipv4/ip_forward`.
    pub fn sysctl(&self, path: &str, value: &str) {
        let path = Path::new("/proc/sys").join(path);
        self.enter(|| fs::write(&path, value))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Makes any other request to rtnetlink in this namespace.
    pub fn request(&self, message: RouteNetlinkMessage, flags: u16) {
        let description = format!("{message:?}");
        self.enter(|| Netlink::route()?.request(message, flags))
            .unwrap_or_else(|error| panic!("{error}: {description}"));
    }
}

impl Default for Netns {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Some(path) = &self.name {
            let _ = umount2(path, MntFlags::MNT_DETACH);
            let _ = fs::remove_file(path);
        }
    }
}

fn queue_attributes(queues: Option<Queues>) -> Vec<LinkAttribute> {
    queues.map_or_else(Vec::new, |Queues { rx, tx }| {
        vec![
            LinkAttribute::NumRxQueues(rx),
            LinkAttribute::NumTxQueues(tx),
        ]
    })
}
