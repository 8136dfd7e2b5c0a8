//! The commands to a running agent.

use std::{net::IpAddr, time::Duration};

use clap::Subcommand;

use super::{AgentPlace, Place, print};
use crate::{
    config::{check_node, one_line},
    control::{self, Agent, Drained, Error, Request, Success, Transferred},
    status,
};

/// How long a drain is waited for, if nothing else is said.
const DRAIN_PATIENCE: Duration = Duration::from_secs(300);
/// Longer than the agent waits for etcd, whose answer is bounded by the lease's TTL.
const ETCD_PATIENCE: Duration = Duration::from_secs(180);
/// How long a configuration may take to be read.
const RELOAD_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Subcommand)]
pub(super) enum Ask {
    /// Show how the agent on this machine is
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// All shared IPs, however many and however plain
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        place: AgentPlace,
    },
    /// Show who is in, who holds which shared IP, and who is next
    Members {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: AgentPlace,
    },
    /// Have the agent read its configuration again, and take it up
    #[command(
        after_help = "All of it is taken up, or nothing: what is wrong with it, or only a restart can change, is said, and the old one goes on. Exit codes: 0 taken up, 1 not, 2 usage"
    )]
    Reload {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: AgentPlace,
    },
    /// Hand a shared IP, with all of its group, to another node
    #[command(
        after_help = "Asked on any node. Ends when the shared IP is there. Exit codes: 0 it is there, 1 it is not, 2 usage"
    )]
    Transfer {
        /// The shared IP
        vip: IpAddr,
        /// The node that is to have it
        #[arg(long, value_name = "NODE")]
        to: String,
        /// How long to wait for it
        #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
        timeout: Duration,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: AgentPlace,
    },
    /// Have a node hand over what it holds, and take up nothing until `undrain`
    #[command(
        after_help = "Lasts over restarts and reboots. Refused if the node holds what no other member is fit for. Exit codes: 0 done, 1 not, 2 usage"
    )]
    Drain {
        /// Which node [default: this one]
        #[arg(long, value_name = "NODE", value_parser = node)]
        node: Option<String>,
        /// Wait until it holds nothing
        #[arg(long)]
        wait: bool,
        /// How long to wait [default: 5m]
        #[arg(long, value_name = "TIME", requires = "wait", value_parser = time)]
        timeout: Option<Duration>,
        /// Give up also what no other member is fit for
        #[arg(long)]
        force: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: AgentPlace,
    },
    /// Have a drained node take part again
    Undrain {
        /// Which node [default: this one]
        #[arg(long, value_name = "NODE", value_parser = node)]
        node: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: AgentPlace,
    },
}

impl Ask {
    /// Asks the agent, and tells what it answers.
    pub fn act(self) -> anyhow::Result<()> {
        let shows_all = matches!(self, Self::Status { all: true, .. });
        let (request, patience, json, place) = self.into_request();
        let agent = place.find()?.agent();
        let answer = control::ask(&agent, &request, patience, |text| {
            eprintln!("{}", one_line(text));
        });
        let answer = answer.map_err(|error| Error {
            message: with_flags(&error.message, &agent.flags),
            ..error
        });
        let success = match answer {
            Ok(success) => success,
            Err(error) if json => {
                print(&pretty(&serde_json::json!({ "error": error }))?)?;
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        if json {
            print(&as_json(&success)?)
        } else {
            tell(&success, shows_all)
        }
    }

    fn into_request(self) -> (Request, Duration, bool, AgentPlace) {
        match self {
            Self::Status { json, place, .. } => (Request::Status {}, Duration::ZERO, json, place),
            Self::Reload { json, place } => (Request::Reload {}, RELOAD_PATIENCE, json, place),
            Self::Members { json, place } => (Request::Members {}, Duration::ZERO, json, place),
            Self::Transfer {
                vip,
                to,
                timeout,
                json,
                place,
            } => {
                let timeout_ms = crate::election::to_ms(timeout);
                let request = Request::Transfer {
                    vip,
                    to,
                    timeout_ms,
                };
                (request, timeout, json, place)
            }
            Self::Drain {
                node,
                wait,
                timeout,
                force,
                json,
                place,
            } => {
                let patience = timeout.unwrap_or(DRAIN_PATIENCE);
                let request = Request::Drain {
                    node,
                    force,
                    wait_ms: wait.then(|| crate::election::to_ms(patience)),
                };
                let patience = if wait { patience } else { ETCD_PATIENCE };
                (request, patience, json, place)
            }
            Self::Undrain { node, json, place } => {
                (Request::Undrain { node }, ETCD_PATIENCE, json, place)
            }
        }
    }
}

impl Place {
    fn agent(self) -> Agent {
        Agent {
            state_dir: self.state_dir,
            bpf_dir: self.bpf_dir,
            flags: self.flags,
        }
    }
}

/// What a message advises to type is to reach the same agent. The agent does not know how it was asked.
fn with_flags(message: &str, flags: &str) -> String {
    let mut advised = String::new();
    let mut parts = message.split('`');
    advised.extend(parts.next());
    // Quoted or not, by turns.
    for (at, part) in parts.enumerate() {
        advised.push('`');
        advised.push_str(part);
        let is_command = at % 2 == 0 && part.starts_with("vip-agent ");
        if is_command && !flags.is_empty() && !part.ends_with(flags) {
            advised.push_str(flags);
        }
    }
    advised
}

fn tell(success: &Success, shows_all: bool) -> anyhow::Result<()> {
    match success {
        Success::Status(status) => print(&status::render(status, shows_all)),
        Success::Members(members) => print(&control::render(members)),
        Success::Transfer(transferred) => print(&say_transferred(transferred)),
        Success::Drain(drained) => {
            warn_of(drained);
            print(&say_drained(drained))
        }
        Success::Undrain(drained) => print(&say_undrained(drained)),
        Success::Reload(changes) => print(&format!("taken up: {changes}\n")),
    }
}

fn say_transferred(transferred: &Transferred) -> String {
    let vips: Vec<String> = transferred.vips.iter().map(ToString::to_string).collect();
    let (vips, to) = (vips.join(", "), &transferred.to);
    if transferred.already {
        format!("{vips}: at {to} already\n")
    } else {
        format!("{vips}: handed to {to}\n")
    }
}

fn say_drained(drained: &Drained) -> String {
    let node = &drained.node;
    let already = if drained.already { " already" } else { "" };
    let holds = match (drained.member, drained.holds.len()) {
        (false, 0) => "it is no member now; it will be drained when it comes".to_owned(),
        (_, 0) => "it holds nothing".to_owned(),
        (_, 1) => "1 shared IP is there yet".to_owned(),
        (_, count) => format!("{count} shared IPs are there yet"),
    };
    format!("{node} is drained{already}; {holds}\n")
}

fn say_undrained(drained: &Drained) -> String {
    let node = &drained.node;
    let absent = if drained.member {
        ""
    } else {
        "; it is no member now"
    };
    if drained.already {
        format!("{node} was not drained{absent}\n")
    } else {
        format!("{node} takes part again{absent}\n")
    }
}

fn warn_of(drained: &Drained) {
    for warning in &drained.warnings {
        eprintln!(
            "vip-agent: warning: {} keeps what no other member is fit for: {}; give it up with \
             --force",
            drained.node,
            one_line(warning)
        );
    }
}

/// The document alone: what it is of the command says.
fn as_json(success: &Success) -> anyhow::Result<String> {
    match success {
        Success::Status(status) => pretty(status),
        Success::Members(members) => pretty(members),
        Success::Transfer(transferred) => pretty(transferred),
        Success::Drain(drained) | Success::Undrain(drained) => pretty(drained),
        Success::Reload(changes) => pretty(changes),
    }
}

fn pretty(document: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(document)? + "\n")
}

fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text)
        .map_err(|_| "write a time with its unit, such as 10s".to_owned())?;
    if time > control::LONGEST_WAIT {
        return Err("write a day (24h) at most".to_owned());
    }
    Ok(time)
}

/// Whatever is drained is a key in etcd.
fn node(text: &str) -> Result<String, String> {
    check_node(text)?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_advised_reaches_the_same_agent() {
        let flags = " --config a.yaml";
        for (message, advised) in [
            (
                "x; `vip-agent undrain --node b` first",
                "x; `vip-agent undrain --node b --config a.yaml` first",
            ),
            (
                "`vip-agent cleanup --config a.yaml`",
                "`vip-agent cleanup --config a.yaml`",
            ),
            (
                "`oops`, `vip-agent members`",
                "`oops`, `vip-agent members --config a.yaml`",
            ),
            ("no command: vip-agent runs", "no command: vip-agent runs"),
            ("`unfinished", "`unfinished"),
        ] {
            assert_eq!(with_flags(message, flags), advised);
            assert_eq!(with_flags(message, ""), message);
        }
    }

    #[test]
    fn what_came_of_a_drain_is_one_sentence() {
        let drained = Drained {
            node: "cp-9".to_owned(),
            already: false,
            member: false,
            holds: Vec::new(),
            warnings: Vec::new(),
        };
        let said = say_drained(&drained);
        assert_eq!(
            said,
            "cp-9 is drained; it is no member now; it will be drained when it comes\n"
        );
        let again = Drained {
            already: true,
            member: true,
            holds: vec![[10, 0, 0, 1].into()],
            ..drained.clone()
        };
        let said = say_drained(&again);
        assert_eq!(said, "cp-9 is drained already; 1 shared IP is there yet\n");
        let said = say_undrained(&drained);
        assert_eq!(said, "cp-9 takes part again; it is no member now\n");
        assert_eq!(say_undrained(&again), "cp-9 was not drained\n");
    }

    #[test]
    fn a_time_has_a_unit_and_an_end() {
        assert_eq!(time("1500ms"), Ok(Duration::from_millis(1500)));
        for bad in ["10", "soon", "25h", "-1s", ""] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
