//! The neighbour protocols to the letter, read off the wire: ARP (RFC 826, RFC 5227) and Neighbour Discovery (RFC 4861, RFC 4862).

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use pnet::util::MacAddr;
use vip_tests::addresses::Addresses;
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{BOTH, Bed, SHARED, Setup, VIP, VIP6, scenario};
use vip_tests::failover::{SETTLED_WITHIN, agents_up, fail_over, never_two, up};
use vip_tests::netns::Netns;
use vip_tests::probe::frames::ipv6::solicited_node;
use vip_tests::probe::socket::PacketSocket;
use vip_tests::wire::asked::{Arp, Neighbour, from};
use vip_tests::wire::said::{OVERRIDE, ROUTER, SOLICITED};
use vip_tests::wire::tap::Place;
use vip_tests::wire::{Said, Sent, Spoken, Tap, tcpdump};
use vip_tests::{command, gate, say, wait};

/// An answer of XDP's takes microseconds; this is what a busy machine gets.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddr = MacAddr(0x33, 0x33, 0, 0, 0, 1);
/// A machine that nobody has, in whose name questions are asked.
const STRANGER: Addresses = Addresses::new(77, 202);
const STRANGER_MAC: MacAddr = MacAddr(2, 0x76, 0x69, 77, 0, 202);

#[test]
fn an_owner_answers_neighbours_to_the_letter_and_its_followers_stay_silent() -> Result<()> {
    scenario("answers to the letter", Setup::default(), |bed| {
        let tap = bed.tap()?;
        let owner = agents_up(bed, &of_both_families())?;
        let mut wire = Wire::of(bed, owner, tap)?;
        let before = counters(bed, owner, "answered")?;

        arp(&mut wire)?;
        solicitations(&mut wire)?;
        invalid_solicitations(&mut wire)?;
        routers(&mut wire)?;

        let (answered, due) = (counters(bed, owner, "answered")?, wire.due);
        let by_xdp = (answered.0 - before.0, answered.1 - before.1);
        ensure!(by_xdp == due, "XDP answered {by_xdp:?} of {due:?}");
        for index in (0..3).filter(|index| *index != owner) {
            let stale = counters(bed, index, "stale")?;
            ensure!(
                stale.0 >= 2 && stale.1 >= 2,
                "{} counted as stale {stale:?}",
                bed.nodes[index].name()
            );
        }
        nobody_but(owner, &wire.tap)?;
        decodes(bed, &wire.tap)
    })
}

#[test]
fn a_take_over_is_announced_to_the_letter_and_a_frozen_owner_says_nothing_past_its_deadline()
-> Result<()> {
    scenario("announcements to the letter", Setup::default(), |bed| {
        let tap = bed.tap()?;
        let first = agents_up(bed, &of_both_families())?;
        announced(bed, &tap, first, Place::default())?;
        listens(bed, &tap, first, Place::default())?;

        // Asked to stop, with what it leaves behind.
        let place = tap.place()?;
        let (released, group) = (tap.place()?, group());
        bed.stop_agent(first)?;
        let second = bed.next_owner(VIP, first, SETTLED_WITHIN)?;
        ensure!(bed.next_owner(VIP6, first, SETTLED_WITHIN)? == second);
        announced(bed, &tap, second, place)?;
        listens(bed, &tap, second, place)?;
        let left = |sent: &Sent| {
            let gone =
                matches!(&sent.spoken.said, Said::Listens { left, .. } if left.contains(&group));
            gone && sent.node == first
        };
        tap.await_sent("the group to be left", released, SETTLED_WITHIN, left)?;
        ensure!(!is_member(bed, first)?, "{group} is still joined");
        no_duplicate_address_detection(&tap, second, place)?;

        // Frozen: its gate shuts by itself.
        bed.freeze_agent(second)?;
        past_its_deadline(bed, second)?;
        let place = tap.place()?;
        fenced(bed, second)?;
        let third = bed.next_owner(VIP, second, SETTLED_WITHIN)?;
        bed.next_owner(VIP6, second, SETTLED_WITHIN)?;
        announced(bed, &tap, third, place)?;
        bed.thaw_agent(second)?;
        bed.settled(VIP, &[second, third], SETTLED_WITHIN)?;
        bed.settled(VIP6, &[second, third], SETTLED_WITHIN)?;
        let said = spoken_for(&tap.since(place)?, second);
        ensure!(said.is_empty(), "past its deadline it sent {said:#?}");

        decodes(bed, &tap)
    })
}

#[test]
fn a_client_whose_cache_held_the_old_owner_reaches_the_new_one_at_once() -> Result<()> {
    scenario("a client's cache", Setup::default(), |bed| {
        let config = AgentConfig::of_both_families().saying(&BOTH, "group: pair");
        let (first, probe) = up(bed, &config)?;
        let tap = bed.tap()?;
        bed.cluster.lead_elsewhere(first)?;
        cached(&bed.client, (bed, first))?;
        let place = tap.place()?;
        // Nobody tells that it goes, so the cache holds it to the end.
        let failover = fail_over(bed, &probe, first, |bed| bed.freeze_agent(first))?;
        never_two(&failover.report)?;
        for (vip, owner) in &failover.owners {
            let announcement = |sent: &Sent| sent.node == *owner && sent.spoken.speaks_for(*vip);
            let what = format!("an announcement of {vip}");
            let announced = tap.await_sent(&what, place, SETTLED_WITHIN, announcement)?;
            let noticed = failover.report.of_vip(*vip)?;
            let outage = noticed.outages.iter().max_by_key(|outage| outage.lasted);
            let outage = outage.with_context(|| format!("no outage of {vip}: {noticed:#?}"))?;
            let back = probe.started() + outage.began + outage.lasted;
            let took = back.saturating_duration_since(announced.at);
            let what = format!("a client's stale cache, {vip}: back after the announcement in");
            say::measured(&what, took, CACHE);
            // Without the announcement it would be seconds, and with the next one more than a second.
            let busy = Duration::from_millis(450);
            ensure!(took <= CACHE + busy, "{noticed:#?}");
        }
        cached(&bed.client, (bed, failover.new))?;
        // Followers have it from etcd, and believe nobody else.
        for node in (0..bed.nodes.len()).filter(|node| *node != failover.new && *node != first) {
            cached(bed.nodes[node].netns(), (bed, failover.new))?;
        }
        Ok(())
    })
}

const CACHE: Duration = Duration::from_millis(50);

#[test]
fn a_switch_that_snoops_delivers_solicitations_to_the_owner_alone() -> Result<()> {
    scenario("MLD snooping", Setup::default(), |bed| {
        let tap = bed.tap()?;
        let owner = agents_up(bed, &of_both_families())?;
        snoop(bed)?;
        let mut wire = Wire::of(bed, owner, tap)?;
        let port = bed
            .switch
            .port(bed.nodes[owner].interface("eth0")?)
            .to_owned();
        wait::until_true("the switch to know the group", SETTLED_WITHIN, || {
            let switch = bed.switch.netns().name();
            let entries = command::run("bridge", &["-n", switch, "mdb", "show"])?;
            let known = |line: &str| line.contains(&port) && line.contains(&group().to_string());
            Ok(entries.lines().any(known))
        })?;
        let follower = (owner + 1) % 3;
        wait::until_true("followers to be spared", SETTLED_WITHIN, || {
            let before = counters(bed, follower, "stale")?;
            wire.sentinels()?;
            let after = counters(bed, follower, "stale")?;
            // The broadcast shows that it would have been counted.
            Ok(after.0 > before.0 && after.1 == before.1)
        })
    })
}

/// Questions of a stranger's, and what is sent for an answer.
struct Wire<'b> {
    bed: &'b Bed,
    owner: usize,
    mac: MacAddr,
    client: PacketSocket,
    tap: Tap,
    /// How many answers were due, in each family.
    due: (u64, u64),
}

impl<'b> Wire<'b> {
    /// Waits until the owner has announced itself, for an announcement can look like an answer. `tap` has listened from the start.
    fn of(bed: &'b Bed, owner: usize, tap: Tap) -> Result<Wire<'b>> {
        wait::until_true("the announcements to end", SETTLED_WITHIN, || {
            let said = spoken_for(&tap.all()?, owner);
            let last = said.last().context("nothing was announced")?;
            Ok(last.at.elapsed() > Duration::from_millis(1500))
        })?;
        Ok(Wire {
            bed,
            owner,
            mac: bed.nodes[owner].interface("eth0")?.mac,
            client: bed.client_socket()?,
            tap,
            due: (0, 0),
        })
    }

    /// Asks, and checks that this is what the owner says to it.
    fn answers(&mut self, what: &str, question: &[u8], answer: &Spoken) -> Result<()> {
        let said = self.hear(what, question)?;
        ensure!(said == *answer, "{what}: {said:#?} instead of {answer:#?}");
        Ok(())
    }

    /// Asks, and returns what the owner says to it.
    fn hear(&mut self, what: &str, question: &[u8]) -> Result<Spoken> {
        let place = self.tap.place()?;
        self.client.send(question);
        let answer = |sent: &Sent| sent.node == self.owner && speaks_for_any(&sent.spoken);
        let heard = self.tap.await_sent(what, place, ANSWERED_WITHIN, answer)?;
        match heard.spoken.said {
            Said::Arp { .. } => self.due.0 += 1,
            _ => self.due.1 += 1,
        }
        Ok(heard.spoken)
    }

    /// Asks what is no question, or none for the owner, and checks that nothing is said to it.
    fn is_silent(&mut self, what: &str, question: &[u8]) -> Result<()> {
        let place = self.tap.place()?;
        self.client.send(question);
        // What comes behind it on the same wire is answered.
        self.sentinels()?;
        let said = spoken_for(&self.tap.since(place)?, self.owner);
        ensure!(said.len() == 2, "{what} was answered: {said:#?}");
        Ok(())
    }

    /// A plain question of each family.
    fn sentinels(&mut self) -> Result<()> {
        let arp = Arp::request((STRANGER_MAC, STRANGER.v4), SHARED.v4);
        self.hear("an ARP request", &arp.frame())?;
        let solicitation = Neighbour::solicitation((STRANGER_MAC, STRANGER.v6), SHARED.v6);
        self.hear("a solicitation", &solicitation.frame()).map(drop)
    }

    fn reply(&self, to: MacAddr, asker: (MacAddr, Ipv4Addr)) -> Spoken {
        Spoken {
            from: self.mac,
            to,
            said: Said::Arp {
                operation: 2,
                sender: (self.mac, SHARED.v4),
                target: asker,
            },
        }
    }

    fn advertisement(&self, to: (MacAddr, Ipv6Addr), flags: u8) -> Spoken {
        let vip = SHARED.v6;
        Spoken {
            from: self.mac,
            to: to.0,
            said: Said::Advertisement {
                ip: (vip, to.1),
                flags,
                target: vip,
                link_layer: Some(self.mac),
            },
        }
    }
}

fn arp(wire: &mut Wire<'_>) -> Result<()> {
    let asker = (STRANGER_MAC, STRANGER.v4);
    let request = Arp::request(asker, SHARED.v4);
    let reply = wire.reply(STRANGER_MAC, asker);
    wire.answers("an ARP request (RFC 826)", &request.frame(), &reply)?;
    let unicast = Arp {
        ethernet: (STRANGER_MAC, wire.mac),
        ..request
    };
    wire.answers(
        "a unicast ARP request (RFC 1122, 2.3.2.1)",
        &unicast.frame(),
        &reply,
    )?;
    let elsewhere = from(request.frame(), MacAddr::new(2, 0, 0, 0, 0, 9));
    wire.answers(
        "an ARP request by way of another (RFC 826)",
        &elsewhere,
        &reply,
    )?;

    let nobody = (STRANGER_MAC, Ipv4Addr::UNSPECIFIED);
    let probe = Arp::request(nobody, SHARED.v4);
    let reply = wire.reply(STRANGER_MAC, nobody);
    wire.answers("an ARP probe (RFC 5227, 2.1.1)", &probe.frame(), &reply)?;

    let no_request = Arp {
        operation: 2,
        target: (wire.mac, SHARED.v4),
        ..request
    };
    let frame = request.frame();
    for (what, question) in [
        ("an ARP reply", no_request.frame()),
        ("an ARP request cut short", frame[..40].to_vec()),
        (
            "an ARP request of another kind of hardware",
            with(&frame, 15, 7),
        ),
        ("an ARP request for another", with(&frame, 41, 99)),
    ] {
        wire.is_silent(what, &question)?;
    }
    Ok(())
}

fn solicitations(wire: &mut Wire<'_>) -> Result<()> {
    let asker = (STRANGER_MAC, STRANGER.v6);
    let plain = Neighbour::solicitation(asker, SHARED.v6);
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6].to_vec();
    let answer = wire.advertisement(asker, SOLICITED | OVERRIDE);
    let unicast = Neighbour {
        ethernet: (STRANGER_MAC, wire.mac),
        ip: (STRANGER.v6, SHARED.v6),
        ..plain.clone()
    };
    let without = |plain: &Neighbour| Neighbour {
        options: Vec::new(),
        ..plain.clone()
    };
    let with_nonce = Neighbour {
        options: [nonce.clone(), plain.options.clone()].concat(),
        ..plain.clone()
    };
    for (what, question) in [
        ("a multicast solicitation (RFC 4861, 7.2.4)", &plain),
        ("one without a source link-layer option", &without(&plain)),
        ("one with an option more (RFC 4861, 4.6)", &with_nonce),
        ("a unicast solicitation (RFC 4861, 7.3.3)", &unicast),
        ("a unicast one without an option", &without(&unicast)),
    ] {
        wire.answers(what, &question.frame(), &answer)?;
    }
    let elsewhere = from(plain.frame(), MacAddr::new(2, 0, 0, 0, 0, 9));
    wire.answers(
        "one by way of another (RFC 4861, 7.2.3)",
        &elsewhere,
        &answer,
    )?;

    let answer = wire.advertisement((ALL_NODES_MAC, ALL_NODES), OVERRIDE);
    let probe = probe();
    let with_nonce = Neighbour {
        options: nonce,
        ..probe.clone()
    };
    wire.answers(
        "a look for duplicates (RFC 4862, 5.4.3)",
        &probe.frame(),
        &answer,
    )?;
    wire.answers("one with a nonce (RFC 7527)", &with_nonce.frame(), &answer)
}

/// What a host asks in nobody's name before it takes an address (RFC 4862, section 5.4.2).
fn probe() -> Neighbour {
    Neighbour {
        options: Vec::new(),
        ..Neighbour::solicitation((STRANGER_MAC, Ipv6Addr::UNSPECIFIED), SHARED.v6)
    }
}

/// All that RFC 4861, section 7.1.1, has a node discard.
fn invalid_solicitations(wire: &mut Wire<'_>) -> Result<()> {
    let vip = SHARED.v6;
    let plain = Neighbour::solicitation((STRANGER_MAC, STRANGER.v6), vip);
    let but = |change: &dyn Fn(&mut Neighbour)| {
        let mut question = plain.clone();
        change(&mut question);
        question.frame()
    };
    let own = |ask: &mut Neighbour| ask.ip.0 = Ipv6Addr::UNSPECIFIED;
    let short = |frame: Vec<u8>| {
        let mut frame = frame[..14 + 40 + 20].to_vec();
        frame[14 + 5] = 20;
        frame
    };
    for (what, question) in [
        ("hop limit 254", but(&|ask| ask.hop_limit = 254)),
        ("a wrong checksum", with(&plain.frame(), 14 + 40 + 2, 0xaa)),
        ("code 1", but(&|ask| ask.code = 1)),
        ("20 octets", short(plain.frame())),
        ("an option of length 0", but(&|ask| ask.options[1] = 0)),
        ("an option past the end", but(&|ask| ask.options[1] = 2)),
        (
            "a multicast target",
            but(&|ask| ask.target = solicited_node(vip)),
        ),
        ("from nobody, with a link-layer option", but(&own)),
        (
            "from nobody, to the address itself",
            Neighbour {
                ethernet: (STRANGER_MAC, wire.mac),
                ip: (Ipv6Addr::UNSPECIFIED, vip),
                ..probe()
            }
            .frame(),
        ),
        (
            "from nobody, to all nodes",
            Neighbour {
                ethernet: (STRANGER_MAC, ALL_NODES_MAC),
                ip: (Ipv6Addr::UNSPECIFIED, ALL_NODES),
                ..probe()
            }
            .frame(),
        ),
        ("another target", but(&|ask| ask.target = STRANGER.v6)),
    ] {
        wire.is_silent(&format!("a solicitation with {what}"), &question)?;
    }
    Ok(())
}

/// Router is what the host is (RFC 4861, section 4.4).
fn routers(wire: &mut Wire<'_>) -> Result<()> {
    for (forwarding, router) in [("1", ROUTER), ("0", 0)] {
        let netns = wire.bed.nodes[wire.owner].netns();
        let setting = "/proc/sys/net/ipv6/conf/eth0/forwarding";
        netns.within(|| Ok(fs::write(setting, forwarding)?))?;
        let asker = (STRANGER_MAC, STRANGER.v6);
        let question = Neighbour::solicitation(asker, SHARED.v6).frame();
        let answer = wire.advertisement(asker, router | SOLICITED | OVERRIDE);
        wait::until_true("the Router flag to follow the host", SETTLED_WITHIN, || {
            Ok(wire.hear("a solicitation", &question)? == answer)
        })?;
        let answer = wire.advertisement((ALL_NODES_MAC, ALL_NODES), router | OVERRIDE);
        wire.answers("a look for duplicates", &probe().frame(), &answer)?;
    }
    Ok(())
}

/// A form of announcement, and how it is known.
type Form<'f> = (&'f str, &'f dyn Fn(&Spoken) -> bool);

/// Checks what a new owner tells all unasked, in which forms, and when: at once, after 1.1 s and after 2.2 s.
fn announced(bed: &Bed, tap: &Tap, owner: usize, since: Place) -> Result<()> {
    let mac = bed.nodes[owner].interface("eth0")?.mac;
    let (vip, target) = (SHARED.v4, SHARED.v6);
    let arp = |operation| {
        move |spoken: &Spoken| {
            let own = (mac, vip);
            spoken.to == MacAddr::broadcast()
                && matches!(&spoken.said, Said::Arp { operation: said, sender, target }
                    if *said == operation && *sender == own && target.1 == vip)
        }
    };
    let advertisement = Spoken {
        from: mac,
        to: ALL_NODES_MAC,
        said: Said::Advertisement {
            ip: (target, ALL_NODES),
            flags: OVERRIDE,
            target,
            link_layer: Some(mac),
        },
    };
    let unsolicited = |spoken: &Spoken| *spoken == advertisement;
    let (request, reply) = (arp(1), arp(2));
    let forms: [Form<'_>; 3] = [
        ("ARP announcements (RFC 5227, 2.3)", &request),
        ("gratuitous ARP replies (RFC 5944, 4.6)", &reply),
        ("unsolicited advertisements (RFC 4861, 7.2.6)", &unsolicited),
    ];
    for (what, form) in forms {
        let what = format!("{what} of {}, three times", bed.nodes[owner].name());
        let bursts = wait::until(&what, SETTLED_WITHIN, || {
            let sent = tap.since(since)?;
            let times = sent
                .iter()
                .filter(|sent| sent.node == owner && form(&sent.spoken));
            let bursts = bursts(times.map(|sent| sent.at));
            Ok((bursts.len() >= 3).then_some(bursts))
        });
        let said = || spoken_for(&tap.since(since).unwrap_or_default(), owner);
        let bursts = bursts.with_context(|| format!("it said {:#?}", said()))?;
        for (burst, due_ms) in bursts[1..].iter().zip([1100, 2200]) {
            let (after, due) = (*burst - bursts[0], Duration::from_millis(due_ms));
            let timely = due - Duration::from_millis(200)..due + Duration::from_secs(1);
            ensure!(timely.contains(&after), "{what}: {after:?} after the first");
        }
    }
    // Nothing else is claimed: what it sends is one of these, or an answer to somebody.
    for sent in spoken_for(&tap.since(since)?, owner) {
        let asked =
            !matches!(sent.spoken.to, to if to == MacAddr::broadcast() || to == ALL_NODES_MAC);
        let known = forms.iter().any(|(_, form)| form(&sent.spoken));
        ensure!(asked || known, "what is this: {sent:#?}");
    }
    Ok(())
}

/// When each burst began: what is more than half a second apart is two.
fn bursts(times: impl Iterator<Item = Instant>) -> Vec<Instant> {
    let mut begins = Vec::new();
    let mut last: Option<Instant> = None;
    for at in times {
        if last.is_none_or(|last| at - last > Duration::from_millis(500)) {
            begins.push(at);
        }
        last = Some(at);
    }
    begins
}

/// The solicited-node group is joined on the wire (RFC 4861, section 7.2.1) and in the kernel.
fn listens(bed: &Bed, tap: &Tap, owner: usize, since: Place) -> Result<()> {
    let joined = |sent: &Sent| {
        let report =
            matches!(&sent.spoken.said, Said::Listens { joined, .. } if joined.contains(&group()));
        report && sent.node == owner
    };
    tap.await_sent("the group to be joined", since, SETTLED_WITHIN, joined)?;
    ensure!(is_member(bed, owner)?, "{} is not joined", group());
    Ok(())
}

fn is_member(bed: &Bed, index: usize) -> Result<bool> {
    let netns = bed.nodes[index].netns();
    let listing = netns.ip(&["-6", "maddress", "show", "dev", "eth0"])?;
    let group = group().to_string();
    Ok(listing.split_whitespace().any(|word| word == group))
}

/// The kernel's own look for duplicates would hold the address back for a second.
fn no_duplicate_address_detection(tap: &Tap, owner: usize, since: Place) -> Result<()> {
    let vip = SHARED.v6;
    for sent in tap.since(since)? {
        let looks = matches!(sent.spoken.said, Said::Solicitation { ip, target, .. }
            if ip.0 == Ipv6Addr::UNSPECIFIED && target == vip);
        ensure!(!looks || sent.node != owner, "{sent:#?}");
    }
    Ok(())
}

fn past_its_deadline(bed: &Bed, index: usize) -> Result<()> {
    wait::until_true("its deadline to pass", SETTLED_WITHIN, || {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
        Ok(now.as_nanos() > u128::from(gate::lease_deadline_ns(&bed.nodes[index])?))
    })
}

/// What would announce the shared IPs from a node whose gates are shut does not leave it.
fn fenced(bed: &Bed, index: usize) -> Result<()> {
    let node = &bed.nodes[index];
    let mac = node.interface("eth0")?.mac;
    let socket = node.netns().within(|| PacketSocket::open("eth0", 0))?;
    let arp = Arp::request((mac, SHARED.v4), SHARED.v4);
    let asked = Neighbour {
        ip: (SHARED.v6, STRANGER.v6),
        target: STRANGER.v6,
        ..Neighbour::solicitation((mac, SHARED.v6), STRANGER.v6)
    };
    for (what, frame) in [
        ("an ARP announcement", arp.frame()),
        (
            "an ARP reply",
            Arp {
                operation: 2,
                ..arp
            }
            .frame(),
        ),
        (
            "an advertisement",
            Neighbour::announcement(mac, SHARED.v6).frame(),
        ),
        ("a solicitation in its name", asked.frame()),
    ] {
        let sent = socket.try_send(&frame);
        ensure!(
            sent == Err(Errno::ENOBUFS),
            "{what} past the deadline: {sent:?}"
        );
    }
    Ok(())
}

/// The kernel of a client, or of a node, knows this node as the one that has the shared IPs.
fn cached(netns: &Netns, (bed, owner): (&Bed, usize)) -> Result<()> {
    let mac = bed.nodes[owner].interface("eth0")?.mac.to_string();
    for vip in BOTH {
        wait::until_true(
            &format!("{mac} to be cached for {vip}"),
            SETTLED_WITHIN,
            || Ok(netns.neighbour(vip)?.contains(&mac)),
        )?;
    }
    Ok(())
}

/// Has the switch send groups only to where they are listened to (RFC 4541).
fn snoop(bed: &Bed) -> Result<()> {
    let settings = [
        ["mcast_query_response_interval", "100"],
        ["mcast_querier", "1"],
        ["mcast_snooping", "1"],
    ];
    for [name, value] in settings {
        let netns = bed.switch.netns();
        netns.ip(&["link", "set", "lan", "type", "bridge", name, value])?;
    }
    Ok(())
}

/// With a lease that outlasts a busy machine's pauses, and both shared IPs at one node.
fn of_both_families() -> AgentConfig {
    AgentConfig {
        ttl: "4s".to_owned(),
        ..AgentConfig::of_both_families().saying(&BOTH, "group: pair")
    }
}

fn counters(bed: &Bed, index: usize, name: &str) -> Result<(u64, u64)> {
    let status = bed.status(index)?;
    Ok((
        status.vip(VIP)?.counter(name),
        status.vip(VIP6)?.counter(name),
    ))
}

fn nobody_but(owner: usize, tap: &Tap) -> Result<()> {
    for other in (0..3).filter(|other| *other != owner) {
        let said = spoken_for(&tap.all()?, other);
        ensure!(said.is_empty(), "a follower said {said:#?}");
    }
    Ok(())
}

/// tcpdump finds nothing wrong with what was sent, and would with something else.
fn decodes(bed: &Bed, tap: &Tap) -> Result<()> {
    let sent = tap.all()?;
    let frames: Vec<&[u8]> = sent.iter().map(|sent| &sent.frame[..]).collect();
    tcpdump::finds_nothing_wrong(&frames, &bed.directory().join("sent.pcap"))?;
    let advertised = |sent: &&Sent| matches!(sent.spoken.said, Said::Advertisement { .. });
    let good = sent.iter().find(advertised).context("no advertisement")?;
    let bad = [with(&good.frame, 20, 0x7f), good.frame[..80].to_vec()];
    let file = bed.directory().join("bad.pcap");
    for line in tcpdump::decode(&[&bad[0], &bad[1]], &file)? {
        ensure!(
            tcpdump::complaint(&line).is_some(),
            "tcpdump finds nothing wrong: {line}"
        );
    }
    say::line(&format!(
        "measured: tcpdump decoded {} frames without a complaint",
        frames.len()
    ));
    Ok(())
}

/// What a node sent that says who has the shared IPs.
fn spoken_for(sent: &[Sent], node: usize) -> Vec<Sent> {
    let by_it = sent.iter().filter(|sent| sent.node == node);
    by_it
        .filter(|sent| speaks_for_any(&sent.spoken))
        .cloned()
        .collect()
}

fn speaks_for_any(spoken: &Spoken) -> bool {
    BOTH.iter().any(|vip| spoken.speaks_for(*vip))
}

fn with(frame: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at] = value;
    frame
}

fn group() -> Ipv6Addr {
    solicited_node(SHARED.v6)
}
