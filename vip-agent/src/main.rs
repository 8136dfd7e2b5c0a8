//! The door: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    vip_agent::cli::main()
}
