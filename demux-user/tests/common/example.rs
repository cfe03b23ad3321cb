// What the examples in the documentation of the library run in: a network namespace of their own,
// where demux is loaded on the loopback interface. Included by each of them.

#[allow(dead_code, reason = "each example uses its part")]
fn example(body: impl FnOnce() -> demux_user::Result<()>) {
    nowhere(|| {
        let bpffs = demux_user::bpffs::BpfFs::find_or_mount(None)?;
        let options = demux_user::load::LoadOptions::default();
        demux_user::load::load(&bpffs, &["lo".to_owned()], &options)?;
        let result = body();
        demux_user::load::unload_all(&bpffs)?;
        result
    });
}

#[allow(dead_code, reason = "each example uses its part")]
fn nowhere(body: impl FnOnce() -> demux_user::Result<()>) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("an example needs root");
    let up = std::process::Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.expect("ip is missing").success());
    body().unwrap_or_else(|error| panic!("{error}"));
}
