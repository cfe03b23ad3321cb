//! What `--keep` leaves behind: the network, and actors in the background that go on talking.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    actors::{Client, Server},
    demux::{Demux, as_root},
    narration::Narrator,
    network::{self, ALICE, BOB, Network, SERVER},
};

/// How long the actors rest between two rounds.
const REST: Duration = Duration::from_millis(500);
/// What they say once all are connected.
const READY: &str = "ready";

/// Leaves `network` up with actors in it, and says how to look around and how to remove it.
///
/// # Errors
/// When the actors cannot be started; the network is removed then.
pub(super) fn leave(network: Network<'_>, demux: &Demux, narrator: Narrator) -> Result<()> {
    let xtask = env::current_exe().context("cannot find the xtask binary")?;
    let mut command = Command::new(xtask);
    command.args(["demo", "--kept-actors"]);
    // Keeps other demos off for as long as the actors live.
    command.stdin(network.lock()?).stdout(Stdio::piped());
    // Whoever waits for the end of our output must not wait for theirs.
    command.stderr(Stdio::null());
    let mut actors = command.spawn().context("cannot start the actors")?;
    let mut said = String::new();
    if let Some(stdout) = actors.stdout.take() {
        BufReader::new(stdout).read_line(&mut said)?;
    }
    ensure!(said.trim() == READY, "the actors cannot start: {said}");
    network.keep();
    narrator.say("");
    narrator.say(
        "The network stays, as --keep asked for. Two clients on alice, one on bob and an ssh session go \
         on talking in the background. Look around, for example with",
    );
    for args in [&["status"][..], &["connections"], &["counters"], &["maps"]] {
        narrator.show(&format!("  {}", demux.pasteable(args)));
    }
    for port in [80, 81] {
        let hello = format!("exec 3<>/dev/tcp/10.0.0.1/{port} && echo hello >&3 && head -1 <&3");
        let command = format!("ip netns exec {BOB} timeout 3 bash -c '{hello}'");
        narrator.show(&format!("  {}", as_root(&command)));
    }
    narrator.say("Remove everything with");
    narrator.show(&network::removal(demux));
    Ok(())
}

/// Is the servers and the clients, until their network is removed.
///
/// # Errors
/// When one of them cannot start; the one line on standard output says why.
pub(super) fn play() -> Result<()> {
    // The terminal that the demo was started from may be closed.
    rustix::process::setsid().context("cannot leave the terminal")?;
    let path = network::path(SERVER);
    let identity = || path.metadata().map(|file| (file.dev(), file.ino())).ok();
    let network = identity();
    let started = start();
    let said = match &started {
        Ok(_) => READY.to_owned(),
        Err(error) => format!("{error:#}"),
    };
    writeln!(io::stdout(), "{said}")?;
    let (_servers, mut clients) = started?;
    while network.is_some() && identity() == network {
        for client in &mut clients {
            // Whoever looks around may bind a range with the port to `drop`.
            let _ = client.ask("hello");
        }
        thread::sleep(REST);
    }
    Ok(())
}

fn start() -> Result<([Server; 2], [Client; 4])> {
    let servers = [Server::start("ssh", 22)?, Server::start("web", 80)?];
    let clients = [
        Client::connect("alice 1", ALICE, 80)?,
        Client::connect("alice 2", ALICE, 80)?,
        Client::connect("bob", BOB, 80)?,
        Client::connect("bob (ssh)", BOB, 22)?,
    ];
    Ok((servers, clients))
}
