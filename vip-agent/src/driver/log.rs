//! Reports of the election, as log lines.

use crate::election::{Report, Role};

/// Writes one report to the log.
pub(super) fn write(report: &Report) {
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
            if *new == Role::Suspended {
                tracing::warn!(%vip, %old, %new, cause, epoch, owner, "gate shut at its deadline");
            } else {
                tracing::info!(%vip, %old, %new, cause, epoch, owner, "transition");
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
        Report::Doubt { vip, cause } => {
            tracing::warn!(%vip, cause, "a transaction was not answered; looking what came of it");
        }
    }
}
