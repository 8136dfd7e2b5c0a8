//! The command line.

mod ask;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::{
    cleanup,
    config::{
        self, Config, ConfigError, DEFAULT_BPF_DIR, DEFAULT_STATE_DIR, Flags, InterfaceConfig,
        one_line,
    },
    driver::{self, Source},
};
use ask::Ask;

/// Of configuration errors; clap uses it for its own.
const EXIT_CONFIG: u8 = 2;

#[derive(Debug, Parser)]
#[command(name = "vip-agent", version, about = "A shared IP for a few machines on one network", long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take part: hold the shared IPs whenever it is this node's turn
    #[command(
        after_help = "Examples:\n  vip-agent run --config /etc/vip-agent.yaml\n  vip-agent run --interface eth0 --vip 192.168.0.15 --etcd http://10.0.0.11:2379\n\nSignals:\n  SIGTERM, SIGINT  give everything up, in order, and leave nothing behind (or as on-stop says)\n  SIGUSR1          end, and leave everything as it is for the next start\n  SIGHUP           read FILE again, and take up what is different"
    )]
    Run {
        /// A YAML file; flags go before it
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Flags,
        #[command(flatten)]
        log: Log,
        /// Log what the eBPF programs do with each frame that concerns a shared IP: for debugging
        #[arg(long)]
        ebpf_log: bool,
    },
    #[command(flatten)]
    Ask(Ask),
    /// Take away programs, maps and addresses that a dead agent left
    Cleanup {
        #[command(flatten)]
        place: AgentPlace,
    },
}

/// Which of the agents on this machine.
#[derive(Debug, clap::Args)]
struct AgentPlace {
    /// The agent's configuration, for its directories and shared IPs
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Its state directory [default: /run/vip-agent]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Its pins [default: /sys/fs/bpf/vip-agent]
    #[arg(long, value_name = "DIR")]
    bpf_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Log {
    /// How the log is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// What is logged: off, error, warn, info, debug, trace, or a filter as RUST_LOG has it
    #[arg(long, value_name = "LEVEL", env = "RUST_LOG", default_value = "info")]
    log_level: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Does what the command line says. Errors are one line on standard error; the exit code is 2 for
/// configuration errors and 1 for all others.
pub fn main() -> ExitCode {
    match act(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vip-agent: {}", one_line(&format!("{error:#}")));
            let is_config = error.downcast_ref::<ConfigError>().is_some();
            if is_config {
                ExitCode::from(EXIT_CONFIG)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn act(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run {
            config,
            flags,
            log,
            ebpf_log,
        } => {
            start_log(&log)?;
            let source = Source {
                file: config,
                flags,
            };
            let config = Config::load(source.file.as_deref(), &source.flags)?;
            block_on(driver::run(config, source, ebpf_log))
        }
        Command::Ask(ask) => ask.act(),
        Command::Cleanup { place } => {
            let Place {
                state_dir,
                bpf_dir,
                interfaces,
                ..
            } = place.find()?;
            config::check_bpf_dir(&bpf_dir)
                .map_err(|why| ConfigError::new(format!("bpf-dir {}: {why}", bpf_dir.display())))?;
            block_on(async {
                let cleaned = cleanup::clean_up(&state_dir, &bpf_dir, &interfaces).await?;
                println!(
                    "{} and {}: {cleaned}",
                    state_dir.display(),
                    bpf_dir.display()
                );
                Ok(())
            })
        }
    }
}

/// To who may stop reading when he has seen enough, as `head` does.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

struct Place {
    state_dir: PathBuf,
    bpf_dir: PathBuf,
    interfaces: Vec<InterfaceConfig>,
    /// What was given of these on the command line, to be given again: empty, or ` --config FILE`, ….
    flags: String,
}

impl AgentPlace {
    /// What the flags leave out the configuration says, and what that leaves out has a default.
    fn find(self) -> Result<Place, ConfigError> {
        let given = [
            ("config", &self.config),
            ("state-dir", &self.state_dir),
            ("bpf-dir", &self.bpf_dir),
        ];
        let given = given.map(|(flag, path)| match path {
            Some(path) => format!(" --{flag} {}", path.display()),
            None => String::new(),
        });
        let config = self
            .config
            .map(|file| Config::load(Some(&file), &Flags::default()))
            .transpose()?;
        let (state_dir, bpf_dir, interfaces) = match config {
            Some(config) => (config.state_dir, config.bpf_dir, config.interfaces),
            None => (DEFAULT_STATE_DIR.into(), DEFAULT_BPF_DIR.into(), Vec::new()),
        };
        Ok(Place {
            state_dir: self.state_dir.unwrap_or(state_dir),
            bpf_dir: self.bpf_dir.unwrap_or(bpf_dir),
            interfaces,
            flags: given.concat(),
        })
    }
}

/// One thread: one loop, and the tasks that wait on its behalf.
fn block_on(task: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, task)
}

/// A word that is no level would be taken for the name of a program part, of which nothing is
/// logged: most likely it is a slip, and silence would hide it.
fn filter(text: &str) -> Result<EnvFilter, ConfigError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let wrong = || {
        ConfigError::new(format!(
            "log level `{text}` (--log-level or RUST_LOG): write {}, or a filter such as \
             `info,vip_agent::store=debug`",
            LEVELS.join(", ")
        ))
    };
    if text.is_empty() {
        // As with other programs an empty RUST_LOG says nothing.
        return Ok(EnvFilter::new("info"));
    }
    let is_level = |word: &str| {
        let lower = word.to_lowercase();
        LEVELS.contains(&lower.as_str()) || matches!(word.as_bytes(), [b'0'..=b'5'])
    };
    let is_slip = |part: &str| !part.contains(['=', '[']) && !is_level(part);
    if text.split(',').any(is_slip) {
        return Err(wrong());
    }
    EnvFilter::try_new(text).map_err(|_| wrong())
}

fn start_log(log: &Log) -> anyhow::Result<()> {
    let filter = filter(&log.log_level)?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match log.log_format {
        LogFormat::Text => {
            subscriber
                .with_target(false)
                .with_ansi(io::stderr().is_terminal())
                .init();
        }
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_contradicts_nothing_in_itself() {
        Cli::command().debug_assert();
    }

    #[test]
    fn endpoints_and_shared_ips_may_be_many() {
        let line = "vip-agent run --interface eth0 --vip 10.0.0.7 --vip 10.0.0.8 \
                    --etcd http://a:1,http://b:1 --etcd http://c:1";
        let cli = Cli::try_parse_from(line.split_whitespace()).expect("it is good");
        let Command::Run { flags, .. } = cli.command else {
            panic!("it says run");
        };
        assert_eq!(flags.vip, ["10.0.0.7", "10.0.0.8"]);
        assert_eq!(flags.etcd, ["http://a:1", "http://b:1", "http://c:1"]);
    }

    #[test]
    fn what_is_no_command_line_gets_exit_code_2() {
        for line in [
            "",
            "run --vip 10.0.0.7",
            "run --on-stop panic",
            "status x",
            "transfer 10.0.0.7",
            "transfer 10.0.0 --to cp-2",
            "transfer 10.0.0.7 --to cp-2 --timeout 5",
            "drain cp-1",
            "drain --node a/b",
            "drain --timeout 5s",
            "undrain --wait",
            "members cp-1",
            "reload a.yaml",
        ] {
            let words = ["vip-agent"].into_iter().chain(line.split_whitespace());
            let error = Cli::try_parse_from(words).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_log_level_is_one_of_those_known_or_a_filter() {
        for good in [
            "info",
            "WARN",
            "3",
            "info,vip_agent::store=debug",
            "off",
            "",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in [
            "inof",
            "info=loud",
            "warning",
            "vip_agent",
            "info,verbose",
            "6",
            "a=b=c",
        ] {
            let error = filter(bad).map(drop).expect_err(bad).to_string();
            assert!(error.contains(&format!("`{bad}`")), "{error}");
            assert!(error.contains("error, warn, info"), "{error}");
        }
    }
}
