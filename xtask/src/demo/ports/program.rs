//! A program that knows nothing of demux, and whose source ports demux chooses.

use anyhow::Result;

use crate::demo::{
    actors::Server,
    network::{ALICE, BOB},
    stage::Stage,
};

/// Opens two connections to alice and one to bob, and says on all three what it hears.
const SCRIPT: &str = "exec 3<>/dev/tcp/10.0.0.2/9000
exec 4<>/dev/tcp/10.0.0.2/9000
exec 5<>/dev/tcp/10.0.0.3/9000
for fd in 3 4 5; do echo hello >&$fd; read -r answer <&$fd; echo \"$answer\"; done";

pub(super) fn unchanged(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "Programs as they are",
        "exec runs a program, and demux chooses the source ports of its connections, whatever the \
         program is. This shell opens two connections to alice and one to bob; their servers say whom \
         they see.",
    )?;
    let _servers = [
        Server::start_in(ALICE, "alice", 9000)?,
        Server::start_in(BOB, "bob", 9000)?,
    ];
    let exec = [
        "exec",
        "--algorithm",
        "sequential",
        "--",
        "bash",
        "-c",
        SCRIPT,
    ];
    let heard = stage.lines(&exec)?;
    stage.claim(
        "its ports are those that the old way gives: 1025 and 1026 to alice, and 1025 to bob too, at \
         the same time",
        heard
            == [
                "hello, 10.0.0.1:1025, this is alice",
                "hello, 10.0.0.1:1026, this is alice",
                "hello, 10.0.0.1:1025, this is bob",
            ],
        &format!("{heard:?}"),
    )
}
