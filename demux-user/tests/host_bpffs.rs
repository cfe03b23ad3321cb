//! The BPF file system on the running kernel.

mod common;

use std::{fs, os::unix::fs::PermissionsExt as _, thread};

use common::{bpffs::TemporaryBpfFs, netns::Netns};
use demux_user::bpffs::BpfFs;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

/// What `ip netns exec` does to a process before it runs the command.
fn as_ip_netns_exec_does(work: impl FnOnce() + Send) {
    thread::scope(|scope| {
        scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let all = MsFlags::MS_SLAVE | MsFlags::MS_REC;
            mount(None::<&str>, "/", None::<&str>, all, None::<&str>).unwrap();
            umount2("/sys", MntFlags::MNT_DETACH).unwrap();
            mount(
                Some("sysfs"),
                "/sys",
                Some("sysfs"),
                MsFlags::empty(),
                None::<&str>,
            )
            .unwrap();
            work();
        });
    });
}

#[test]
fn pins_that_would_vanish_with_ip_netns_exec_are_refused() {
    let network = Netns::named();
    network.enter(|| {
        as_ip_netns_exec_does(|| {
            let namespace = network.selector();
            for result in [BpfFs::find(None), BpfFs::find_or_mount(None)] {
                let error = result.unwrap_err();
                assert_eq!((error.code(), error.exit_status()), ("private_bpffs", 5));
                let hint = error.hint().unwrap();
                assert!(hint.contains(&format!("demux -N {namespace} ")), "{hint}");
            }
            // Also where somebody has mounted one there.
            mount(
                Some("bpf"),
                BpfFs::DEFAULT,
                Some("bpf"),
                MsFlags::empty(),
                None::<&str>,
            )
            .unwrap();
            assert_eq!(BpfFs::find(None).unwrap_err().code(), "private_bpffs");
            // And where it is ours to mount, elsewhere: nothing stays mounted.
            let directory = tempfile::tempdir().unwrap();
            let error = BpfFs::find_or_mount(Some(directory.path())).unwrap_err();
            assert_eq!(error.code(), "private_bpffs");
            assert_eq!(
                BpfFs::find(Some(directory.path())).unwrap_err().code(),
                "not_loaded"
            );
        });
    });
}

#[test]
fn a_bpf_file_system_is_mounted_once_and_found_again() {
    let temporary = TemporaryBpfFs::new();
    let found = BpfFs::find(Some(temporary.path())).unwrap();
    assert_eq!(&found, temporary.bpffs());
    assert_eq!(found.path(), temporary.path());
    assert_eq!(
        fs::metadata(temporary.path()).unwrap().permissions().mode() & 0o777,
        0o755
    );
    let again = BpfFs::find_or_mount(Some(temporary.path())).unwrap();
    assert_eq!(again, found);
    // A directory in it is one too.
    let inner = temporary.path().join("inner");
    fs::create_dir(&inner).unwrap();
    assert!(BpfFs::find(Some(&inner)).is_ok());
}
