//! The project's own commands. Standard library only, so that the first one starts within seconds of a fresh clone.

mod build_ebpf;
mod chaos;
mod demo;
mod kernels;
mod needs;
mod run;
mod setup;
mod simulate;
mod test;
mod testbed;
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
  simulate [--schedules N] [--seed S]
                         the election under N random schedules of simulated faults (100000, seed 1), and its mutants
  test-kernels [--kernel 6.1|6.12] [--test NAME]...
                         the kernel tests, one or all, on Debian's stock kernels, one or all, each in an emulated machine
  chaos [--minutes N] [--seed S]
                         the testbed under random faults for N minutes (10, seed 1) (root)
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
        Command::Setup => setup::setup(&[needs::ALWAYS]),
        Command::BuildEbpf => build_ebpf::build(),
        Command::Demo(ending) => demo::demo(ending),
        Command::Test => test::test(),
        Command::Simulate(options) => simulate::simulate(&options),
        Command::TestKernels(options) => kernels::test(&options),
        Command::Chaos(options) => chaos::chaos(&options),
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
    Simulate(simulate::Options),
    TestKernels(kernels::Options),
    Chaos(chaos::Options),
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
            ["test-kernels", rest @ ..] => kernels::Options::parse(rest).map(Command::TestKernels),
            ["simulate", rest @ ..] => {
                let [schedules, seed] = numbers("simulate", rest, ["--schedules", "--seed"])?;
                let usual = simulate::Options::default();
                Ok(Command::Simulate(simulate::Options {
                    schedules: schedules.unwrap_or(usual.schedules),
                    seed: seed.unwrap_or(usual.seed),
                }))
            }
            ["chaos", rest @ ..] => {
                let [minutes, seed] = numbers("chaos", rest, ["--minutes", "--seed"])?;
                let usual = chaos::Options::default();
                Ok(Command::Chaos(chaos::Options {
                    minutes: minutes.unwrap_or(usual.minutes),
                    seed: seed.unwrap_or(usual.seed),
                }))
            }
            [
                command @ ("setup" | "build-ebpf" | "demo" | "test"),
                rest @ ..,
            ] => Err(format!("`{command}` does not take `{}`", rest.join(" "))),
            [unknown, ..] => Err(format!("there is no command `{unknown}`")),
        }
    }
}

/// The values of the flags `names`, each of which may come once, in any order.
fn numbers<const N: usize>(
    command: &str,
    arguments: &[&str],
    names: [&str; N],
) -> Result<[Option<u32>; N], String> {
    let mut values = [None; N];
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let at = names.iter().position(|name| name == flag);
        let at = at.ok_or_else(|| format!("`{command}` does not take `{flag}`"))?;
        let text = rest
            .next()
            .ok_or_else(|| format!("`{flag}` wants a number"))?;
        let number = text.parse().ok().filter(|number| *number > 0);
        let number =
            number.ok_or_else(|| format!("`{flag} {text}`: a whole number from 1 on is wanted"))?;
        if values[at].replace(number).is_some() {
            return Err(format!("`{flag}` is given twice"));
        }
    }
    Ok(values)
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
        assert_eq!(
            parse("simulate"),
            Ok(Command::Simulate(simulate::Options::default()))
        );
        assert_eq!(
            parse("simulate --seed 7 --schedules 500"),
            Ok(Command::Simulate(simulate::Options {
                schedules: 500,
                seed: 7
            }))
        );
        assert_eq!(
            parse("chaos --minutes 3"),
            Ok(Command::Chaos(chaos::Options {
                minutes: 3,
                seed: 1
            }))
        );
        assert_eq!(
            parse("test-kernels"),
            Ok(Command::TestKernels(kernels::Options::default()))
        );
        assert_eq!(
            parse("test-kernels --test kernel_verdicts --kernel 6.12"),
            Ok(Command::TestKernels(kernels::Options {
                kernel: Some(kernels::KERNELS[1]),
                tests: vec!["kernel_verdicts".to_owned()]
            }))
        );
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
        assert_eq!(
            parse("test-kernels --kernel 5.10"),
            Err("`--kernel 5.10`: there are 6.1 and 6.12".to_owned())
        );
        assert_eq!(
            parse("test-kernels --kernel"),
            Err("`test-kernels` does not take `--kernel`".to_owned())
        );
        assert!(parse("").is_err());
        assert_eq!(
            parse("chaos --hours 1"),
            Err("`chaos` does not take `--hours`".to_owned())
        );
        assert_eq!(
            parse("chaos --seed"),
            Err("`--seed` wants a number".to_owned())
        );
        assert_eq!(
            parse("chaos --minutes 0"),
            Err("`--minutes 0`: a whole number from 1 on is wanted".to_owned())
        );
        assert_eq!(
            parse("simulate --seed 1 --seed 2"),
            Err("`--seed` is given twice".to_owned())
        );
    }
}
