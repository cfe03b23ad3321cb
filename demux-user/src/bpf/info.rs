//! What the kernel tells about a map, a program or a link.

use std::{
    fs, io, mem,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya_obj::generated::{
    bpf_cmd, bpf_link_info, bpf_link_type, bpf_map_info, bpf_map_type, bpf_prog_info,
};

use super::{attributes, bpf, name, possible_cpus};

/// A map as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapInfo {
    /// Kernel id.
    pub id: u32,
    /// Name, at most 15 bytes.
    pub name: String,
    /// The kernel's `enum bpf_map_type` as a number.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value, of one CPU where the map is per CPU.
    pub value_size: u32,
    /// Most entries it can hold.
    pub max_entries: u32,
    /// Creation flags, such as `BPF_F_NO_PREALLOC`.
    pub flags: u32,
}

impl MapInfo {
    /// Whether the map holds a value per CPU.
    pub fn is_per_cpu(&self) -> bool {
        [
            bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH,
            bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY,
            bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH,
            bpf_map_type::BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE_DEPRECATED,
        ]
        .iter()
        .any(|&kind| kind as u32 == self.map_type)
    }

    /// The distance in bytes from one CPU's value to the next one's.
    pub fn cpu_stride(&self) -> usize {
        (self.value_size as usize).next_multiple_of(8)
    }

    /// How many bytes a lookup writes: one value, or one for every possible CPU, each rounded up to 8 bytes.
    ///
    /// # Errors
    ///
    /// Where the number of CPUs cannot be read.
    pub fn value_stride(&self) -> io::Result<usize> {
        if self.is_per_cpu() {
            Ok(self.cpu_stride() * possible_cpus()?)
        } else {
            Ok(self.value_size as usize)
        }
    }
}

/// A loaded program as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Kernel id.
    pub id: u32,
    /// Name, at most 15 bytes.
    pub name: String,
    /// The kernel's `enum bpf_prog_type` as a number.
    pub program_type: u32,
    /// Hash of its instructions, in the order the kernel prints the bytes.
    pub tag: [u8; 8],
    /// Instructions the verifier looked at, over all paths; 0 before Linux 5.16.
    pub verified_instructions: u32,
    /// Bytes of machine code.
    pub jited_size: u32,
    /// Bytes of BPF instructions after verification; 0 where the caller may not know.
    pub translated_size: u32,
    /// Nanoseconds since boot at which it was loaded.
    pub load_time: u64,
    /// Times it ran, counted only while run-time statistics are on.
    pub run_count: u64,
    /// Nanoseconds it ran, counted only while run-time statistics are on.
    pub run_time: u64,
}

/// An attachment as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// Kernel id.
    pub id: u32,
    /// Kernel id of the program.
    pub program_id: u32,
    /// The kernel's `enum bpf_link_type` as a number.
    pub link_type: u32,
    /// The device of an XDP or tcx link; 0 means that the device is gone. `None` for other links.
    pub ifindex: Option<u32>,
    /// Where a link of a control group is; `None` for other links.
    pub cgroup: Option<CgroupLink>,
}

/// Where a link of a control group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CgroupLink {
    /// The id of the group; 0 means that the group is gone, or that the link was detached.
    pub id: u64,
    /// The hook: the kernel's `enum bpf_attach_type` as a number.
    pub attach_type: u32,
}

/// Describes a map. The descriptor must be one: the kernel would describe another object as if it were.
///
/// # Errors
///
/// EINVAL where the descriptor is no BPF object.
pub fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    // SAFETY: the kernel answers for a map with this type.
    let info: bpf_map_info = unsafe { object_info(fd) }?;
    Ok(MapInfo {
        id: info.id,
        name: name(&info.name),
        map_type: info.type_,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
        flags: info.map_flags,
    })
}

/// Describes a program. The descriptor must be one: the kernel would describe another object as if it were.
///
/// # Errors
///
/// EINVAL where the descriptor is no BPF object.
pub fn program_info(fd: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    // SAFETY: the kernel answers for a program with this type.
    let info: bpf_prog_info = unsafe { object_info(fd) }?;
    Ok(ProgramInfo {
        id: info.id,
        name: name(&info.name),
        program_type: info.type_,
        tag: info.tag,
        verified_instructions: info.verified_insns,
        jited_size: info.jited_prog_len,
        translated_size: info.xlated_prog_len,
        load_time: info.load_time,
        run_count: info.run_cnt,
        run_time: info.run_time_ns,
    })
}

/// Describes a link. The descriptor must be one: the kernel would describe another object as if it were.
///
/// # Errors
///
/// EINVAL where the descriptor is no BPF object.
pub fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // SAFETY: the kernel answers for a link with this type.
    let info: bpf_link_info = unsafe { object_info(fd) }?;
    let is = |kind: bpf_link_type| info.type_ == kind as u32;
    let details = info.__bindgen_anon_1;
    let ifindex = if is(bpf_link_type::BPF_LINK_TYPE_XDP) {
        // SAFETY: the link's type says which part of the union holds.
        Some(unsafe { details.xdp.ifindex })
    } else if is(bpf_link_type::BPF_LINK_TYPE_TCX) {
        // SAFETY: as above.
        Some(unsafe { details.tcx.ifindex })
    } else {
        None
    };
    let cgroup = is(bpf_link_type::BPF_LINK_TYPE_CGROUP).then(|| {
        // SAFETY: as above.
        let cgroup = unsafe { details.cgroup };
        CgroupLink {
            id: cgroup.cgroup_id,
            attach_type: cgroup.attach_type,
        }
    });
    Ok(LinkInfo {
        id: info.id,
        program_id: info.prog_id,
        link_type: info.type_,
        ifindex,
        cgroup,
    })
}

/// Asks for the information about an object, which begins zeroed, so that no buffer is filled in.
///
/// # Safety
///
/// `T` must be the kernel's information structure for the kind of object behind `fd`,
/// and zero must be a value of it.
unsafe fn object_info<T>(fd: BorrowedFd<'_>) -> io::Result<T> {
    // SAFETY: by contract.
    let mut info: T = unsafe { mem::zeroed() };
    let mut attributes = attributes();
    attributes.info.bpf_fd = fd.as_raw_fd() as u32;
    attributes.info.info_len = size_of::<T>() as u32;
    attributes.info.info = (&raw mut info) as u64;
    // SAFETY: the structure outlives the call, its length is right, and the buffers in it are absent.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info)
}

/// Bytes of memory charged for a map, 0 where the kernel does not say.
///
/// # Errors
///
/// Where the descriptor's file in /proc, which alone shows it, cannot be read.
pub fn map_memory(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    Ok(text
        .lines()
        .find_map(|line| line.strip_prefix("memlock:"))
        .and_then(|bytes| bytes.trim().parse().ok())
        .unwrap_or(0))
}
