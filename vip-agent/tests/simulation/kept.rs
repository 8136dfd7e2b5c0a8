//! Schedules that once broke a rule, as they were left when shrunk.

use super::{
    clock::MS,
    schedule::{Back, Fault, NodePlan, Schedule},
    world::World,
};

/// The store comes back empty while the owner, whose TTL is the longer one, is down: who had only
/// the new history to go by waited for too short a time.
#[test]
fn the_ttls_of_a_lost_history_are_waited_out() {
    let back = Back {
        after_ms: 2820,
        forgetful: false,
        ttl_s: None,
    };
    holds(Schedule {
        seed: 13_444_594_779_244_350_316,
        nodes: vec![node(2), node(3)],
        vips: 1,
        etcd_drift_ppm: 0,
        faults: vec![
            (
                7706 * MS,
                Fault::Kill {
                    node: 1,
                    after: 7,
                    back,
                },
            ),
            (8318 * MS, restored()),
        ],
    });
}

/// A backup without the owner's member key is restored: the one that it had written since, at a
/// higher revision, was taken for newer than every read, and never written again.
#[test]
fn a_member_key_that_a_restored_store_never_had_is_written_again() {
    holds(Schedule {
        seed: 16_107_459_433_173_183_564,
        nodes: vec![node(2); 3],
        vips: 1,
        etcd_drift_ppm: 0,
        faults: vec![
            (
                4000 * MS,
                Fault::Slow {
                    node: 0,
                    by_ms: 1,
                    ms: 1,
                },
            ),
            (4517 * MS, Fault::DeleteMember { node: 2 }),
            (4517 * MS, Fault::BackUp),
            (6455 * MS, restored()),
        ],
    });
}

fn holds(schedule: Schedule) {
    if let Err(violation) = World::new(&schedule, None, false).run() {
        panic!("{violation}");
    }
}

fn node(ttl_s: u8) -> NodePlan {
    NodePlan {
        uptime_s: 0,
        drift_ppm: 0,
        ttl_s,
    }
}

fn restored() -> Fault {
    Fault::Restore {
        down_ms: 1,
        as_another_cluster: false,
    }
}
