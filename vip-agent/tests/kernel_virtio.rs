//! NICs, VLANs and bonds, in the virtual machine of `cargo xtask test-kernels`, which has five virtio NICs: 0 and 1
//! are on one wire, 2, 3 and 4 on another.

mod stage;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use nix::{libc, net::if_::if_nametoindex};
use stage::{
    has_tcx, ip, open, tc,
    wire::{PATIENCE, Wire},
};
use vip_agent::dataplane::{Attached, Attachment, Dataplane, DataplaneMode, GateSpec};
use vip_common::{
    abi::{Counters, names},
    cases,
    frame::arp,
};

/// The module makes a bond0 by itself.
const BOND: &str = "bond7";
const BPF_DIR: &str = "/sys/fs/bpf/vip-agent";

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The name of a NIC, by its number; it is up.
fn nic(number: u8) -> String {
    let mac = format!("02:00:00:00:01:{number:02x}");
    let all = ip(&["-br", "link"]);
    let line = all.lines().find(|line| line.contains(&mac));
    let line = line.expect("this runs in the machine of `cargo xtask test-kernels` only");
    let name = line.split([' ', '@']).next().expect("it has a name");
    ip(&["link", "set", name, "up"]);
    name.to_owned()
}

fn mac_of(interface: &str) -> [u8; 6] {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/address"));
    let text = text.expect("it is there");
    let bytes = text.trim().split(':');
    let bytes: Vec<u8> = bytes
        .map(|byte| u8::from_str_radix(byte, 16).expect("a MAC is hexadecimal"))
        .collect();
    bytes.try_into().expect("a MAC has six bytes")
}

/// An interface that carries the shared IPs, attached, under a lease that does not end, and the wire to it.
struct Carrier {
    name: String,
    ifindex: u32,
    dataplane: Dataplane,
    attachment: Attachment,
    /// By which the client asks.
    client: Wire,
    /// By which the host speaks.
    host: Wire,
}

impl Carrier {
    fn new(name: &str, client: &str, wanted: DataplaneMode) -> Self {
        let ifindex = if_nametoindex(name).expect("it is there");
        let mut dataplane = open(Path::new(BPF_DIR));
        dataplane.set_lease_deadline_ns(u64::MAX);
        let attachment = dataplane
            .attach(name, ifindex, wanted)
            .expect("it attaches");
        println!("{name}: {wanted} gives {attachment:?}");
        let mut carrier = Self {
            name: name.to_owned(),
            ifindex,
            dataplane,
            attachment,
            client: Wire::open_on(client),
            host: Wire::open_on(name),
        };
        carrier.shut();
        carrier
    }

    fn open(&mut self) {
        self.put(u64::MAX);
    }

    fn shut(&mut self) {
        self.put(0);
    }

    fn put(&mut self, deadline_ns: u64) {
        let mac = mac_of(&self.name);
        let gate = GateSpec {
            deadline_ns,
            epoch: 1,
            ifindex: self.ifindex,
            mac,
            owner_mac: mac,
            is_router: false,
        };
        for vip in [cases::VIP.into(), cases::VIP6.into()] {
            self.dataplane.put_gate(vip, gate).expect("there is room");
        }
    }

    fn counters(&self) -> [Counters; 2] {
        [cases::VIP.into(), cases::VIP6.into()]
            .map(|vip| self.dataplane.counters(vip).expect("it has a row"))
    }

    /// An open gate answers both protocols, a shut one neither, and nothing gets out of one.
    fn serves_by_its_gate(&mut self) {
        let before = self.counters().map(|counters| counters.stale);
        self.client.send(&request(1));
        self.client.send(&solicitation());
        await_until("both are dropped", || {
            let stale = self.counters().map(|counters| counters.stale);
            stale[0] > before[0] && stale[1] > before[1]
        });
        assert!(is_fenced(&mut self.host), "{}: a claim got out", self.name);
        self.open();
        self.client.send(&request(2));
        self.client.send(&solicitation());
        let heard = self.heard_until_both();
        let askers: BTreeSet<u8> = heard.iter().filter_map(|frame| asker(frame)).collect();
        assert_eq!(
            askers,
            [2].into(),
            "{}: a shut gate answers nobody",
            self.name
        );
        assert!(
            !is_fenced(&mut self.host),
            "{}: the gate is open",
            self.name
        );
        await_until("the claim is on the wire", || {
            self.client.heard() == Some(claim(&self.name))
        });
        self.shut();
        assert!(is_fenced(&mut self.host), "{}: a claim got out", self.name);
        println!("{}: {:?}", self.name, self.counters());
    }

    /// What the client hears until it has an ARP reply and an advertisement.
    fn heard_until_both(&mut self) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        let mut got = (false, false);
        while got != (true, true) {
            assert!(
                Instant::now() < deadline,
                "{}: an answer to ARP, to a solicitation: {got:?}; {:?}",
                self.name,
                self.counters()
            );
            if let Some(frame) = self.client.heard() {
                got.0 |= asker(&frame).is_some();
                got.1 |= is_advertisement(&frame, mac_of(&self.name));
                heard.push(frame);
            }
        }
        heard
    }

    /// Another process takes over, and goes on as this one did.
    fn starts_again(self) -> Self {
        let Self {
            name,
            dataplane,
            attachment,
            client,
            host,
            ..
        } = self;
        drop(dataplane);
        let ifindex = if_nametoindex(name.as_str()).expect("it is there");
        let mut dataplane = open(Path::new(BPF_DIR));
        let again = dataplane
            .attach(&name, ifindex, DataplaneMode::Auto)
            .expect("it adopts");
        assert_eq!(again.mode, attachment.mode, "{name}");
        dataplane.drop_unused_links().expect("there are none");
        assert!(dataplane.look_after().is_empty());
        Self {
            name,
            ifindex,
            dataplane,
            attachment: again,
            client,
            host,
        }
    }

    /// Leaves nothing.
    fn end(self) {
        self.dataplane.close().expect("all of it can go");
        assert!(!Path::new(BPF_DIR).exists());
        let shown = ip(&["-d", "link", "show", &self.name]);
        assert!(!shown.contains(names::XDP), "{shown}");
        let qdiscs = tc(&["qdisc", "show", "dev", &self.name]);
        assert!(!qdiscs.contains("clsact"), "{qdiscs}");
    }
}

fn request(asker: u8) -> Vec<u8> {
    cases::arp_frame(
        cases::BROADCAST,
        arp::REQUEST,
        (cases::CLIENT_MAC, [10, 0, 0, asker]),
        ([0; 6], cases::VIP),
    )
}

fn solicitation() -> Vec<u8> {
    cases::solicitation(
        cases::solicited_node(cases::VIP6),
        (cases::CLIENT_MAC, cases::CLIENT6),
        cases::VIP6,
        &cases::link_layer(1, cases::CLIENT_MAC),
    )
}

/// An announcement by the host.
fn claim(interface: &str) -> Vec<u8> {
    cases::arp_frame(
        cases::BROADCAST,
        arp::REQUEST,
        (mac_of(interface), cases::VIP),
        ([0; 6], cases::VIP),
    )
}

/// Whom an ARP reply about the shared IP is for.
fn asker(frame: &[u8]) -> Option<u8> {
    let arp = frame.get(14..42)?;
    let is_reply = frame[12..14] == [8, 6] && arp[6..8] == [0, 2] && arp[14..18] == cases::VIP;
    is_reply.then_some(arp[27])
}

/// Whether it says that the shared IP is at this MAC.
fn is_advertisement(frame: &[u8], mac: [u8; 6]) -> bool {
    frame.len() >= 86
        && frame[12..14] == [0x86, 0xdd]
        && frame[54] == 136
        && frame[62..78] == cases::VIP6
        && frame[80..86] == mac
}

fn is_fenced(host: &mut Wire) -> bool {
    let frame = claim(&host.name);
    match host.try_to_send(&frame) {
        Ok(()) => false,
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => true,
        Err(error) => panic!("{error}"),
    }
}

fn await_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
    }
}

/// In its turn, with a runtime.
fn staged(test: impl FnOnce()) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let _reactor = runtime.enter();
    test();
}

/// Whether the egress program is a filter, as before Linux 6.6, or a link of TCX.
fn has_filter(interface: &str) -> bool {
    tc(&["filter", "show", "dev", interface, "egress"]).contains(names::EGRESS)
}

#[test]
fn a_virtio_nic_native_is_the_best() {
    staged(|| {
        let (name, peer) = (nic(0), nic(1));
        let mut carrier = Carrier::new(&name, &peer, DataplaneMode::Auto);
        assert_eq!(carrier.attachment.mode, Attached::Native);
        assert_eq!(carrier.attachment.why_not_better, None);
        assert_eq!(has_filter(&name), !has_tcx());
        carrier.serves_by_its_gate();
        let mut carrier = carrier.starts_again();
        carrier.serves_by_its_gate();
        carrier.end();
    });
}

#[test]
fn a_virtio_nic_in_the_other_modes() {
    staged(|| {
        let (name, peer) = (nic(0), nic(1));
        for (wanted, mode) in [
            (DataplaneMode::Generic, Attached::Generic),
            (DataplaneMode::Tc, Attached::Tc),
        ] {
            let mut carrier = Carrier::new(&name, &peer, wanted);
            assert_eq!(carrier.attachment.mode, mode);
            carrier.serves_by_its_gate();
            carrier.end();
        }
    });
}

/// VLAN 0 is none.
#[test]
fn a_tagged_frame_on_the_untagged_nic_passes() {
    staged(|| {
        let (name, peer) = (nic(0), nic(1));
        let mut carrier = Carrier::new(&name, &peer, DataplaneMode::Auto);
        carrier.open();
        carrier.client.send(&cases::tagged(&request(1), 5));
        carrier.client.send(&cases::tagged(&solicitation(), 5));
        carrier.client.send(&cases::tagged(&request(2), 0));
        carrier.client.send(&request(3));
        await_until("all are through", || carrier.counters()[0].answered == 2);
        let expected = Counters {
            answered: 2,
            ..Counters::default()
        };
        assert_eq!(carrier.counters(), [expected, Counters::default()]);
        carrier.end();
    });
}

#[test]
fn a_vlan_of_a_nic() {
    staged(|| {
        let (name, peer) = (nic(0), nic(1));
        let vlans = [&name, &peer].map(|nic| {
            let vlan = format!("{nic}.5");
            ip(&[
                "link", "add", "link", nic, "name", &vlan, "type", "vlan", "id", "5",
            ]);
            ip(&["link", "set", &vlan, "up"]);
            vlan
        });
        let mut carrier = Carrier::new(&vlans[0], &vlans[1], DataplaneMode::Auto);
        carrier.serves_by_its_gate();
        let mut carrier = carrier.starts_again();
        carrier.serves_by_its_gate();
        // Outside of the VLAN it is another network.
        carrier.open();
        let before = carrier.counters();
        let mut outside = Wire::open_on(&peer);
        outside.send(&request(9));
        carrier.client.send(&request(3));
        await_until("the one inside is answered", || {
            carrier
                .client
                .heard()
                .is_some_and(|frame| asker(&frame) == Some(3))
        });
        assert_eq!(carrier.counters()[0].answered, before[0].answered + 1);
        carrier.end();
        for vlan in vlans {
            ip(&["link", "del", &vlan]);
        }
    });
}

#[test]
fn a_bond_of_two_nics() {
    staged(|| {
        let client = nic(4);
        ip(&[
            "link",
            "add",
            BOND,
            "type",
            "bond",
            "mode",
            "active-backup",
            "miimon",
            "100",
        ]);
        for port in [nic(2), nic(3)] {
            ip(&["link", "set", &port, "down"]);
            ip(&["link", "set", &port, "master", BOND]);
        }
        ip(&["link", "set", BOND, "up"]);
        await_until("the bond has a carrier", || {
            ip(&["-br", "link", "show", BOND]).contains("LOWER_UP")
        });
        let mut carrier = Carrier::new(BOND, &client, DataplaneMode::Auto);
        // It would run on the ports, and find no gate of theirs.
        assert_ne!(carrier.attachment.mode, Attached::Native);
        let why = carrier.attachment.why_not_better.clone();
        assert!(
            why.as_ref().is_some_and(|why| why.contains("bond")),
            "{why:?}"
        );
        carrier.serves_by_its_gate();
        let mut carrier = carrier.starts_again();
        carrier.serves_by_its_gate();
        carrier.end();
        ip(&["link", "del", BOND]);
        // Nobody is left to take what it sends.
        ip(&["link", "set", &client, "down"]);
    });
}
