//! What a node knows of the cluster, and which asks it refuses.

use super::*;

fn second() -> IpAddr {
    IpAddr::from([10, 0, 0, 101])
}

/// The owner of a group of two, with a member beside it that could take it.
fn pair() -> Rig {
    let grouped = |settings: Settings| {
        let one = VipSettings {
            group: Some("web".to_owned()),
            ..vip_settings()
        };
        let vips = [(vip(), one.clone()), (second(), one)];
        let vips = BTreeMap::from(vips);
        Settings { vips, ..settings }
    };
    let mut rig = Rig::joined_with(grouped);
    rig.tell(Event::Fitness(second(), Fitness::Fit(MAC)));
    rig.put_member(other(&[vip(), second()]));
    for ip in [vip(), second()] {
        rig.put_owner(ip, NODE, LEASE);
    }
    rig
}

fn other(vips: &[IpAddr]) -> Keyed<MemberRecord> {
    let mut other = member("n2", OTHERS, 0);
    other.record.vips = vips.iter().copied().collect();
    other
}

impl Rig {
    fn put_member(&mut self, mut member: Keyed<MemberRecord>) {
        self.revision += 1;
        member.mod_revision = self.revision;
        self.watch(Change::MemberPut(member.record.node.clone(), member));
    }

    fn put_owner(&mut self, ip: IpAddr, node: &str, lease: LeaseId) {
        self.revision += 1;
        let owned = owned_by(node, lease, self.revision);
        self.watch(Change::OwnerPut(ip, owned));
    }

    fn drain(&mut self, node: &str) {
        self.revision += 1;
        self.watch(Change::Drained {
            node: node.to_owned(),
            record: DrainRecord {
                force: false,
                since: "yesterday".to_owned(),
            },
            revision: self.revision,
        });
    }

    fn refused(&self, ip: IpAddr, to: &str) -> AskRefused {
        self.election.may_go(ip, to).expect_err("it may not go")
    }
}

#[test]
fn a_shared_ip_may_go_to_a_member_that_can_take_all_of_its_group() {
    let mut rig = pair();
    assert_eq!(rig.election.may_go(second(), "n2"), Ok(()));
    rig.put_member(other(&[vip()]));
    assert_eq!(
        rig.refused(vip(), "n2"),
        AskRefused::Hindered {
            to: "n2".to_owned(),
            obstacle: Obstacle::NotOffered(second())
        }
    );
}

#[test]
fn what_is_refused_says_why() {
    let mut rig = pair();
    let stranger = IpAddr::from([10, 0, 0, 9]);
    let known = vec![vip(), second()];
    assert_eq!(
        rig.refused(stranger, "n2"),
        AskRefused::UnknownVip {
            vip: stranger,
            known
        }
    );
    let members = [NODE, "n2"].map(str::to_owned).to_vec();
    let to = "n9".to_owned();
    assert_eq!(
        rig.refused(vip(), "n9"),
        AskRefused::NoMember { to, members }
    );
    let to = NODE.to_owned();
    assert_eq!(rig.refused(vip(), NODE), AskRefused::AlreadyThere { to });
    let mut ill = other(&[second()]);
    ill.record.unfit = BTreeMap::from([(vip(), "tcp x:1 fails".to_owned())]);
    rig.put_member(ill);
    let refused = rig.refused(second(), "n2").to_string();
    assert!(refused.contains("tcp x:1 fails"), "{refused}");
    rig.drain("n2");
    let refused = rig.refused(vip(), "n2").to_string();
    for part in ["drained since yesterday", "undrain --node n2"] {
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn nobody_can_hand_over_what_nobody_owns() {
    let mut rig = pair();
    for ip in [vip(), second()] {
        rig.revision += 1;
        rig.watch(Change::OwnerGone {
            vip: ip,
            revision: rig.revision,
        });
    }
    assert_eq!(rig.refused(vip(), "n2"), AskRefused::Vacant(vip()));
}

#[test]
fn a_node_that_lost_sight_of_etcd_asks_for_nothing() {
    let mut rig = pair();
    rig.pass(3000);
    assert_eq!(rig.refused(vip(), "n2"), AskRefused::NotIn);
    let out = Rig::start(Inheritance::default());
    assert_eq!(out.refused(vip(), "n2"), AskRefused::NotIn);
}

#[test]
fn how_far_a_hand_over_has_come_is_told_by_what_etcd_has() {
    let mut rig = pair();
    let passage = |rig: &Rig| rig.election.passage(vip(), "n2");
    assert_eq!(passage(&rig), Passage::NotNamed(vec![NODE.to_owned()]));
    for ip in [vip(), second()] {
        rig.revision += 1;
        let mut owned = owned_by(NODE, LEASE, rig.revision);
        owned.record.successor = Some("n2".to_owned());
        rig.watch(Change::OwnerPut(ip, owned));
    }
    assert_eq!(passage(&rig), Passage::NotReady);
    let mut ready = other(&[vip(), second()]);
    for (ip, epoch) in [(vip(), rig.revision - 1), (second(), rig.revision)] {
        let mac = OTHERS_MAC;
        ready.record.ready.insert(ip, Readiness { mac, epoch });
    }
    rig.put_member(ready);
    assert_eq!(passage(&rig), Passage::NotGiven(vec![NODE.to_owned()]));
    rig.put_owner(second(), "n2", OTHERS);
    assert_ne!(passage(&rig), Passage::There);
    rig.put_owner(vip(), "n2", OTHERS);
    assert_eq!(passage(&rig), Passage::There);
    let to = "n2".to_owned();
    assert_eq!(rig.refused(vip(), "n2"), AskRefused::AlreadyThere { to });
    // It is there, and not to stay.
    rig.revision += 1;
    let mut leaving = owned_by("n2", OTHERS, rig.revision);
    leaving.record.successor = Some(NODE.to_owned());
    rig.watch(Change::OwnerPut(vip(), leaving));
    assert_eq!(passage(&rig), Passage::Leaving(NODE.to_owned()));
    assert_eq!(rig.election.may_go(vip(), "n2"), Ok(()));
    rig.revision += 1;
    rig.watch(Change::MemberGone {
        node: "n2".to_owned(),
        revision: rig.revision,
    });
    rig.put_owner(vip(), NODE, LEASE);
    assert!(matches!(
        passage(&rig),
        Passage::Refused(AskRefused::NoMember { .. })
    ));
}

#[test]
fn who_asks_for_something_else_supersedes_the_first_and_who_asks_no_more_is_not_heeded() {
    let mut rig = pair();
    let mut third = member("n3", LeaseId(0x99), 0);
    third.record.vips = [vip(), second()].into();
    rig.put_member(third);
    for ip in [vip(), second()] {
        rig.put_owner(ip, "n3", LeaseId(0x99));
    }
    let ask = |to: &str| Event::Ask {
        vip: vip(),
        to: to.to_owned(),
    };
    rig.tell(ask("n2"));
    assert_eq!(
        rig.election.passage(vip(), "n2"),
        Passage::NotNamed(vec!["n3".to_owned()])
    );
    rig.tell(ask(NODE));
    let superseded = Passage::Superseded(NODE.to_owned());
    assert_eq!(rig.election.passage(vip(), "n2"), superseded);
    let unask = |to: &str| Event::Unask {
        vip: vip(),
        to: to.to_owned(),
    };
    // The first gives up, and what stands is the other's.
    rig.tell(unask("n2"));
    assert_eq!(
        rig.election.asks(),
        BTreeMap::from([(vip(), NODE.to_owned())])
    );
    rig.tell(unask(NODE));
    assert!(rig.election.asks().is_empty());
}

#[test]
fn those_who_could_take_it_stand_in_line_and_the_others_have_a_reason() {
    let mut rig = pair();
    let mut first = member("n3", LeaseId(0x99), 0);
    first.record.vips = [vip(), second()].into();
    first.record.priorities = BTreeMap::from([(second(), 200)]);
    rig.put_member(first);
    let line = rig.election.line(vip());
    let line: Vec<_> = line.iter().map(|one| (one.node, one.priority)).collect();
    assert_eq!(line, [("n3", 200), ("n2", 100)]);
    assert_eq!(rig.election.obstacles(vip(), NODE), None);
    rig.drain("n2");
    rig.drain("n3");
    let since = Obstacle::Drained("yesterday".to_owned());
    let all = BTreeMap::from([("n2", since.clone()), ("n3", since)]);
    assert_eq!(rig.election.obstacles(second(), NODE), Some(all));
    // Of one that this node does not list itself it knows who does.
    let foreign = IpAddr::from([10, 0, 0, 9]);
    let mut lists_it = member("n4", LeaseId(0x98), 0);
    lists_it.record.vips = [foreign].into();
    rig.put_member(lists_it);
    assert_eq!(rig.election.obstacles(foreign, "n3"), None);
    let obstacles = rig.election.obstacles(foreign, "n4");
    let obstacles = obstacles.expect("nobody else lists it");
    assert_eq!(obstacles.get(NODE), Some(&Obstacle::NotOffered(foreign)));
    let units = rig.election.units();
    assert_eq!(units.len(), 1);
    assert_eq!(units[0].vips, [vip(), second()]);
    assert_eq!((units[0].group, units[0].owners.len()), (Some("web"), 1));
    let holdings = rig.election.holdings();
    assert_eq!(holdings, BTreeMap::from([(NODE, vec![vip(), second()])]));
}
