//! The project's own commands. Standard library only, so that the first one starts within seconds of a fresh clone.

mod build_ebpf;
mod demo;
mod needs;
mod run;
mod setup;
mod test;
mod tool;

use std::env;
use std::process::ExitCode;

use run::Failure;

const USAGE: &str = "\
usage: cargo xtask <command>

  setup                  install what building and testing need and this machine lacks
  build-ebpf             build the kernel half into target/ebpf/vip-ebpf
  demo [--keep|--down]   build all and run the demo (root); --keep leaves its network standing, --down removes it
  test                   format, lints, builds and every test (root)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let command = match Command::parse(&arguments) {
        Ok(command) => command,
        Err(why) => {
            eprint!("xtask: {why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let outcome = match command {
        Command::Help => {
            print!("{USAGE}");
            Ok(())
        }
        Command::Setup => setup::setup(),
        Command::BuildEbpf => build_ebpf::build(),
        Command::Demo(ending) => demo::demo(ending),
        Command::Test => test::test(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            eprintln!("xtask: {message}");
            ExitCode::from(code)
        }
    }
}

#[derive(Debug, PartialEq)]
enum Command {
    Help,
    Setup,
    BuildEbpf,
    Demo(Option<demo::Ending>),
    Test,
}

impl Command {
    fn parse(arguments: &[String]) -> Result<Command, String> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match arguments.as_slice() {
            [] => Err("no command given".to_owned()),
            ["help" | "--help" | "-h", ..] | [_, "--help" | "-h"] => Ok(Command::Help),
            ["setup"] => Ok(Command::Setup),
            ["build-ebpf"] => Ok(Command::BuildEbpf),
            ["demo"] => Ok(Command::Demo(None)),
            ["demo", "--keep"] => Ok(Command::Demo(Some(demo::Ending::Keep))),
            ["demo", "--down"] => Ok(Command::Demo(Some(demo::Ending::Down))),
            ["test"] => Ok(Command::Test),
            [
                command @ ("setup" | "build-ebpf" | "demo" | "test"),
                rest @ ..,
            ] => Err(format!("`{command}` does not take `{}`", rest.join(" "))),
            [unknown, ..] => Err(format!("there is no command `{unknown}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Command::parse(
            &line
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn every_command_is_understood() {
        assert_eq!(parse("setup"), Ok(Command::Setup));
        assert_eq!(parse("build-ebpf"), Ok(Command::BuildEbpf));
        assert_eq!(parse("test"), Ok(Command::Test));
        assert_eq!(parse("demo"), Ok(Command::Demo(None)));
        assert_eq!(
            parse("demo --keep"),
            Ok(Command::Demo(Some(demo::Ending::Keep)))
        );
        assert_eq!(
            parse("demo --down"),
            Ok(Command::Demo(Some(demo::Ending::Down)))
        );
        assert_eq!(parse("demo --help"), Ok(Command::Help));
        assert_eq!(parse("--help"), Ok(Command::Help));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert_eq!(
            parse("demo --keep --down"),
            Err("`demo` does not take `--keep --down`".to_owned())
        );
        assert_eq!(
            parse("setup now"),
            Err("`setup` does not take `now`".to_owned())
        );
        assert_eq!(
            parse("deploy"),
            Err("there is no command `deploy`".to_owned())
        );
        assert!(parse("").is_err());
    }
}
