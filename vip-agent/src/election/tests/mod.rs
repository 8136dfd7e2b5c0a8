//! Transitions, one sentence a test. A little rig stands in for the kernel and for netlink (they do
//! at once what they are told); etcd's answers are given by hand.

mod cluster;
mod configuration;
mod conflict;
mod doubt;
mod handover;
mod transitions;

use super::{vip::Key, *};

const NODE: &str = "n1";
const TTL: Duration = Duration::from_secs(3);
const LEASE: LeaseId = LeaseId(0x77);
const OTHERS: LeaseId = LeaseId(0x88);
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHERS_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const TERM: u64 = 4;

fn vip() -> IpAddr {
    IpAddr::from([10, 0, 0, 100])
}

fn at_ms(ms: u64) -> BootInstant {
    BootInstant::from_ns(1_000_000_000_000 + ms * 1_000_000)
}

fn owned_by(node: &str, lease: LeaseId, mod_revision: i64) -> Keyed<OwnerRecord> {
    let mac = if node == NODE { MAC } else { OTHERS_MAC };
    let record = OwnerRecord {
        node: node.to_owned(),
        instance: format!("instance-of-{node}"),
        mac,
        ttl_ms: 3000,
        since: String::new(),
        successor: None,
    };
    Keyed {
        lease,
        mod_revision,
        record,
    }
}

fn member(node: &str, lease: LeaseId, mod_revision: i64) -> Keyed<MemberRecord> {
    let record = MemberRecord {
        instance: format!("instance-of-{node}"),
        macs: BTreeSet::from([if node == NODE { MAC } else { OTHERS_MAC }]),
        ttl_ms: 3000,
        vips: BTreeSet::from([vip()]),
        ..MemberRecord::nobody(node)
    };
    Keyed {
        lease,
        mod_revision,
        record,
    }
}

fn vip_settings() -> VipSettings {
    VipSettings {
        priority: DEFAULT_PRIORITY,
        group: None,
        probes: false,
        fenced: true,
    }
}

fn unable() -> Fitness {
    Fitness::Unable("down".to_owned())
}

/// The election with what answers it, and what it did since last asked.
struct Rig {
    election: Election,
    now_ms: u64,
    revision: i64,
    did: Vec<Action>,
}

impl Rig {
    fn start(inheritance: Inheritance) -> Self {
        Self::start_with(inheritance, |settings| settings)
    }

    fn start_with(inheritance: Inheritance, change: impl FnOnce(Settings) -> Settings) -> Self {
        let settings = Settings {
            node: NODE.to_owned(),
            instance: format!("instance-of-{NODE}"),
            host: String::new(),
            version: String::new(),
            ttl: TTL,
            vips: BTreeMap::from([(vip(), vip_settings())]),
            yields: false,
            preempt: None,
            rebalance: None,
            when_all_unfit: WhenAllUnfit::Keep,
        };
        let settings = change(settings);
        let election = Election::new(settings, inheritance);
        let mut rig = Self {
            election,
            now_ms: 0,
            revision: 10,
            did: Vec::new(),
        };
        rig.tell(Event::Fitness(vip(), Fitness::Fit(MAC)));
        rig
    }

    /// A member, with nobody owning the shared IP, which was found so.
    fn joined() -> Self {
        Self::joined_with(|settings| settings)
    }

    fn joined_with(change: impl FnOnce(Settings) -> Settings) -> Self {
        let mut rig = Self::start_with(Inheritance::default(), change);
        rig.tell(Event::Read(rig.snapshot(&[], &[])));
        rig.tell(Event::Granted {
            sent_at: at_ms(0),
            lease: LEASE,
            ttl: TTL,
        });
        rig.revision += 1;
        rig.tell(Event::Joined(Outcome::Committed {
            revision: rig.revision,
        }));
        rig.did.clear();
        rig
    }

    /// The owner, by a claim of its own.
    fn owner() -> Self {
        let mut rig = Self::joined();
        rig.pass_confirming(3000);
        rig.answer_claim();
        assert_eq!(rig.role(), Role::Owner);
        rig.did.clear();
        rig
    }

    fn snapshot(&self, members: &[Keyed<MemberRecord>], owners: &[Keyed<OwnerRecord>]) -> Snapshot {
        Snapshot {
            cluster_id: 1,
            raft_term: TERM,
            revision: self.revision,
            members: members
                .iter()
                .map(|m| (m.record.node.clone(), m.clone()))
                .collect(),
            owners: owners.iter().map(|o| (vip(), o.clone())).collect(),
            drained: BTreeMap::new(),
        }
    }

    fn tell(&mut self, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        let mut rounds = 0;
        while let Some(event) = events.pop_front() {
            rounds += 1;
            assert!(rounds < 1000, "it goes round in circles: {event:?}");
            for action in self.election.handle(at_ms(self.now_ms), event) {
                match &action {
                    Action::SetGate(ip, _) => events.push_back(Event::GateSet(*ip)),
                    Action::AddAddress(ip) => events.push_back(Event::AddressAdded(*ip)),
                    Action::RemoveAddress(ip) => events.push_back(Event::AddressRemoved(*ip)),
                    _ => {}
                }
                self.did.push(action);
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.tell(Event::Tick);
    }

    /// Lets time pass, a round at a time, and confirms each round.
    fn pass_confirming(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(250) {
            self.pass(250);
            if let Some(round) = self.take_round() {
                self.answer(round, TTL, TERM, true);
            }
        }
    }

    fn take_round(&mut self) -> Option<RoundId> {
        let at = self
            .did
            .iter()
            .position(|action| matches!(action, Action::Renew { .. }))?;
        match self.did.remove(at) {
            Action::Renew { round, .. } => Some(round),
            _ => None,
        }
    }

    fn answer(&mut self, round: RoundId, ttl: Duration, read_in: u64, keys_are_there: bool) {
        let owner = match &self.election.vips[&vip()].key {
            Key::Held(held) => Some(held.clone()),
            _ => None,
        };
        let known = self.election.view.members.get(NODE).cloned();
        let members = [known.unwrap_or_else(|| member(NODE, LEASE, 11))];
        let mut snapshot = if keys_are_there {
            self.snapshot(&members, owner.as_slice())
        } else {
            self.snapshot(&[], &[])
        };
        snapshot.raft_term = read_in;
        self.tell(Event::Renewed {
            round,
            ttl,
            raft_term: TERM,
        });
        self.tell(Event::Confirmed { round, snapshot });
    }

    fn answer_join(&mut self) {
        let is_join = |action: &Action| matches!(action, Action::Join { .. });
        assert!(self.did.iter().any(is_join), "no join among {:?}", self.did);
        self.revision += 1;
        self.tell(Event::Joined(Outcome::Committed {
            revision: self.revision,
        }));
    }

    fn answer_claim(&mut self) {
        assert!(self.claims() > 0, "no claim among {:?}", self.did);
        self.revision += 1;
        self.tell(Event::Claimed(
            vip(),
            Outcome::Committed {
                revision: self.revision,
            },
        ));
    }

    fn watch(&mut self, change: Change) {
        self.tell(Event::Watched(vec![change]));
    }

    fn claims(&self) -> usize {
        self.did
            .iter()
            .filter(|action| matches!(action, Action::Claim { .. }))
            .count()
    }

    fn role(&self) -> Role {
        self.election
            .role(vip(), at_ms(self.now_ms))
            .expect("the rig's own VIP")
            .0
    }

    fn deadline(&self) -> BootInstant {
        self.election
            .lease()
            .map_or(BootInstant::BOOT, |(_, _, deadline)| deadline)
    }

    /// Where in what was done this is, as names.
    fn steps(&self) -> Vec<&'static str> {
        self.did
            .iter()
            .filter_map(|action| match action {
                Action::SetGate(_, gate) if gate.is_open() => Some("open"),
                Action::SetGate(..) => Some("close"),
                Action::AddAddress(_) => Some("add address"),
                Action::RemoveAddress(_) => Some("remove address"),
                Action::Announce(_) => Some("announce"),
                Action::Probe(_) => Some("probe"),
                Action::Claim { .. } => Some("claim"),
                Action::Reassert { .. } => Some("reassert"),
                Action::Release { .. } => Some("release"),
                Action::Transfer { .. } => Some("transfer"),
                Action::Forget(_) => Some("forget"),
                Action::Leave { .. } => Some("leave"),
                Action::SetLeaseDeadline(at) if *at == BootInstant::BOOT => Some("close all"),
                Action::Exit(_) => Some("exit"),
                _ => None,
            })
            .collect()
    }
}
