//! Shared IPs that come and go while the agent runs, and what is said of all of them.

use super::*;

fn configure(rig: &mut Rig, vips: &[IpAddr]) {
    let vips = vips.iter().map(|vip| (*vip, vip_settings())).collect();
    rig.tell(Event::Configure(vips));
}

#[test]
fn what_is_configured_no_longer_and_nobody_else_can_take_is_given_up_in_order_and_forgotten() {
    let mut rig = Rig::owner();
    configure(&mut rig, &[]);
    assert_eq!(rig.steps(), ["close", "remove address", "release"]);
    rig.did.clear();
    rig.revision += 1;
    let revision = rig.revision;
    rig.tell(Event::Released(vip(), Outcome::Committed { revision }));
    assert!(rig.did.contains(&Action::Forget(vip())), "{:?}", rig.did);
    assert_eq!(rig.election.role(vip(), at_ms(rig.now_ms)), None);
}

#[test]
fn what_somebody_else_owns_is_forgotten_at_once() {
    let mut rig = Rig::joined();
    rig.watch(Change::OwnerPut(vip(), owned_by("n2", OTHERS, 12)));
    rig.did.clear();
    configure(&mut rig, &[]);
    assert!(rig.did.contains(&Action::Forget(vip())), "{:?}", rig.did);
    assert_eq!(rig.steps(), ["forget"]);
}

#[test]
fn what_is_given_up_because_no_node_is_fit_is_not_taken_up_in_between() {
    let mut rig = Rig::owner();
    rig.tell(Event::Policy(Policy {
        yields: false,
        preempt: None,
        rebalance: None,
        when_all_unfit: WhenAllUnfit::Release,
    }));
    rig.did.clear();
    rig.tell(Event::Fitness(
        vip(),
        Fitness::Unhealthy(MAC, "a check fails".to_owned()),
    ));
    assert_eq!(rig.steps(), ["close", "remove address", "release"]);
}

#[test]
fn a_policy_is_followed_from_then_on() {
    let mut rig = Rig::owner();
    let stranger = Mac([2, 0, 0, 0, 0, 9]);
    rig.tell(Event::Policy(Policy {
        yields: true,
        preempt: None,
        rebalance: None,
        when_all_unfit: WhenAllUnfit::Keep,
    }));
    assert_eq!(rig.role(), Role::Owner);
    rig.did.clear();
    rig.tell(Event::Conflict {
        vip: vip(),
        mac: stranger,
    });
    assert_eq!(rig.steps(), ["close", "remove address", "release"]);
}
