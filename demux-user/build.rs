//! Embeds the BPF object that `cargo xtask build` leaves in the target directory.
//!
//! Without one an empty stub is embedded, so that plain `cargo check`, clippy and rust-analyzer need
//! no BPF toolchain; such a binary says at run time what it lacks.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn main() {
    println!("cargo::rerun-if-env-changed=DEMUX_BPF_OBJECT");
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let object =
        env::var_os("DEMUX_BPF_OBJECT").map_or_else(|| built_object(&out_dir), PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    let embedded = out_dir.join("demux.o");
    let bytes = if object.is_file() {
        fs::read(&object)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", object.display()))
    } else {
        Vec::new()
    };
    fs::write(&embedded, &bytes)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", embedded.display()));
    println!(
        "cargo::rustc-env=DEMUX_BPF_BUILD={}",
        checksum(&bytes).max(1)
    );
}

/// FNV-1a: tells one object from the next.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// `bpf/demux.o` in the workspace's own target directory: other target directories, such as that
/// of a static test build, stand beside it or within it.
fn built_object(out_dir: &Path) -> PathBuf {
    out_dir
        .ancestors()
        .map(|directory| directory.join("bpf/demux.o"))
        .find(|object| object.is_file())
        .unwrap_or_else(|| {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
                .parent()
                .expect("the crate lies in the workspace");
            workspace.join("target/bpf/demux.o")
        })
}
