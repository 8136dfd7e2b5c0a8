//! What happens in a simulation: who takes part, and which faults come when.

use proptest::prelude::*;

use super::clock::{MS, SECOND, TrueNs};

/// Faults come after the nodes have settled, and before all is healed.
const FAULTS_FROM_MS: u64 = 4_000;
const FAULTS_UNTIL_MS: u64 = 16_000;
/// By then every fault has ended or is ended.
pub const HEALED_AT: TrueNs = 20 * SECOND;

/// One simulation, whole: the same schedule runs the same way each time.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// For latencies, losses and jitter.
    pub seed: u64,
    pub nodes: Vec<NodePlan>,
    pub vips: u8,
    pub etcd_drift_ppm: i32,
    pub conduct: Conduct,
    pub placement: Placement,
    pub faults: Vec<(TrueNs, Fault)>,
}

/// How all nodes are configured for strangers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conduct {
    pub probes: bool,
    pub yields: bool,
}

/// How all nodes are configured for where shared IPs should be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placement {
    /// So many of the shared IPs, the first ones, are of one group.
    pub grouped: u8,
    pub preempt_ms: Option<u16>,
    pub rebalance_ms: Option<u16>,
    pub releases_when_all_unfit: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct NodePlan {
    pub uptime_s: u32,
    pub drift_ppm: i32,
    pub ttl_s: u8,
    /// For each of the shared IPs.
    pub priorities: [u8; 3],
    /// Whether its kernel has gates.
    pub fenced: bool,
}

/// A fault. Nodes and shared IPs are given by number, modulo how many there are.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The process is stopped, also between two actions of one answer.
    Pause {
        node: u8,
        after: u8,
        ms: u16,
    },
    /// The machine sleeps: the boot clock goes on, timers do not.
    Suspend {
        node: u8,
        ms: u16,
    },
    /// The process dies, also between two actions of one answer; what it pinned stays.
    Kill {
        node: u8,
        after: u8,
        back: Back,
    },
    /// The machine dies, with all that its kernel had.
    PowerCut {
        node: u8,
        back: Back,
    },
    Release {
        node: u8,
        back: Back,
    },
    Hold {
        node: u8,
        back: Back,
    },
    Drift {
        node: u8,
        ppm: i32,
    },
    /// Between a node and etcd, in the given directions.
    Cut {
        node: u8,
        requests: bool,
        answers: bool,
        ms: u16,
    },
    Slow {
        node: u8,
        by_ms: u16,
        ms: u16,
    },
    /// Requests under way fail at once, whatever becomes of them at the other end.
    Reset {
        node: u8,
    },
    WatchSilent {
        node: u8,
        ms: u16,
    },
    WatchCancelled {
        node: u8,
    },
    Compaction,
    /// To keys that are none of ours.
    OthersWrite {
        keys: u8,
    },
    SlowCommits {
        by_ms: u16,
        ms: u16,
    },
    LeaderDies {
        election_ms: u16,
    },
    /// Its disk hangs: a successor is elected, and it goes on answering renewals.
    LeaderStalls {
        election_ms: u16,
        answers_ms: u16,
    },
    DeleteOwner {
        vip: u8,
    },
    DeleteMember {
        node: u8,
    },
    RevokeLease {
        node: u8,
    },
    BackUp,
    /// Comes back from the last backup; empty, if there is none.
    Restore {
        down_ms: u16,
        as_another_cluster: bool,
    },
    /// That of one shared IP, or of all.
    InterfaceDown {
        node: u8,
        vip: Option<u8>,
        ms: u16,
    },
    /// The health checks of one shared IP fail, or of all.
    Unhealthy {
        node: u8,
        vip: Option<u8>,
        ms: u16,
    },
    /// Somebody wants a shared IP moved.
    Ask {
        node: u8,
        vip: u8,
        to: u8,
    },
    Drain {
        node: u8,
        force: bool,
    },
    Undrain {
        node: u8,
    },
    /// A shared IP is taken out of a node's configuration, and put in again.
    Configure {
        node: u8,
        vip: u8,
        ms: u16,
    },
    AddressRefused {
        node: u8,
        ms: u16,
    },
    /// A machine that is no member claims a shared IP, and answers for it; in the hearing of all nodes,
    /// or of one.
    Stranger {
        vip: u8,
        heard_by: Option<u8>,
        ms: u16,
    },
}

/// How a process comes back.
#[derive(Clone, Copy, Debug)]
pub struct Back {
    pub after_ms: u16,
    /// Without its state directory.
    pub forgetful: bool,
    /// With another `lease.ttl` in its configuration.
    pub ttl_s: Option<u8>,
}

pub fn any_schedule() -> impl Strategy<Value = Schedule> {
    let nodes = prop::collection::vec(any_node(), 2..=4);
    let faults = prop::collection::vec(any_timed_fault(), 0..=14);
    let conduct = any::<(bool, bool)>().prop_map(|(probes, yields)| Conduct { probes, yields });
    (
        any::<u64>().no_shrink(),
        nodes,
        1_u8..=3,
        drift(),
        conduct,
        any_placement(),
        faults,
    )
        .prop_map(
            |(seed, nodes, vips, etcd_drift_ppm, conduct, placement, faults)| Schedule {
                seed,
                nodes,
                vips,
                etcd_drift_ppm,
                conduct,
                placement,
                faults,
            },
        )
}

/// Two nodes that are far from etcd, a hand-over between them, and member keys that are deleted meanwhile:
/// what happens too seldom by chance.
pub fn ambush(seed: u64) -> Schedule {
    let node = NodePlan {
        uptime_s: 0,
        drift_ppm: 0,
        ttl_s: 3,
        priorities: [100; 3],
        fenced: true,
    };
    let pairs = [(0, 1), (1, 0)].into_iter().flat_map(|(node, to)| {
        let slow = Fault::Slow {
            node,
            by_ms: 700,
            ms: 6_000,
        };
        let ask = Fault::Ask { node, vip: 0, to };
        let deleted = Fault::DeleteMember { node };
        [
            (8_000, slow),
            (8_001, ask),
            (9_500, deleted),
            (10_500, deleted),
        ]
    });
    Schedule {
        seed,
        nodes: vec![node; 2],
        vips: 1,
        etcd_drift_ppm: 0,
        conduct: Conduct::default(),
        placement: Placement::default(),
        faults: pairs.map(|(ms, fault)| (ms * MS, fault)).collect(),
    }
}

fn any_node() -> impl Strategy<Value = NodePlan> {
    let priority = || prop_oneof![3 => Just(100_u8), 1 => prop_oneof![Just(50), Just(200)]];
    let priorities = prop::array::uniform3(priority());
    let fenced = prop::bool::weighted(0.85);
    (0_u32..10_000, drift(), 2_u8..=3, priorities, fenced).prop_map(
        |(uptime_s, drift_ppm, ttl_s, priorities, fenced)| NodePlan {
            uptime_s,
            drift_ppm,
            ttl_s,
            priorities,
            fenced,
        },
    )
}

fn any_placement() -> impl Strategy<Value = Placement> {
    let delay = || prop::option::weighted(0.4, 1_u16..3_000);
    (0_u8..=3, delay(), delay(), any::<bool>()).prop_map(
        |(grouped, preempt_ms, rebalance_ms, releases_when_all_unfit)| Placement {
            grouped,
            preempt_ms,
            rebalance_ms,
            releases_when_all_unfit,
        },
    )
}

/// Rates of any two clocks are within 10 % of each other.
fn drift() -> impl Strategy<Value = i32> {
    prop_oneof![Just(0), -47_000..=47_000]
}

fn any_timed_fault() -> impl Strategy<Value = (TrueNs, Fault)> {
    // Some at the same time, so that one befalls a node while it is about what another began.
    let at = prop_oneof![
        FAULTS_FROM_MS..FAULTS_UNTIL_MS,
        (FAULTS_FROM_MS / 2_000..FAULTS_UNTIL_MS / 2_000).prop_map(|number| number * 2_000),
    ];
    (at, any_fault()).prop_map(|(ms, fault)| (ms * MS, fault))
}

fn any_fault() -> impl Strategy<Value = Fault> {
    let node = || 0_u8..4;
    let vip = || 0_u8..3;
    let short = || 1_u16..6_000;
    let process = prop_oneof![
        (node(), 0_u8..12, short()).prop_map(|(node, after, ms)| Fault::Pause { node, after, ms }),
        (node(), short()).prop_map(|(node, ms)| Fault::Suspend { node, ms }),
        (node(), 0_u8..12, back()).prop_map(|(node, after, back)| Fault::Kill {
            node,
            after,
            back
        }),
        (node(), back()).prop_map(|(node, back)| Fault::PowerCut { node, back }),
        (node(), back()).prop_map(|(node, back)| Fault::Release { node, back }),
        (node(), back()).prop_map(|(node, back)| Fault::Hold { node, back }),
        (node(), drift()).prop_map(|(node, ppm)| Fault::Drift { node, ppm }),
        (node(), short()).prop_map(|(node, ms)| Fault::AddressRefused { node, ms }),
    ];
    let network = prop_oneof![
        (node(), any::<(bool, bool)>(), short()).prop_map(|(node, (one, other), ms)| Fault::Cut {
            node,
            requests: one || !other,
            answers: other,
            ms,
        }),
        (node(), 1_u16..800, short()).prop_map(|(node, by_ms, ms)| Fault::Slow { node, by_ms, ms }),
        node().prop_map(|node| Fault::Reset { node }),
        (node(), short()).prop_map(|(node, ms)| Fault::WatchSilent { node, ms }),
        node().prop_map(|node| Fault::WatchCancelled { node }),
    ];
    let etcd = prop_oneof![
        Just(Fault::Compaction),
        (1_u8..20).prop_map(|keys| Fault::OthersWrite { keys }),
        (1_u16..3_000, short()).prop_map(|(by_ms, ms)| Fault::SlowCommits { by_ms, ms }),
        (1_000_u16..2_500).prop_map(|election_ms| Fault::LeaderDies { election_ms }),
        (1_000_u16..2_500, 1_u16..14_000).prop_map(|(election_ms, answers_ms)| {
            Fault::LeaderStalls {
                election_ms,
                answers_ms,
            }
        }),
    ];
    let hands = prop_oneof![
        vip().prop_map(|vip| Fault::DeleteOwner { vip }),
        node().prop_map(|node| Fault::DeleteMember { node }),
        node().prop_map(|node| Fault::RevokeLease { node }),
        Just(Fault::BackUp),
        (1_u16..5_000, any::<bool>()).prop_map(|(down_ms, as_another_cluster)| Fault::Restore {
            down_ms,
            as_another_cluster,
        }),
    ];
    let stranger = (vip(), prop::option::of(node()), 1_u16..12_000)
        .prop_map(|(vip, heard_by, ms)| Fault::Stranger { vip, heard_by, ms });
    let part = || (node(), prop::option::of(vip()), short());
    let moves = prop_oneof![
        part().prop_map(|(node, vip, ms)| Fault::InterfaceDown { node, vip, ms }),
        part().prop_map(|(node, vip, ms)| Fault::Unhealthy { node, vip, ms }),
        (node(), vip(), node()).prop_map(|(node, vip, to)| Fault::Ask { node, vip, to }),
        (node(), vip(), node()).prop_map(|(node, vip, to)| Fault::Ask { node, vip, to }),
        (node(), any::<bool>()).prop_map(|(node, force)| Fault::Drain { node, force }),
        node().prop_map(|node| Fault::Undrain { node }),
        (node(), vip(), short()).prop_map(|(node, vip, ms)| Fault::Configure { node, vip, ms }),
    ];
    prop_oneof![5 => process, 4 => network, 3 => etcd, 2 => hands, 1 => stranger, 5 => moves]
}

fn back() -> impl Strategy<Value = Back> {
    let ttl_s = prop_oneof![3 => Just(None), 1 => (2_u8..=5).prop_map(Some)];
    (1_u16..6_000, prop::bool::weighted(0.3), ttl_s).prop_map(|(after_ms, forgetful, ttl_s)| Back {
        after_ms,
        forgetful,
        ttl_s,
    })
}
