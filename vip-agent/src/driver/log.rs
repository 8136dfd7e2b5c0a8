//! Reports of the election, as log lines.

use std::net::IpAddr;

use crate::election::{Progress, Report, Role};

/// Writes one report to the log. Of a shared IP that goes without a gate it says so.
pub(super) fn write(report: &Report, is_fenced: impl Fn(IpAddr) -> bool) {
    match report {
        Report::Transition {
            vip,
            old,
            new,
            cause,
            epoch,
            owner,
        } => {
            let owner = owner.as_deref().unwrap_or("nobody");
            match (new, is_fenced(*vip)) {
                (Role::Suspended, true) => {
                    tracing::warn!(%vip, %old, %new, cause, epoch, owner, "gate shut at its deadline");
                }
                (Role::Suspended, false) => {
                    tracing::warn!(%vip, %old, %new, cause, epoch, owner, "UNFENCED: no gate to shut; the address goes when its lifetime ends");
                }
                (_, true) => tracing::info!(%vip, %old, %new, cause, epoch, owner, "transition"),
                (_, false) => {
                    tracing::info!(%vip, %old, %new, cause, epoch, owner, "transition, UNFENCED");
                }
            }
        }
        Report::Joined {
            lease,
            ttl,
            resumed: false,
        } => {
            tracing::info!(%lease, ?ttl, "joined");
        }
        Report::Joined {
            lease,
            ttl,
            resumed: true,
        } => {
            tracing::info!(%lease, ?ttl, "went on with the lease of the process before");
        }
        Report::TtlRaised { asked, granted } => {
            tracing::warn!(
                ?asked,
                ?granted,
                "etcd granted another TTL than lease.ttl asks for"
            );
        }
        Report::LeaseLost { lease, cause } => {
            tracing::warn!(%lease, cause, "lease lost");
        }
        Report::StaleRenewal {
            renewed_in,
            read_in,
        } => {
            tracing::warn!(
                renewed_in,
                read_in,
                "a deposed etcd leader answered a renewal; it does not count"
            );
        }
        Report::Resync { cause } => tracing::warn!(cause, "reading everything anew"),
        Report::LeaseOutlived => {
            let cause = "the lease lives although it should have ended";
            tracing::warn!(cause, "reading everything anew");
        }
        Report::HistoryReset { known, read } => {
            tracing::error!(
                known,
                read,
                "etcd's history is another one: restored from a backup, or another cluster"
            );
        }
        Report::WaitingOut { vip, wait } => {
            tracing::info!(%vip, ?wait, "found vacant; an owner that is not in etcd could still be serving, so it is waited out");
        }
        Report::NameBusy { other } => {
            tracing::warn!(
                node = other.node,
                host = other.host,
                macs = ?other.macs,
                "our name is taken by what this machine seems to have left; waiting for its lease to end"
            );
        }
        Report::HandOver {
            vips,
            to,
            why,
            progress,
        } => match progress {
            Progress::Begun => tracing::info!(?vips, to, %why, "handing over"),
            Progress::Done => tracing::info!(?vips, to, %why, "handed over"),
            Progress::Failed(cause) => {
                tracing::warn!(?vips, to, %why, cause, "not handed over");
            }
        },
        // With what only the driver knows of it.
        Report::Conflict { .. } => {}
        Report::Doubt { vip, cause } => {
            tracing::warn!(%vip, cause, "a transaction was not answered; looking what came of it");
        }
    }
}

/// What a task writes to the log.
#[cfg(test)]
pub(super) fn captured(task: impl FnOnce()) -> String {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex, PoisonError},
    };

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone());
    tracing::subscriber::with_default(subscriber.finish(), task);
    let bytes = lines.0.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(new: Role, fenced: bool) -> String {
        let report = Report::Transition {
            vip: IpAddr::from([10, 0, 0, 100]),
            old: Role::TakingOver,
            new,
            cause: "a test".to_owned(),
            epoch: 7,
            owner: None,
        };
        captured(|| write(&report, |_| fenced))
    }

    #[test]
    fn whatever_becomes_of_a_shared_ip_without_a_gate_says_unfenced() {
        for role in [Role::Owner, Role::Suspended, Role::Follower] {
            let line = logged(role, false);
            assert!(
                line.contains("UNFENCED") && !line.contains("gate shut"),
                "{line}"
            );
            let line = logged(role, true);
            assert!(
                line.contains("10.0.0.100") && !line.contains("UNFENCED"),
                "{line}"
            );
        }
    }
}
