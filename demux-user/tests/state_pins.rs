//! The pins: all that demux keeps, who may see them, and what happens without them.

mod common;

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use common::{
    demux::Demux,
    egress::on_egress,
    netns::Netns,
    pair::{FAMILIES, Family, HOST, Pair},
    sockets::{connect, listen, talk, udp_to},
    wait::wait_for,
};
use demux_common::layout::{map, program};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn maps_are_for_readers_and_programs_and_links_for_their_owner() {
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    let demux = Demux::new(&netns);
    demux.ok("load v0 v1 --max-connections 64");
    let directory = demux.directory();
    let group = fs::read_to_string("/etc/group")
        .unwrap()
        .lines()
        .find_map(|line| {
            line.strip_prefix("demux:x:")?
                .split(':')
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0);
    for path in [demux.bpffs().join("demux"), directory.clone()] {
        assert_eq!(
            (mode(&path), fs::metadata(&path).unwrap().gid()),
            (0o750, group)
        );
    }
    for name in map::ALL {
        let path = directory.join(name);
        assert_eq!(
            (mode(&path), fs::metadata(&path).unwrap().gid()),
            (0o640, group),
            "{name}"
        );
    }
    for name in map::PRIVATE {
        assert_eq!(mode(&directory.join(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&directory.join("progs").join(program::INGRESS)), 0o600);
    assert_eq!(mode(&directory.join("progs").join(program::EGRESS)), 0o600);
    assert_eq!(mode(&directory.join("progs").join(program::EXPLAIN)), 0o640);
    let links = directory.join("links");
    let links: Vec<_> = fs::read_dir(links)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(links.len(), 4);
    for link in links {
        assert_eq!(mode(&link), 0o600);
    }
    // The name says which namespace it is of, and nothing else is pinned.
    let cookie = netns.enter(|| {
        demux_user::netns::NetworkNamespace::current()
            .unwrap()
            .cookie()
    });
    assert_eq!(
        directory.file_name().unwrap().to_str().unwrap(),
        cookie.to_string()
    );
    let mut names: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| !["progs", "links", "names"].contains(&name.as_str()));
    names.sort_unstable();
    let mut expected = [map::ALL, map::PRIVATE].concat();
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[test]
fn removing_the_pins_by_hand_undoes_everything() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --default drop --max-connections 64"));
    demux.ok("bind tcp :22 --to drop");
    let status = demux.item("status");
    let directory = Path::new(status["path"].as_str().unwrap());
    assert_eq!(directory, demux.directory());
    let shown = demux.ok("status").stdout;
    assert!(
        shown.contains(&format!("rm -r {}", directory.display())),
        "{shown}"
    );

    fs::remove_dir_all(directory).unwrap();
    // The kernel detaches in its own time.
    wait_for("the programs to be detached", || {
        pair.host.interface(HOST).xdp.is_none() && on_egress(&pair.host, HOST).is_empty()
    });
    wait_for("the port to be free", || {
        let free = |family: Family| {
            pair.host
                .enter(|| TcpListener::bind(family.any(22)).is_ok())
        };
        FAMILIES.into_iter().all(free)
    });
    for family in FAMILIES {
        let listener = listen(&pair.host, family.any(22));
        let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(22));
        talk(&mut client, &mut server);
        let client = udp_to(&pair.peer, family.any(0), family.at_host(9));
        client.send(b"anybody?").unwrap();
        let error = client.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    demux.refused("status", 3, "not_loaded");
    demux.ok(&format!("load {HOST} --max-connections 64"));
}

#[test]
fn what_is_attached_by_a_link_is_not_detached_by_ip() {
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    let demux = Demux::new(&netns);
    demux.ok("load v0 --max-connections 64");
    let shown = demux.ok("status").stdout;
    assert!(!shown.is_empty());
    let output = netns.enter(|| {
        std::process::Command::new("ip")
            .args(["link", "set", "v0", "xdp", "off"])
            .output()
            .expect("the ip command")
    });
    assert!(!output.status.success());
    assert!(netns.interface("v0").xdp.is_some());
    assert_eq!(demux.item("status")["interfaces"][0]["attached"], true);
}
