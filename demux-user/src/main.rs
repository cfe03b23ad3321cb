//! The `demux` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    demux_user::cli::main()
}
