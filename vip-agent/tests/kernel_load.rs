//! Whether this kernel's verifier takes each of the programs.

use aya::{
    EbpfLoader,
    programs::{Program, ProgramError},
};
use vip_agent::dataplane::object;

/// How much of what the verifier says is shown: its end tells why.
const LINES: usize = 40;

#[test]
fn the_verifier_takes_every_program() {
    if !nix::unistd::geteuid().is_root() || object().is_none() {
        let why = "skipped: loading needs root and a build with the eBPF object";
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
        eprintln!("{why}");
        return;
    }
    let mut programs = EbpfLoader::new()
        .load(object().expect("it was asked for"))
        .expect("the kernel takes the object");
    let mut refused = Vec::new();
    for (name, program) in programs.programs_mut() {
        let loaded = match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            other => panic!("{name}: nobody loads a {:?}", other.prog_type()),
        };
        match loaded {
            Ok(()) => {}
            Err(ProgramError::LoadError {
                io_error,
                verifier_log,
            }) => {
                let log = verifier_log.to_string();
                let lines: Vec<&str> = log.lines().collect();
                let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
                refused.push(format!("{name}: {io_error}\n{end}"));
            }
            Err(error) => refused.push(format!("{name}: {error}")),
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n\n"));
}
