//! Instances on the running kernel.

mod common;

use std::{
    fs,
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::Path,
    process,
    sync::mpsc,
    thread,
    time::Duration,
};

use aya_obj::generated::bpf_map_type;
use common::{
    bpf::{self as objects, GENERIC, attach_xdp, xdp_program},
    bpffs::TemporaryBpfFs,
    netns::Netns,
    user::{NOBODY, as_user},
};
use demux_user::{
    Error,
    bpf::{self, BatchReader},
    bpffs::BpfFs,
    state::{self, Instance, Lock, NewInstance, Opened},
};

const ID: u64 = 4711;
const SHORT: Duration = Duration::from_millis(50);

fn begin(bpffs: &BpfFs, id: u64) -> NewInstance {
    match Instance::open_or_create(bpffs, id).unwrap() {
        Opened::New(new) => new,
        Opened::Existing(_) => panic!("there is an instance {id} already"),
    }
}

fn pin_map(path: &Path) {
    let map = objects::map(bpf_map_type::BPF_MAP_TYPE_HASH, 4, 8, 10, 0);
    bpf::object_pin(map.as_fd(), path).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_instance_is_seen_only_when_it_is_complete() {
    let temporary = TemporaryBpfFs::new();
    let bpffs = temporary.bpffs();
    let error = Instance::open(bpffs, ID, Lock::Shared).unwrap_err();
    assert_eq!((error.code(), error.exit_status()), ("not_loaded", 3));

    let new = begin(bpffs, ID);
    pin_map(&new.paths().map("BINDINGS"));
    let program = xdp_program("test_pass", 2);
    bpf::object_pin(program.as_fd(), &new.paths().program("demux_xdp")).unwrap();
    bpf::object_pin(program.as_fd(), &new.paths().program("demux_explain")).unwrap();
    new.share(&new.paths().program("demux_explain")).unwrap();
    assert!(matches!(
        Instance::open(bpffs, ID, Lock::Shared),
        Err(Error::NotLoaded)
    ));
    assert_eq!(state::list(bpffs).unwrap(), [0_u64; 0]);

    let instance = new.publish().unwrap();
    assert!(instance.is_exclusive());
    assert_eq!(instance.id(), ID);
    assert_eq!(state::list(bpffs).unwrap(), [ID]);
    let paths = instance.paths();
    assert_eq!(paths.directory(), temporary.path().join("demux/4711"));
    assert_eq!(paths.map_names().unwrap(), ["BINDINGS"]);
    assert_eq!(
        paths.program_names().unwrap(),
        ["demux_explain", "demux_xdp"]
    );
    assert_eq!(mode(paths.directory()), 0o750);
    assert_eq!(mode(&paths.programs()), 0o750);
    assert_eq!(mode(&paths.map("BINDINGS")), 0o640);
    assert_eq!(mode(&paths.program("demux_xdp")), 0o600);
    assert_eq!(mode(&paths.program("demux_explain")), 0o640);
    drop(instance);
    assert!(
        !Instance::open(bpffs, ID, Lock::Shared)
            .unwrap()
            .is_exclusive()
    );
}

#[test]
fn an_instance_that_is_not_published_leaves_nothing() {
    let temporary = TemporaryBpfFs::new();
    let new = begin(temporary.bpffs(), ID);
    pin_map(&new.paths().map("BINDINGS"));
    let directory = new.paths().directory().to_owned();
    assert!(directory.exists());
    drop(new);
    assert!(!directory.exists());
}

#[test]
fn a_leftover_is_removed_and_a_builder_at_work_is_not_disturbed() {
    let temporary = TemporaryBpfFs::new();
    let bpffs = temporary.bpffs();
    let leftover = temporary.path().join("demux/new-9");
    fs::create_dir_all(leftover.join("links")).unwrap();
    pin_map(&leftover.join("BINDINGS"));
    let new = begin(bpffs, 9);
    assert_eq!(new.paths().map_names().unwrap(), [""; 0]);

    fs::create_dir_all(temporary.path().join("demux/new-8/progs")).unwrap();
    let removed = state::remove_leftovers(bpffs).unwrap();
    assert_eq!(removed, [temporary.path().join("demux/new-8")]);
    assert!(new.paths().directory().exists());
}

#[test]
fn one_creates_and_the_others_open() {
    let temporary = TemporaryBpfFs::new();
    let bpffs = temporary.bpffs();
    let created: u32 = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| match Instance::open_or_create(bpffs, ID).unwrap() {
                    Opened::New(new) => {
                        thread::sleep(Duration::from_millis(100));
                        new.publish().unwrap();
                        1
                    }
                    Opened::Existing(instance) => {
                        assert!(instance.is_exclusive());
                        0
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(created, 1);
    assert_eq!(
        fs::read_dir(temporary.path().join("demux"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn a_writer_excludes_others_and_is_named() {
    let temporary = TemporaryBpfFs::new();
    let bpffs = temporary.bpffs();
    let writer = begin(bpffs, ID).publish().unwrap();
    let error = Instance::open_within(bpffs, ID, Lock::Shared, SHORT).unwrap_err();
    assert_eq!((error.code(), error.exit_status()), ("locked", 5));
    assert!(
        error
            .to_string()
            .contains(&format!("(process {})", process::id())),
        "{error}"
    );
    drop(writer);
    let _reader = Instance::open_within(bpffs, ID, Lock::Shared, SHORT).unwrap();
    let _second = Instance::open_within(bpffs, ID, Lock::Shared, SHORT).unwrap();
    assert!(Instance::open_within(bpffs, ID, Lock::Exclusive, SHORT).is_err());
}

#[test]
fn removal_detaches_and_who_waited_finds_nothing() {
    let temporary = TemporaryBpfFs::new();
    let bpffs = temporary.bpffs();
    let network = Netns::new();
    network.veth("v0", &network, "v1");
    let index = network.index("v0");

    let instance = begin(bpffs, ID).publish().unwrap();
    pin_map(&instance.paths().map("BINDINGS"));
    let program = xdp_program("test_pass", 2);
    let link = network.enter(|| attach_xdp(program.as_fd(), index, GENERIC));
    bpf::object_pin(link.as_fd(), &instance.paths().xdp_link(index)).unwrap();
    drop((program, link));
    assert_eq!(instance.paths().xdp_links().unwrap(), [index]);
    assert!(network.interface("v0").xdp.is_some());

    let (started, start) = mpsc::channel();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            started.send(()).unwrap();
            Instance::open(bpffs, ID, Lock::Exclusive)
        });
        start.recv().unwrap();
        thread::sleep(SHORT);
        instance.remove().unwrap();
        assert!(matches!(waiting.join().unwrap(), Err(Error::NotLoaded)));
    });
    assert_eq!(network.interface("v0").xdp, None);
    assert_eq!(state::list(bpffs).unwrap(), [0_u64; 0]);
}

#[test]
fn members_of_the_group_read_without_any_capability() {
    let temporary = TemporaryBpfFs::new();
    let instance = begin(temporary.bpffs(), ID).publish().unwrap();
    let path = instance.paths().map("BINDINGS");
    pin_map(&path);
    instance.share(&path).unwrap();
    for path in [
        temporary.path(),
        &temporary.path().join("demux"),
        instance.paths().directory(),
        &path,
    ] {
        std::os::unix::fs::chown(path, None, Some(NOBODY)).unwrap();
    }
    fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755)).unwrap();
    drop(instance);

    as_user(NOBODY, || {
        let bpffs = BpfFs::find(Some(temporary.path())).unwrap();
        let instance = Instance::open(&bpffs, ID, Lock::Shared).unwrap();
        let map = bpf::object_get(&instance.paths().map("BINDINGS"), true).unwrap();
        let mut reader = BatchReader::new(map.as_fd()).unwrap();
        assert!(reader.next_batch().unwrap().is_none());
        let refused = bpf::object_get(&path, false).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
    });
}
