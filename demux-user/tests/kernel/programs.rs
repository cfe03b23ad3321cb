//! Every program of the object, loaded and weighed.

use std::{
    fs,
    io::ErrorKind,
    net::{TcpListener, UdpSocket},
    os::fd::AsFd as _,
};

use demux_common::{
    address::{ANY_V6, Family},
    binding::{Binding, NAME_LEN, Target},
    layout::program,
    protocol::Protocol,
};
use demux_user::{
    attach, bpf, kernel, object,
    owned::{self, Hooks},
    tables::{Access, Tables},
};

use crate::{
    live::Live,
    table::{check::Subject as _, world::dropping},
};

/// Far below the million that the kernel grants, so that growth is seen in time.
const MOST_INSTRUCTIONS: u32 = 500_000;

#[test]
fn every_program_loads_and_stays_far_below_the_limit_of_the_verifier() {
    Live::run(|live| {
        for name in object::programs().iter().chain(&[program::SENT]) {
            let path = live.instance().paths().program(name);
            let program = bpf::object_get(&path, false).unwrap();
            let info = bpf::program_info(program.as_fd()).unwrap();
            weigh(name, &info);
        }
    });
}

#[test]
fn the_programs_on_bind_load_and_refuse_what_is_owned() {
    // Of the two ports that there are to choose from, one is owned.
    const OWNED: u16 = 40_000;
    const RANGE: &str = "40000 40001";
    let binding = |protocol| Binding {
        address: ANY_V6,
        name: [0; NAME_LEN],
        created: 1,
        ifindex: 0,
        first_port: OWNED,
        last_port: OWNED,
        family: Family::Ipv6,
        protocol,
        prefix_len: 0,
        target: Target::Drop,
        flags: 0,
        reserved: 0,
        next_member: 0,
        set: 0,
        steered_until: 0,
    };
    Live::run(|live| {
        live.prepare(&dropping());
        let paths = live.instance().paths();
        let tables = Tables::open_unchecked(paths, Access::ReadWrite).unwrap();
        let bindings = [(1, binding(Protocol::Tcp)), (2, binding(Protocol::Udp))];
        assert_eq!(owned::renew(paths, &tables, &bindings).unwrap(), None);
        assert_eq!(owned::hooks(paths, &tables).unwrap(), Hooks::Attached);
        for name in program::BIND {
            let link = attach::pinned_link(&paths.bind_link(name))
                .unwrap()
                .unwrap();
            let program = bpf::program_open_by_id(link.program_id).unwrap();
            let info = bpf::program_info(program.as_fd()).unwrap();
            println!(
                "program {name}: {} verified instructions (kernel {})",
                info.verified_instructions,
                kernel::release(),
            );
            assert!(info.verified_instructions < MOST_INSTRUCTIONS);
        }
        for address in ["0.0.0.0", "127.0.0.1", "[::]", "[::1]"] {
            let owned = format!("{address}:{OWNED}");
            let error = UdpSocket::bind(&owned).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse, "{owned}: {error}");
            let error = TcpListener::bind(&owned).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse, "{owned}: {error}");
            UdpSocket::bind(format!("{address}:40001")).unwrap();
        }
        // That of the namespace which this thread is in.
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", RANGE).unwrap();
        for address in ["0.0.0.0:0", "[::]:0", "127.0.0.1:0"] {
            for _ in 0..32 {
                match UdpSocket::bind(address) {
                    Ok(socket) => assert_eq!(socket.local_addr().unwrap().port(), 40_001),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}"),
                }
            }
        }
        assert_eq!(owned::renew(paths, &tables, &[]).unwrap(), None);
        assert_eq!(owned::hooks(paths, &tables).unwrap(), Hooks::Unneeded);
        UdpSocket::bind(("::", OWNED)).unwrap();
    });
}

#[test]
fn the_programs_for_connect_load_upon_the_maps_of_an_instance() {
    Live::run(|live| {
        let paths = live.instance().paths();
        let tables = Tables::open_unchecked(paths, Access::ReadOnly).unwrap();
        let mut ebpf = object::open(paths, &tables).unwrap();
        for name in [program::CONNECT_V4, program::CONNECT_V6] {
            let program = object::load_unpinned(&mut ebpf, name).unwrap();
            let info = bpf::program_info(program.fd().unwrap().as_fd()).unwrap();
            weigh(name, &info);
        }
    });
}

fn weigh(name: &str, info: &bpf::ProgramInfo) {
    println!(
        "program {name}: {} verified instructions, {}/{} xlated/jited bytes (kernel {})",
        info.verified_instructions,
        info.translated_size,
        info.jited_size,
        kernel::release(),
    );
    assert!(info.verified_instructions > 0);
    assert!(info.verified_instructions < MOST_INSTRUCTIONS);
}
