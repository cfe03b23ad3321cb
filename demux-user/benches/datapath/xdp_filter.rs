//! xdp-filter on an interface of its own, matching a TCP port.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::Path,
    process::Command,
};

use demux_user::{bpf, interface};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Loads xdp-filter with some of its features on an interface of the present namespace, lets it
/// pass TCP to `port` and nothing else, and returns its program.
///
/// It is told to do without the dispatcher of libxdp, which would only cost it more.
pub(crate) fn load(
    program: &Path,
    interface: &str,
    features: &str,
    port: u16,
) -> Result<OwnedFd, String> {
    let load = [
        "load",
        interface,
        "--policy",
        "deny",
        "--features",
        features,
    ];
    let port = port.to_string();
    // The port is entered through a pin, so both in one set of mounts.
    let script = r#"program=$1 && shift && port=$1 && shift && "$program" "$@" && exec "$program" port "$port" --proto tcp"#;
    let mut command = Command::new("sh");
    command
        .args(["-c", script, "sh"])
        .arg(program)
        .arg(port)
        .args(load)
        .env("LIBXDP_SKIP_DISPATCHER", "1");
    // SAFETY: the closure only makes system calls.
    unsafe { command.pre_exec(private_bpf_file_system) };
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, complaint.trim()));
    }
    let id = interface::by_name(interface)
        .map_err(|error| error.to_string())?
        .xdp
        .ok_or("it has attached nothing")?
        .program_id;
    bpf::program_open_by_id(id).map_err(|error| format!("program {id}: {error}"))
}

/// xdp-filter pins its maps at a fixed place.
fn private_bpf_file_system() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let all = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, all, None::<&str>)?;
    mount(
        Some("bpf"),
        "/sys/fs/bpf",
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )?;
    Ok(())
}
