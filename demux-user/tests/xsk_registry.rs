//! Who has which set of sockets: claims, slots, and those whose owners are gone.

mod common;

use std::{
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
};

use common::{
    demux::Demux,
    pair::{HOST, Pair},
    wait::wait_for,
};
use demux_user::{
    Error, Result,
    bpffs::BpfFs,
    process::Process,
    xsk::{
        area::Area,
        queue::{Place, QueueId},
        registry::{self, Claim, Wish},
        socket::{Binding, CopyMode, Socket},
    },
};
use serde_json::json;

/// Slots for sockets in an instance.
const SLOTS: u16 = 1024;

fn loaded(pair: &Pair) -> Demux<'_> {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 64"));
    demux.ok("bind udp :53 --to xsk:dns --name dns");
    demux
}

fn this() -> Process {
    Process::current().unwrap()
}

/// A wish for a set on the host's interface.
fn wish(pair: &Pair, name: &str, owner: Process, queues: u16) -> Wish {
    Wish {
        name: name.parse().unwrap(),
        owner,
        uid: 0,
        holder: owner,
        interfaces: vec![(pair.host.index(HOST), queues)],
        longest: 2048,
    }
}

fn claim(demux: &Demux<'_>, wish: &Wish) -> Result<Claim> {
    demux.netns().enter(|| {
        let bpffs = BpfFs::find(Some(demux.bpffs())).unwrap();
        registry::claim(&bpffs, wish)
    })
}

/// A process that does nothing, until it is killed.
fn idle() -> (Child, Process) {
    let child = Command::new("sleep")
        .arg("600")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process::find(child.id()).unwrap();
    (child, process)
}

/// A socket that is bound to a queue of the host's interface, and its memory.
fn bound(pair: &Pair, queue: u32) -> (Socket, Area) {
    let place = Place {
        id: QueueId {
            ifindex: pair.host.index(HOST),
            queue,
        },
        interface: HOST.to_owned(),
    };
    let how = Binding {
        copy: CopyMode::Copy,
        multi_buffer: false,
    };
    pair.host.enter(|| {
        let area = Area::new(2048, 64).unwrap();
        let socket = Socket::new().unwrap();
        socket.register(&area).unwrap();
        socket.fill(64).unwrap();
        socket.completion(64).unwrap();
        socket.rx(64).unwrap();
        socket.bind(&place, how).unwrap();
        (socket, area)
    })
}

/// What becomes of a datagram to the port of the set.
fn explained(demux: &Demux<'_>) -> (String, String) {
    let row = demux.item("explain udp from 10.0.0.1:4000 to 10.0.0.2:53");
    let word = |key: &str| row[key].as_str().unwrap().to_owned();
    (word("verdict"), word("reason"))
}

fn words(verdict: &str, reason: &str) -> (String, String) {
    (verdict.to_owned(), reason.to_owned())
}

#[test]
fn a_socket_that_is_closed_behind_demux_gives_way_to_the_fallback() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let claim = claim(&demux, &wish(&pair, "dns", this(), 1)).unwrap();
    assert_eq!(explained(&demux), words("drop", "no-target"));
    let (socket, area) = bound(&pair, 0);
    let ifindex = pair.host.index(HOST);
    claim.publish(ifindex, 0, socket.as_fd(), false).unwrap();
    assert_eq!(explained(&demux), words("redirect", "bound"));
    let row = demux.item("xsks");
    assert_eq!(
        (&row["access"], &row["published"], &row["zero_copy"]),
        (&json!("direct"), &json!(true), &json!(false)),
        "{row}"
    );
    assert_eq!(row["fill"], 0, "{row}");
    assert_eq!(row["rx_dropped"], 0, "{row}");

    drop((socket, area));
    assert_eq!(explained(&demux), words("drop", "no-target"));
    // The claim stands, and its socket is not to be found.
    let row = demux.item("xsks");
    assert_eq!(
        (&row["access"], &row["fill"]),
        (&json!("direct"), &json!(null))
    );
    drop(claim);
    assert_eq!(demux.item("xsks")["access"], "free");
}

#[test]
fn a_set_has_one_living_owner() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let (mut child, owner) = idle();
    let theirs = claim(&demux, &wish(&pair, "dns", owner, 1)).unwrap();
    let refused = claim(&demux, &wish(&pair, "dns", this(), 1)).unwrap_err();
    assert!(
        matches!(&refused, Error::SocketSetTaken { pid, process, .. }
            if *pid == child.id() && process == "sleep"),
        "{refused}"
    );
    assert_eq!(demux.item("xsks")["pid"], child.id());

    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(demux.item("xsks")["access"], "dead");
    let ours = claim(&demux, &wish(&pair, "dns", this(), 1)).unwrap();
    assert!(ours.generation() > theirs.generation());
    // Whoever was taken for dead publishes nothing any more, and gives nothing back.
    let (socket, _area) = bound(&pair, 0);
    let ifindex = pair.host.index(HOST);
    let lost = theirs.publish(ifindex, 0, socket.as_fd(), false);
    assert!(matches!(lost, Err(Error::SocketSetLost(name)) if name == "dns"));
    assert_eq!(explained(&demux), words("drop", "no-target"));
    drop(theirs);
    assert_eq!(demux.item("xsks")["access"], "direct");
    ours.publish(ifindex, 0, socket.as_fd(), false).unwrap();
    assert_eq!(explained(&demux), words("redirect", "bound"));
}

#[test]
fn claims_that_cannot_be_are_refused() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let ours = claim(&demux, &wish(&pair, "dns", this(), 2)).unwrap();
    let ifindex = pair.host.index(HOST);
    let (socket, _area) = bound(&pair, 0);
    for (ifindex, queue) in [(ifindex, 2), (ifindex, u32::MAX), (ifindex + 1000, 0)] {
        let refused = ours.publish(ifindex, queue, socket.as_fd(), false);
        assert!(
            matches!(&refused, Err(Error::InvalidArgument { what, .. }) if *what == "receive queue"),
            "{refused:?}"
        );
    }
    // What is no socket of AF_XDP is none.
    let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    ours.publish(ifindex, 0, other.as_fd(), false).unwrap_err();
    assert_eq!(explained(&demux), words("drop", "no-target"));

    let mut strange = wish(&pair, "web", this(), 1);
    strange.interfaces = vec![(ifindex + 1000, 1)];
    let refused = claim(&demux, &strange).unwrap_err();
    assert!(matches!(refused, Error::NotAttached(_)), "{refused}");
    for interfaces in [Vec::new(), vec![(ifindex, 1); 5]] {
        strange.interfaces = interfaces;
        let refused = claim(&demux, &strange).unwrap_err();
        assert!(
            matches!(refused, Error::InvalidArgument { .. }),
            "{refused}"
        );
    }
}

#[test]
fn slots_are_given_out_once_and_come_back() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let most = claim(&demux, &wish(&pair, "most", this(), SLOTS - 4)).unwrap();
    let rest = claim(&demux, &wish(&pair, "rest", this(), 4)).unwrap();
    let refused = claim(&demux, &wish(&pair, "more", this(), 1)).unwrap_err();
    assert!(
        matches!(refused, Error::SocketSlotsFull { wanted: 1, max } if max == u32::from(SLOTS)),
        "{refused}"
    );
    assert!(refused.hint().unwrap().contains("ethtool"));
    drop(rest);
    let _more = claim(&demux, &wish(&pair, "more", this(), 1)).unwrap();
    let refused = claim(&demux, &wish(&pair, "even", this(), 4)).unwrap_err();
    assert!(
        matches!(refused, Error::SocketSlotsFull { .. }),
        "{refused}"
    );
    // The dead leave theirs too.
    let (mut child, owner) = idle();
    let dead = claim(&demux, &wish(&pair, "dead", owner, 3)).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let _last = claim(&demux, &wish(&pair, "last", this(), 3)).unwrap();
    drop((most, dead));
    wait_for("the set of the dead to be gone", || {
        demux.items("xsks").iter().all(|set| set["name"] != "dead")
    });
}
