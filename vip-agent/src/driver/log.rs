//! Reports of the election, as log lines.

use std::{collections::BTreeMap, net::IpAddr};

use crate::election::{Fitness, Progress, Report, Role};

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
        Report::GivenUp { vips, why } => {
            tracing::warn!(?vips, %why, "given up, and nobody else can take them: nobody serves them now");
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

/// Writes what has changed of shared IPs' fitness, one line for all that changed alike. At the start it is said of
/// each interface what it waits for, and of each health check what it comes to.
pub(super) fn write_fitness(
    before: &BTreeMap<IpAddr, Fitness>,
    changed: &BTreeMap<IpAddr, Fitness>,
) {
    let mut alike: BTreeMap<(u8, Option<&str>), Vec<IpAddr>> = BTreeMap::new();
    for (vip, now) in changed {
        if let Some(before) = before.get(vip) {
            let kind = match (before, now) {
                (_, Fitness::Unable(_)) => 0,
                (_, Fitness::Unhealthy(..)) => 1,
                (Fitness::Fit(_), Fitness::Fit(_)) => continue,
                (_, Fitness::Fit(_)) => 2,
            };
            alike.entry((kind, now.why_not())).or_default().push(*vip);
        }
    }
    for ((kind, reason), vips) in alike {
        match kind {
            0 => tracing::warn!(?vips, reason, "cannot serve"),
            1 => tracing::warn!(?vips, reason, "not fit to serve; others go first"),
            _ => tracing::info!(?vips, "can serve"),
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
    use crate::election::Mac;

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

    #[test]
    fn what_many_shared_ips_lack_is_said_once() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let vips = [100, 101, 102].map(|last| IpAddr::from([10, 0, 0, last]));
        let all = |fitness: Fitness| BTreeMap::from(vips.map(|vip| (vip, fitness.clone())));
        let fit = all(Fitness::Fit(mac));
        let ill = all(Fitness::Unhealthy(mac, "tcp a:1 fails".to_owned()));
        let unable = all(Fitness::Unable("interface eth0: it is down".to_owned()));
        for (before, now, level, says) in [
            (&fit, &ill, "WARN", "tcp a:1 fails"),
            (&ill, &unable, "WARN", "eth0: it is down"),
            (&unable, &ill, "WARN", "tcp a:1 fails"),
            (&ill, &fit, "INFO", "can serve"),
        ] {
            let text = captured(|| write_fitness(before, now));
            assert_eq!(text.lines().count(), 1, "{text}");
            for part in [level, says, "10.0.0.100", "10.0.0.102"] {
                assert!(text.contains(part), "{text}");
            }
        }
        // At the start the interfaces and the checks say it.
        assert_eq!(captured(|| write_fitness(&BTreeMap::new(), &ill)), "");
    }
}
