//! The bpf(2) calls against the running kernel.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
};

use aya_obj::generated::{BPF_F_NO_PREALLOC, bpf_attach_type, bpf_link_type, bpf_map_type};
use common::{
    bpf::{GENERIC, attach_sk_lookup, attach_xdp, map, sk_lookup_program, xdp_program},
    bpffs::TemporaryBpfFs,
    netns::Netns,
};
use demux_user::bpf::{self, BatchReader};

const XDP_DROP: u8 = 1;

/// What a map holds, read by batches.
fn read(map: BorrowedFd<'_>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut entries = BTreeMap::new();
    BatchReader::new(map)
        .unwrap()
        .for_each(|key, value| {
            let earlier = entries.insert(key.to_vec(), value.to_vec());
            assert_eq!(earlier, None, "{key:?} was read twice");
        })
        .unwrap();
    entries
}

fn fill(map: BorrowedFd<'_>, count: u32) -> BTreeMap<Vec<u8>, Vec<u8>> {
    (0..count)
        .map(|number| {
            let key = number.to_ne_bytes().to_vec();
            let value = (u64::from(number) * 3).to_ne_bytes().to_vec();
            bpf::map_update(map, &key, &value, 0).unwrap();
            (key, value)
        })
        .collect()
}

#[test]
fn elements_are_written_read_and_deleted() {
    let map = map(bpf_map_type::BPF_MAP_TYPE_HASH, 4, 8, 10, 0);
    let map = map.as_fd();
    let (key, value) = (7_u32.to_ne_bytes(), 9_u64.to_ne_bytes());
    let mut found = [0; 8];
    assert!(!bpf::map_lookup(map, &key, &mut found).unwrap());
    bpf::map_update(map, &key, &value, 0).unwrap();
    assert!(bpf::map_lookup(map, &key, &mut found).unwrap());
    assert_eq!(found, value);
    let mut first = [0; 4];
    assert!(bpf::map_get_next_key(map, None, &mut first).unwrap());
    assert_eq!(first, key);
    assert!(!bpf::map_get_next_key(map, Some(&key), &mut first).unwrap());
    assert!(bpf::map_delete(map, &key).unwrap());
    assert!(!bpf::map_delete(map, &key).unwrap());
    assert!(!bpf::map_get_next_key(map, None, &mut first).unwrap());
}

#[test]
fn batches_read_every_entry_of_every_kind_of_map_once() {
    let kinds = [
        (bpf_map_type::BPF_MAP_TYPE_HASH, 0),
        (bpf_map_type::BPF_MAP_TYPE_HASH, BPF_F_NO_PREALLOC),
        (bpf_map_type::BPF_MAP_TYPE_LRU_HASH, 0),
        (bpf_map_type::BPF_MAP_TYPE_ARRAY, 0),
    ];
    for (kind, flags) in kinds {
        // More than one batch holds.
        let map = map(kind, 4, 8, 50_000, flags);
        let written = fill(map.as_fd(), 40_000);
        let found = read(map.as_fd());
        if kind as u32 == bpf_map_type::BPF_MAP_TYPE_ARRAY as u32 {
            assert_eq!(found.len(), 50_000);
        } else {
            assert_eq!(found.len(), 40_000, "{kind:?}");
        }
        assert!(
            written
                .iter()
                .all(|(key, value)| found.get(key) == Some(value)),
            "{kind:?}"
        );
    }
}

#[test]
fn an_empty_map_has_no_batches() {
    let map = map(bpf_map_type::BPF_MAP_TYPE_HASH, 4, 8, 10, 0);
    assert!(
        BatchReader::new(map.as_fd())
            .unwrap()
            .next_batch()
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_crowded_bucket_makes_room_for_itself() {
    // Values so large that a batch begins with room for one or two entries only.
    let map = map(bpf_map_type::BPF_MAP_TYPE_HASH, 4, 200_000, 64, 0);
    for number in 0..64_u32 {
        bpf::map_update(
            map.as_fd(),
            &number.to_ne_bytes(),
            &vec![number as u8; 200_000],
            0,
        )
        .unwrap();
    }
    let found = read(map.as_fd());
    assert_eq!(found.len(), 64);
    assert!(found.iter().all(|(key, value)| value[199_999] == key[0]));
}

#[test]
fn a_value_per_cpu_is_eight_bytes_apart() {
    for kind in [
        bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY,
        bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH,
    ] {
        let map = map(kind, 4, 4, 3, 0);
        let info = bpf::map_info(map.as_fd()).unwrap();
        let cpus = bpf::possible_cpus().unwrap();
        assert!(info.is_per_cpu());
        assert_eq!(info.cpu_stride(), 8);
        assert_eq!(info.value_stride().unwrap(), 8 * cpus);
        let value: Vec<u8> = (0..cpus)
            .flat_map(|cpu| [10 + cpu as u8, 0, 0, 0, 0, 0, 0, 0])
            .collect();
        for key in 0..3_u32 {
            bpf::map_update(map.as_fd(), &key.to_ne_bytes(), &value, 0).unwrap();
        }
        let found = read(map.as_fd());
        assert_eq!(found.len(), 3);
        assert!(found.values().all(|found| *found == value));
    }
}

#[test]
fn maps_without_batches_are_read_key_by_key() {
    // A map of devices has keys and values but no batches on any kernel.
    let map = map(bpf_map_type::BPF_MAP_TYPE_DEVMAP_HASH, 4, 4, 16, 0);
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    netns.enter(|| {
        let indexes = [netns.index("v0"), netns.index("v1")];
        for (key, index) in (5_u32..).zip(indexes) {
            bpf::map_update(map.as_fd(), &key.to_ne_bytes(), &index.to_ne_bytes(), 0).unwrap();
        }
        let found: Vec<_> = read(map.as_fd()).into_values().collect();
        assert_eq!(found, indexes.map(|index| index.to_ne_bytes().to_vec()));
    });
}

#[test]
fn a_batch_is_written_up_to_its_first_error() {
    let map = map(bpf_map_type::BPF_MAP_TYPE_HASH, 4, 8, 4, 0);
    let keys: Vec<u8> = (0..6_u32).flat_map(u32::to_ne_bytes).collect();
    let values: Vec<u8> = (0..6_u64).flat_map(u64::to_ne_bytes).collect();
    let (done, result) = bpf::map_update_batch(map.as_fd(), &keys[..12], &values[..24], 3, 0);
    assert_eq!((done, result.is_ok()), (3, true));
    let (done, result) = bpf::map_update_batch(map.as_fd(), &keys, &values, 6, 0);
    assert_eq!(done, 4);
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::E2BIG));
    assert_eq!(read(map.as_fd()).len(), 4);
    assert_eq!(bpf::map_update_batch(map.as_fd(), &[], &[], 0, 0).0, 0);
}

#[test]
fn a_pin_opened_read_only_can_be_read_and_not_written() {
    let bpffs = TemporaryBpfFs::new();
    let path = bpffs.path().join("MAP");
    let map = map(bpf_map_type::BPF_MAP_TYPE_HASH, 4, 8, 10, 0);
    let written = fill(map.as_fd(), 3);
    bpf::object_pin(map.as_fd(), &path).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = bpf::object_pin(map.as_fd(), &path).unwrap_err();
    assert_eq!(again.raw_os_error(), Some(libc::EEXIST));
    let dotted = bpf::object_pin(map.as_fd(), &bpffs.path().join("a.b")).unwrap_err();
    assert_eq!(dotted.raw_os_error(), Some(libc::EPERM));

    let reader = bpf::object_get(&path, true).unwrap();
    assert_eq!(read(reader.as_fd()), written);
    let refused = bpf::map_update(reader.as_fd(), &[0; 4], &[0; 8], 0).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    let writer = bpf::object_get(&path, false).unwrap();
    bpf::map_update(writer.as_fd(), &[0; 4], &[0; 8], 0).unwrap();
    let absent = bpf::object_get(&bpffs.path().join("NONE"), true).unwrap_err();
    assert_eq!(absent.raw_os_error(), Some(libc::ENOENT));
}

#[test]
fn a_map_describes_itself() {
    let map = map(
        bpf_map_type::BPF_MAP_TYPE_HASH,
        4,
        8,
        1000,
        BPF_F_NO_PREALLOC,
    );
    let info = bpf::map_info(map.as_fd()).unwrap();
    assert_eq!(info.name, "test_map");
    assert_eq!(info.map_type, bpf_map_type::BPF_MAP_TYPE_HASH as u32);
    assert_eq!(
        (info.key_size, info.value_size, info.max_entries),
        (4, 8, 1000)
    );
    assert_eq!(info.flags, BPF_F_NO_PREALLOC);
    assert!(info.id > 0 && bpf::map_memory(map.as_fd()).unwrap() > 0);
    let file = fs::File::open("/dev/null").unwrap();
    let refused = bpf::map_info(file.as_fd()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn a_program_describes_itself_and_is_found_by_its_id() {
    let program = xdp_program("test_drop", XDP_DROP);
    let info = bpf::program_info(program.as_fd()).unwrap();
    assert_eq!(info.name, "test_drop");
    assert_eq!(info.verified_instructions, 2);
    assert!(info.id > 0 && info.jited_size > 0 && info.load_time > 0);
    assert_ne!(info.tag, [0; 8]);
    let again = bpf::program_open_by_id(info.id).unwrap();
    assert_eq!(bpf::program_info(again.as_fd()).unwrap(), info);
    drop((program, again));
    let gone = bpf::program_open_by_id(info.id).unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::ENOENT));
}

#[test]
fn a_link_outlives_its_device_and_says_so() {
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    let program = xdp_program("test_drop", XDP_DROP);
    let program_id = bpf::program_info(program.as_fd()).unwrap().id;
    let index = netns.index("v0");
    let link: OwnedFd = netns.enter(|| attach_xdp(program.as_fd(), index, GENERIC));
    let info = bpf::link_info(link.as_fd()).unwrap();
    assert_eq!(info.program_id, program_id);
    assert_eq!(info.link_type, bpf_link_type::BPF_LINK_TYPE_XDP as u32);
    assert_eq!(info.ifindex, Some(index));
    assert!(bpf::link_ids().unwrap().contains(&info.id));
    let again = bpf::link_open_by_id(info.id).unwrap();
    assert_eq!(bpf::link_info(again.as_fd()).unwrap(), info);

    let attached = netns.interface("v0").xdp.unwrap();
    assert_eq!(
        (attached.mode.as_str(), attached.program_id),
        ("generic", program_id)
    );
    assert_eq!(attached.program_name().as_deref(), Some("test_drop"));
    assert_eq!(attached.link_id(index), Some(info.id));
    assert_eq!(netns.interface("v1").xdp, None);

    netns.delete_link("v0");
    assert_eq!(bpf::link_info(link.as_fd()).unwrap().ifindex, Some(0));
}

#[test]
fn a_program_runs_on_a_frame_of_ours() {
    let program = xdp_program("test_drop", XDP_DROP);
    let frame: Vec<u8> = (0..64).collect();
    let outcome = bpf::test_run(program.as_fd(), &frame, 256, None, 1).unwrap();
    assert_eq!(outcome.retval, u32::from(XDP_DROP));
    assert_eq!(outcome.data_out, frame);
    let blind = bpf::test_run(program.as_fd(), &frame, 0, None, 100).unwrap();
    assert!(blind.data_out.is_empty());
    let short = bpf::test_run(program.as_fd(), &frame[..13], 256, None, 1).unwrap_err();
    assert_eq!(short.raw_os_error(), Some(libc::EINVAL));
    let tight = bpf::test_run(program.as_fd(), &frame, 10, None, 1).unwrap_err();
    assert_eq!(tight.raw_os_error(), Some(libc::ENOSPC));
}

#[test]
fn a_program_runs_as_if_the_frame_came_in_through_an_interface() {
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    let index = netns.index("v0");
    let program = xdp_program("test_drop", XDP_DROP);
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = |index: u32| -> Vec<u8> {
        [0, 64, 0, index, 0, 0]
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .collect()
    };
    netns.enter(|| {
        let run = |index| bpf::test_run(program.as_fd(), &[0; 64], 64, Some(&context(index)), 1);
        assert_eq!(run(index).unwrap().retval, u32::from(XDP_DROP));
        assert_eq!(
            run(index + 77).unwrap_err().raw_os_error(),
            Some(libc::ENODEV)
        );
    });
}

#[test]
fn programs_on_a_namespace_are_counted() {
    let netns = Netns::new();
    let count = || bpf::netns_program_count(netns.as_fd(), bpf_attach_type::BPF_SK_LOOKUP).unwrap();
    assert_eq!(count(), 0);
    let program = sk_lookup_program();
    let link = attach_sk_lookup(program.as_fd(), netns.as_fd());
    assert_eq!(count(), 1);
    drop(link);
    assert_eq!(count(), 0);
}
