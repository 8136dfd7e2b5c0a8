//! Schedules that once broke a rule, as they were left when shrunk.

use super::{
    clock::MS,
    schedule::{Back, Conduct, Fault, NodePlan, Placement, Schedule},
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
        conduct: Conduct::default(),
        placement: Placement::default(),
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
        conduct: Conduct::default(),
        placement: Placement::default(),
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

/// The store comes back empty while the owner is cut off and sleeps. When it wakes it gives up what
/// it knew, by a revision that the new history has given to the new owner's key.
#[test]
fn a_give_up_deletes_nothing_of_another_history() {
    let back = |after_ms, ttl_s| Back {
        after_ms,
        forgetful: false,
        ttl_s,
    };
    let drifting = NodePlan {
        drift_ppm: 6185,
        ..node(2)
    };
    holds(Schedule {
        seed: 15_526_631_038_180_000_860,
        nodes: vec![drifting, node(3)],
        vips: 2,
        etcd_drift_ppm: 0,
        conduct: Conduct::default(),
        placement: Placement::default(),
        faults: vec![
            (
                12_921 * MS,
                Fault::Release {
                    node: 0,
                    back: back(1, None),
                },
            ),
            (
                7370 * MS,
                Fault::Pause {
                    node: 1,
                    after: 0,
                    ms: 1,
                },
            ),
            (
                5027 * MS,
                Fault::PowerCut {
                    node: 1,
                    back: back(4866, Some(5)),
                },
            ),
            (
                9083 * MS,
                Fault::Cut {
                    node: 0,
                    requests: true,
                    answers: false,
                    ms: 3655,
                },
            ),
            (12_407 * MS, Fault::Suspend { node: 0, ms: 3215 }),
            (
                6395 * MS,
                Fault::Restore {
                    down_ms: 3018,
                    as_another_cluster: false,
                },
            ),
        ],
    });
}

/// A backup brings back the lease of an owner that has been dead for long, with nothing in it that
/// this one did not know: its lease lives although it should have ended, and that is how it can tell.
#[test]
fn a_lease_that_a_backup_brought_back_is_not_gone_on_with() {
    let back = |after_ms| Back {
        after_ms,
        forgetful: false,
        ttl_s: None,
    };
    holds(Schedule {
        seed: 17_043_376_564_654_374_432,
        nodes: vec![node(3), node(2)],
        vips: 1,
        etcd_drift_ppm: 0,
        conduct: Conduct::default(),
        placement: Placement::default(),
        faults: vec![
            (
                11_769 * MS,
                Fault::Restore {
                    down_ms: 1001,
                    as_another_cluster: false,
                },
            ),
            (
                6067 * MS,
                Fault::Pause {
                    node: 1,
                    after: 7,
                    ms: 4644,
                },
            ),
            (4000 * MS, Fault::BackUp),
            (
                10_267 * MS,
                Fault::Kill {
                    node: 2,
                    after: 6,
                    back: back(1),
                },
            ),
            (
                9309 * MS,
                Fault::Kill {
                    node: 1,
                    after: 0,
                    back: back(3462),
                },
            ),
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
        priorities: [100; 3],
        fenced: true,
    }
}

fn restored() -> Fault {
    Fault::Restore {
        down_ms: 1,
        as_another_cluster: false,
    }
}
