//! Machines that are no members and claim a shared IP: what is told of them, and how often.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use vip_common::abi;

use super::{BootInstant, clock};
use crate::{
    election::{Mac, Response, to_ms},
    hooks::Stranger,
    status::{ConflictResponse, ConflictStatus},
};

/// Between two lines of the log about one shared IP.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What was heard of each shared IP.
#[derive(Default)]
pub(super) struct Conflicts {
    /// On its own interface (`false`) and on others (`true`), which keep nothing of the former back.
    by_vip: BTreeMap<(IpAddr, bool), Conflict>,
    /// The one that the election is being told of.
    latest: Option<Heard>,
    /// What was logged, for hooks.
    told: Vec<Told>,
}

/// What was said of a shared IP.
#[derive(Debug)]
pub(super) struct Told {
    pub vip: IpAddr,
    pub interface: String,
    pub stranger: Stranger,
}

struct Heard {
    mac: Mac,
    interface: String,
    via: &'static str,
}

struct Conflict {
    latest: Heard,
    first_seen: SystemTime,
    last_seen: SystemTime,
    last_seen_at: BootInstant,
    count: u64,
    response: ConflictResponse,
    logged_at: Option<BootInstant>,
    /// Since the last line.
    untold: u64,
    /// Who owned the shared IP then.
    owner: Option<String>,
}

impl Conflicts {
    /// One was heard. It counts once it is [`answered`](Self::answered): who is a member is no stranger.
    pub fn hear(&mut self, event: &abi::Event, interface: String) {
        self.latest = Some(Heard {
            mac: Mac(event.mac),
            interface,
            via: name_of(event.vip.ip(), event.op),
        });
    }

    /// What is done about the one that was heard last.
    pub fn answer(
        &mut self,
        vip: IpAddr,
        response: ConflictResponse,
        owner: Option<&str>,
        now: BootInstant,
    ) {
        let wall = clock::time_of_day();
        let Some(latest) = self.latest.take() else {
            return;
        };
        let key = (vip, response == ConflictResponse::Elsewhere);
        let before = self.by_vip.remove(&key);
        let is_another_response = before.as_ref().is_some_and(|one| one.response != response);
        let (logged_at, untold) = before
            .as_ref()
            .map_or((None, 0), |one| (one.logged_at, one.untold));
        let (first_seen, count) = before
            .filter(|one| one.latest.mac == latest.mac)
            .map_or((wall, 0), |one| (one.first_seen, one.count));
        let mut conflict = Conflict {
            latest,
            first_seen,
            last_seen: wall,
            last_seen_at: now,
            count: count + 1,
            response,
            logged_at,
            untold: untold + 1,
            owner: owner.map(str::to_owned),
        };
        if is_another_response || logged_at.is_none_or(|at| now >= at + LOG_INTERVAL) {
            self.told.push(conflict.tell(vip, now));
        }
        self.by_vip.insert(key, conflict);
    }

    /// Tells what was not told when it was heard, for too little time had passed.
    pub fn tell_rest(&mut self, now: BootInstant) {
        for ((vip, _), conflict) in &mut self.by_vip {
            let is_due = conflict
                .logged_at
                .is_some_and(|at| now >= at + LOG_INTERVAL);
            if conflict.untold > 0 && is_due {
                self.told.push(conflict.tell(*vip, now));
            }
        }
    }

    /// What was logged since this was last asked: as often as people are told, programs are.
    pub fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    pub fn status(&self, vip: IpAddr, now: BootInstant) -> Option<ConflictStatus> {
        let heard = |elsewhere| self.by_vip.get(&(vip, elsewhere));
        let conflict = heard(false).or_else(|| heard(true))?;
        let rfc3339 = |time| humantime::format_rfc3339_millis(time).to_string();
        Some(ConflictStatus {
            mac: conflict.latest.mac,
            interface: conflict.latest.interface.clone(),
            via: conflict.latest.via.to_owned(),
            count: conflict.count,
            first_seen: rfc3339(conflict.first_seen),
            last_seen: rfc3339(conflict.last_seen),
            last_seen_ms_ago: to_ms(now.saturating_since(conflict.last_seen_at)),
            response: conflict.response,
        })
    }
}

impl Conflict {
    fn tell(&mut self, vip: IpAddr, now: BootInstant) -> Told {
        self.log(vip);
        (self.logged_at, self.untold) = (Some(now), 0);
        Told {
            vip,
            interface: self.latest.interface.clone(),
            stranger: Stranger {
                mac: self.latest.mac,
                via: self.latest.via,
                response: self.response,
            },
        }
    }

    fn log(&self, vip: IpAddr) {
        const MEND: &str = "take the address off that machine, or choose another shared IP";
        let times = self.untold;
        let owner = self.owner.as_deref().unwrap_or("nobody");
        let Heard {
            mac,
            interface,
            via,
        } = &self.latest;
        match self.response {
            ConflictResponse::Defended => {
                tracing::warn!(%vip, %mac, interface, via, times, "another machine claims the shared IP; announced again (on-conflict: defend), at most every 10 s; {MEND}");
            }
            ConflictResponse::Yielded => {
                tracing::warn!(%vip, %mac, interface, via, times, "another machine claims the shared IP; left to it (on-conflict: yield) until it has been silent for 10 s; {MEND}");
            }
            ConflictResponse::NotClaimed => {
                tracing::warn!(%vip, %mac, interface, via, times, "the shared IP is in use by another machine; not claimed until that has been silent for 10 s; {MEND}, or set `probe: off` if it is a router that answers for all addresses");
            }
            ConflictResponse::Dropped => {
                tracing::warn!(%vip, %mac, interface, via, times, owner, "another machine claims the shared IP; its frames are dropped here, and the rest is the owner's to do; {MEND}");
            }
            ConflictResponse::Elsewhere => {
                tracing::warn!(%vip, %mac, interface, via, times, "another machine claims the shared IP on an interface that does not carry it; its frames are dropped there; take the address off that machine");
            }
        }
    }
}

impl From<Response> for ConflictResponse {
    fn from(response: Response) -> Self {
        match response {
            Response::Defended | Response::DefendedSoon => Self::Defended,
            Response::Yielded => Self::Yielded,
            Response::NotClaimed => Self::NotClaimed,
            Response::Noted => Self::Dropped,
        }
    }
}

fn name_of(vip: IpAddr, op: u16) -> &'static str {
    match (vip, op) {
        (IpAddr::V4(_), 1) => "ARP request",
        (IpAddr::V4(_), 2) => "ARP reply",
        (IpAddr::V6(_), 135) => "Neighbour Solicitation",
        (IpAddr::V6(_), 136) => "Neighbour Advertisement",
        (IpAddr::V4(_), _) => "ARP",
        (IpAddr::V6(_), _) => "ICMPv6",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::log::captured, *};

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 100));

    fn at_s(s: u64) -> BootInstant {
        BootInstant::from_ns((100 + s) * 1_000_000_000)
    }

    fn claim_by(last_octet: u8) -> abi::Event {
        abi::Event {
            at_ns: 0,
            vip: VIP.into(),
            ifindex: 2,
            op: 2,
            mac: [0x52, 0x54, 0, 0, 0, last_octet],
            reserved: [0; 4],
        }
    }

    fn meet(conflicts: &mut Conflicts, last_octet: u8, now: BootInstant) {
        conflicts.hear(&claim_by(last_octet), "eth0".to_owned());
        conflicts.answer(VIP, ConflictResponse::Defended, Some("n1"), now);
    }

    #[test]
    fn what_is_heard_elsewhere_hides_nothing() {
        let mut conflicts = Conflicts::default();
        let at = at_s(1);
        conflicts.hear(&claim_by(7), "eth0".to_owned());
        conflicts.answer(VIP, ConflictResponse::Defended, Some("n1"), at);
        conflicts.hear(&claim_by(9), "br0".to_owned());
        conflicts.answer(VIP, ConflictResponse::Elsewhere, Some("n1"), at);
        let status = conflicts.status(VIP, at).expect("two were heard");
        assert_eq!(status.response, ConflictResponse::Defended);
        assert_eq!(status.interface, "eth0");
        conflicts.hear(&claim_by(7), "eth0".to_owned());
        conflicts.answer(VIP, ConflictResponse::Defended, Some("n1"), at);
        let status = conflicts.status(VIP, at).expect("three were heard");
        assert_eq!(status.count, 2);
    }

    #[test]
    fn the_first_is_told_at_once_and_then_once_in_ten_seconds_with_their_number() {
        let mut conflicts = Conflicts::default();
        let log = captured(|| (0..21).for_each(|s| meet(&mut conflicts, 9, at_s(s))));
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.len(), 3, "{log}");
        for (line, times) in lines.iter().zip([1, 10, 10]) {
            assert!(line.contains(&format!("times={times}")), "{line}");
            for part in [
                "WARN",
                "10.0.0.100",
                "52:54:00:00:00:09",
                "eth0",
                "ARP reply",
            ] {
                assert!(line.contains(part), "{line} lacks {part}");
            }
        }
        let status = conflicts.status(VIP, at_s(22)).expect("one was heard");
        assert_eq!((status.count, status.last_seen_ms_ago), (21, 2000));
    }

    #[test]
    fn the_last_ones_are_told_too() {
        let mut conflicts = Conflicts::default();
        (0..5).for_each(|s| meet(&mut conflicts, 9, at_s(s)));
        let log = captured(|| (5..60).for_each(|s| conflicts.tell_rest(at_s(s))));
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains("times=4"), "{log}");
    }

    #[test]
    fn many_machines_fill_no_log_and_the_last_one_shows() {
        let mut conflicts = Conflicts::default();
        let log = captured(|| (0..9).for_each(|n| meet(&mut conflicts, n, at_s(n.into()))));
        assert_eq!(log.lines().count(), 1, "{log}");
        let status = conflicts.status(VIP, at_s(9)).expect("one was heard");
        assert_eq!((status.mac.0[5], status.count), (8, 1));
    }

    #[test]
    fn what_the_election_passes_over_was_no_conflict() {
        let mut conflicts = Conflicts::default();
        conflicts.hear(&claim_by(9), "eth0".to_owned());
        assert_eq!(conflicts.status(VIP, at_s(0)), None);
    }
}
