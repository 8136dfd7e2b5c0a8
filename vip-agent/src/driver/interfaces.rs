//! The interfaces that carry shared IPs, as they come and go: attach, guard, judge.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use vip_common::abi;

use crate::{
    config::{self, InterfaceConfig, VipConfig},
    dataplane::{Attached, Attachment, Dataplane, DataplaneError, GateSpec},
    election::{Fitness, Gate, Mac},
    net::{self, Link},
};

/// What keeps a configured interface from serving.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("interface {0}: there is none of that name yet")]
    Missing(String),
    #[error(
        "interface {0}: it is called {1} now; call it {0} again (`ip link set {1} down`, `ip link set {1} \
         name {0} up`), or name {1} in the configuration and restart"
    )]
    Renamed(String, String),
    #[error(
        "interface {port}: it is a port of {master}, which takes its frames; name {mend} in the configuration"
    )]
    Port {
        port: String,
        master: String,
        mend: String,
    },
    #[error(
        "interface {upper}: it is a {kind} on {lower}, and what keeps {lower} from speaking for shared IPs would \
         keep them from {upper} too; name {lower} in the configuration, or give {upper} a network namespace without it"
    )]
    Upper {
        upper: String,
        kind: String,
        lower: String,
    },
    #[error("interface {0}: it is down or has no carrier")]
    Down(String),
    /// For shared IPs of IPv6 alone.
    #[error("interface {0}: {why}", why = net::no_ipv6(.0))]
    NoIpv6(String),
    #[error(transparent)]
    Address(#[from] config::ConfigError),
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
}

/// One configured interface.
pub(super) struct Interface {
    pub config: InterfaceConfig,
    /// The link that it is, under whatever name.
    pub link: Option<Link>,
    /// The index of the link that was last known, by this process or an earlier one.
    held: Option<u32>,
    pub attachment: Option<Attachment>,
    /// What it was until a program of it was detached.
    lost: Option<Attachment>,
    pub unfit: Option<Unfit>,
    /// What keeps it from serving IPv6, beside that.
    pub unfit_for_ipv6: Option<Unfit>,
    /// Whether the host forwards IPv6 from it, which advertisements tell.
    is_router: bool,
}

/// All of them, and the gates of their shared IPs.
pub(super) struct Interfaces {
    pub all: Vec<Interface>,
    /// The other interfaces that are guarded.
    pub guards: BTreeMap<u32, String>,
    gates: BTreeMap<IpAddr, Gate>,
}

impl Interface {
    /// One that was not looked for yet.
    fn new(config: &InterfaceConfig) -> Self {
        Self {
            config: config.clone(),
            link: None,
            held: None,
            attachment: None,
            lost: None,
            unfit: Some(Unfit::Missing(config.name.clone())),
            unfit_for_ipv6: None,
            is_router: false,
        }
    }

    /// Whether the kernel enforces its gates.
    pub fn is_fenced(&self) -> bool {
        self.config.is_fenced()
    }

    /// Whether it can serve `vip`, and should.
    pub fn fitness(&self, vip: IpAddr) -> Fitness {
        match (&self.link, self.why_unfit(vip)) {
            (Some(link), None) => match self.lacks_own_address(vip) {
                Some(why) => Fitness::Unhealthy(Mac(link.mac), why),
                None => Fitness::Fit(Mac(link.mac)),
            },
            (_, Some(why)) => Fitness::Unable(why.to_string()),
            (None, None) => Fitness::Unable(Unfit::Missing(self.config.name.clone()).to_string()),
        }
    }

    /// Without one of `vip`'s family the host reaches nobody from there: a lease that DHCP lost, say.
    pub fn lacks_own_address(&self, vip: IpAddr) -> Option<String> {
        let link = self.link.as_ref()?;
        let family = if vip.is_ipv4() { "IPv4" } else { "IPv6" };
        let is_of_it = |own: &IpNet| own.addr().is_ipv4() == vip.is_ipv4();
        let has = link.addresses.iter().any(is_of_it);
        (!has).then(|| {
            format!(
                "interface {}: it has no {family} address of its own",
                link.name
            )
        })
    }

    /// What keeps it from serving `vip`.
    pub fn why_unfit(&self, vip: IpAddr) -> Option<&Unfit> {
        let for_ipv6 = self.unfit_for_ipv6.as_ref().filter(|_| vip.is_ipv6());
        self.unfit.as_ref().or(for_ipv6)
    }

    /// Whether it has IPv6 at all, if `vip` is of that.
    pub fn speaks(&self, vip: IpAddr) -> bool {
        vip.is_ipv4() || self.unfit_for_ipv6.is_none()
    }

    /// Finds its link among `links`. Returns the index of the one that it has to do with no longer.
    ///
    /// A name is what the configuration goes by, but what gates and programs are bound to is the link
    /// itself. One that is called something else now is held on to, so that its gate guards it: as
    /// long as the name is no other link's, or the shared IPs are not off it (`in_use`).
    fn find(&mut self, links: &[Link], in_use: &BTreeSet<u32>) -> Option<u32> {
        let held = |link: &&Link| Some(link.ifindex) == self.held;
        let held = links.iter().find(held);
        let named = links.iter().find(|link| link.name == self.config.name);
        let found = match (held, named) {
            (Some(held), Some(_)) if in_use.contains(&held.ifindex) => Some(held),
            (Some(held), None) => Some(held),
            (_, named) => named,
        };
        let ifindex = found.map(|link| link.ifindex);
        let gone = self.held.filter(|old| Some(*old) != ifindex);
        if gone.is_some() {
            self.attachment = None;
        }
        self.held = ifindex;
        self.link = found.cloned();
        self.is_router = self.routes();
        self.unfit_for_ipv6 = self
            .lacks_ipv6()
            .then(|| Unfit::NoIpv6(self.config.name.clone()));
        gone
    }

    /// As the host's settings are now.
    fn lacks_ipv6(&self) -> bool {
        let serves_ipv6 = self.config.ips().any(|vip| vip.is_ipv6());
        let link = self.link.as_ref().filter(|_| serves_ipv6);
        link.is_some_and(|link| !net::has_ipv6(&link.name))
    }

    /// As the host's settings are now.
    fn routes(&self) -> bool {
        let link = self.link.as_ref();
        link.is_some_and(|link| net::is_router(&link.name))
    }

    fn attach(&mut self, links: &[Link], dataplane: Option<&mut Dataplane>) -> Result<(), Unfit> {
        let name = &self.config.name;
        let link = self
            .link
            .as_ref()
            .ok_or_else(|| Unfit::Missing(name.clone()))?;
        refuse_port(link, links)?;
        if self.is_fenced() {
            refuse_upper(link, links)?;
        }
        for vip in self.config.ips() {
            config::check_against_subnet(vip, &link.addresses)?;
            let others = links
                .iter()
                .filter(|other| other.ifindex != link.ifindex && !other.loopback);
            for other in others {
                config::check_against_other(vip, &other.name, &other.addresses)?;
            }
        }
        if let (true, None, Some(dataplane)) = (self.is_fenced(), &self.attachment, dataplane) {
            let mut attachment =
                dataplane.attach(&link.name, link.ifindex, self.config.dataplane)?;
            // What still stood does not say why it was chosen.
            if let Some(lost) = self.lost.take().filter(|lost| lost.mode == attachment.mode) {
                attachment.why_not_better = attachment.why_not_better.or(lost.why_not_better);
            }
            tracing::info!(
                interface = name,
                dataplane = %attachment.mode,
                why_not_better = attachment.why_not_better,
                "attached"
            );
            if attachment.mode == Attached::Native && link.kind == "veth" {
                tracing::warn!(
                    interface = name,
                    "a veth sends what XDP answers only if the other end of the pair runs an XDP program too (`ethtool -S` \
                     counts `xdp_tx_errors` otherwise): if clients are not answered, set `dataplane: tc`"
                );
            }
            self.attachment = Some(attachment);
        }
        if link.name != *name {
            return Err(Unfit::Renamed(name.clone(), link.name.clone()));
        }
        if !link.up {
            return Err(Unfit::Down(name.clone()));
        }
        Ok(())
    }
}

impl Interfaces {
    pub fn new(configs: &[InterfaceConfig]) -> Self {
        Self {
            all: configs.iter().map(Interface::new).collect(),
            guards: BTreeMap::new(),
            gates: BTreeMap::new(),
        }
    }

    pub fn of(&self, vip: IpAddr) -> Option<&Interface> {
        self.all
            .iter()
            .find(|interface| interface.config.carries(vip))
    }

    /// Whether a shared IP lies on its interface and serves nobody, for the kernel found another machine
    /// with it.
    pub fn has_failed_dad(&self, vip: IpAddr) -> bool {
        let link = self.of(vip).and_then(|one| one.link.as_ref());
        link.is_some_and(|link| link.dad_failed.contains(&vip))
    }

    /// Whether this link is the one that carries a shared IP.
    pub fn carries(&self, ifindex: u32, vip: IpAddr) -> bool {
        let link = self.of(vip).and_then(|interface| interface.link.as_ref());
        link.is_some_and(|link| link.ifindex == ifindex)
    }

    /// The name of a link that carries shared IPs or is guarded, else its index.
    pub fn name_of(&self, ifindex: u32) -> String {
        let links = self.all.iter().filter_map(|one| one.link.as_ref());
        let carriers = links.map(|link| (link.ifindex, &link.name));
        let guards = self.guards.iter().map(|(ifindex, name)| (*ifindex, name));
        let mut known = carriers.chain(guards);
        known
            .find(|(one, _)| *one == ifindex)
            .map_or_else(|| ifindex.to_string(), |(_, name)| name.clone())
    }

    /// These are configured from now on. A shared IP that is not among them any more stays on its interface, and
    /// that with it, until it is [forgotten](Self::forget).
    pub fn configure(&mut self, configs: &[InterfaceConfig]) {
        let is_wanted = |vip: &VipConfig| configs.iter().any(|one| one.carries(vip.ip));
        for interface in &mut self.all {
            let old = &mut interface.config;
            old.vips.retain(|vip| !is_wanted(vip));
            if let Some(new) = configs.iter().find(|new| new.name == old.name) {
                let retiring = std::mem::take(&mut old.vips);
                *old = new.clone();
                old.vips.extend(retiring);
            }
        }
        let known: BTreeSet<String> = self.all.iter().map(|one| one.config.name.clone()).collect();
        let new = configs.iter().filter(|one| !known.contains(&one.name));
        self.all.extend(new.map(Interface::new));
    }

    /// A shared IP is no longer configured, and its gate no longer stands. Whether it was the last of its
    /// interface, which is let go of then.
    pub fn forget(&mut self, vip: IpAddr, dataplane: Option<&mut Dataplane>) -> bool {
        self.gates.remove(&vip);
        for interface in &mut self.all {
            interface.config.vips.retain(|own| own.ip != vip);
        }
        let empty = self.all.extract_if(.., |one| one.config.vips.is_empty());
        let empty: Vec<Interface> = empty.collect();
        if let Some(dataplane) = dataplane {
            let is_held = |ifindex: &u32| self.all.iter().any(|one| one.held == Some(*ifindex));
            let let_go = empty.iter().filter_map(|one| one.held);
            for ifindex in let_go.filter(|ifindex| !is_held(ifindex)) {
                dataplane.forget_interface(ifindex);
                self.guards.remove(&ifindex);
            }
        }
        for one in &empty {
            tracing::info!(
                interface = one.config.name,
                "let go of: it carries no shared IP any more"
            );
        }
        !empty.is_empty()
    }

    /// Takes `links` for what there is: attaches to interfaces that have come, forgets those that
    /// have gone, brings gates and guards in line.
    pub fn refresh(
        &mut self,
        links: &[Link],
        in_use: &BTreeSet<u32>,
        mut dataplane: Option<&mut Dataplane>,
    ) -> Result<(), DataplaneError> {
        for at in 0..self.all.len() {
            let gone = self.all[at].find(links, in_use);
            if let Some(dataplane) = dataplane.as_deref_mut() {
                // Where shared IPs moved to another interface, the one that they left has others still.
                let is_another_s = |gone| self.all.iter().any(|one| one.held == Some(gone));
                if let Some(gone) = gone.filter(|gone| !is_another_s(*gone)) {
                    dataplane.forget_interface(gone);
                }
                // The gates stand before the program that asks for them.
                self.put_gates_of(at, dataplane)?;
            }
            let interface = &mut self.all[at];
            interface.unfit = interface.attach(links, dataplane.as_deref_mut()).err();
        }
        match dataplane {
            Some(dataplane) => self.guard_others(links, dataplane),
            None => Ok(()),
        }
    }

    /// A program of this link is not attached any more: [`refresh`](Self::refresh) attaches it again.
    pub fn forget_attachment(&mut self, ifindex: u32) {
        for interface in self.all.iter_mut().filter(|one| one.held == Some(ifindex)) {
            interface.lost = interface.attachment.take();
        }
    }

    /// Whether an interface that is there cannot be attached to, which nothing announces the end of.
    pub fn awaits_attachment(&self) -> bool {
        let awaits = |one: &Interface| matches!(one.unfit, Some(Unfit::Dataplane(_)));
        self.all.iter().any(awaits)
    }

    /// Whether the host has begun or ceased to forward, or to have IPv6 at all, which nothing announces.
    pub fn settings_changed(&self) -> bool {
        self.all.iter().any(|one| {
            one.routes() != one.is_router || one.lacks_ipv6() != one.unfit_for_ipv6.is_some()
        })
    }

    /// Stores a shared IP's gate in the kernel.
    pub fn set_gate(
        &mut self,
        vip: IpAddr,
        gate: Gate,
        dataplane: Option<&mut Dataplane>,
    ) -> Result<(), DataplaneError> {
        self.gates.insert(vip, gate);
        let fenced = self.of(vip).filter(|interface| interface.is_fenced());
        match (fenced, dataplane) {
            (Some(interface), Some(dataplane)) => dataplane.put_gate(vip, spec(gate, interface)),
            _ => Ok(()),
        }
    }

    /// Takes a gate that stands in the kernel for what was last set.
    pub fn adopt_gate(&mut self, vip: IpAddr, gate: &abi::Gate) {
        let epoch = i64::try_from(gate.epoch).unwrap_or(0);
        let gate = if gate.deadline_ns > 0 {
            Gate::Open { epoch }
        } else {
            Gate::Closed { epoch, owner: None }
        };
        self.gates.insert(vip, gate);
    }

    /// An earlier process had a shared IP on this link.
    pub fn inherit(&mut self, vip: IpAddr, ifindex: u32) {
        let carries = |one: &&mut Interface| one.config.carries(vip);
        if let Some(interface) = self.all.iter_mut().find(carries) {
            interface.held = Some(ifindex);
        }
    }

    fn put_gates_of(&mut self, at: usize, dataplane: &mut Dataplane) -> Result<(), DataplaneError> {
        let interface = &self.all[at];
        if !interface.is_fenced() {
            return Ok(());
        }
        for vip in interface.config.ips() {
            let gate = self.gates.get(&vip).copied();
            let gate = gate.unwrap_or(Gate::Closed {
                epoch: 0,
                owner: None,
            });
            dataplane.put_gate(vip, spec(gate, interface))?;
        }
        Ok(())
    }

    /// Linux answers ARP for an address on any interface, whether that has an address of its own or
    /// not: every other one is kept from speaking for the shared IPs. An interface that carries some
    /// is another one to the rest.
    fn guard_others(
        &mut self,
        links: &[Link],
        dataplane: &mut Dataplane,
    ) -> Result<(), DataplaneError> {
        let carriers: BTreeSet<u32> = self
            .all
            .iter()
            .filter(|interface| interface.attachment.is_some())
            .filter_map(|interface| interface.link.as_ref().map(|link| link.ifindex))
            .collect();
        let others = links.iter().filter(|link| {
            let foreign = carriers.iter().any(|carrier| *carrier != link.ifindex);
            foreign && speaks(link)
        });
        let mut guards = BTreeMap::new();
        for link in others {
            match dataplane.guard(&link.name, link.ifindex) {
                Ok(()) => {
                    guards.insert(link.ifindex, link.name.clone());
                }
                // It may have gone while we looked; what remains is looked at again at the next change.
                Err(error) => {
                    tracing::warn!(interface = link.name, %error, "this interface could not be guarded");
                }
            }
        }
        for gone in self.guards.keys().filter(|old| !guards.contains_key(old)) {
            if !carriers.contains(gone) {
                dataplane.forget_interface(*gone);
            }
        }
        if guards != self.guards {
            let names: Vec<&String> = guards.values().collect();
            tracing::info!(interfaces = ?names, "guarding");
        }
        self.guards = guards;
        Ok(())
    }
}

/// What comes in by a port of these is never the port's own: an address there would hear nothing. A VRF's
/// port is an interface as any other.
fn refuse_port(link: &Link, links: &[Link]) -> Result<(), Unfit> {
    let master = links.iter().find(|one| Some(one.ifindex) == link.master);
    let name = master.map_or("its name", |master| &master.name);
    let port = &link.name;
    let (master, mend) = match link.master_kind.as_str() {
        kind @ ("bridge" | "bond" | "team") => (format!("{kind} {name}"), name.to_owned()),
        "openvswitch" => (
            "an Open vSwitch bridge".to_owned(),
            format!("that bridge (`ovs-vsctl iface-to-br {port}` tells which)"),
        ),
        _ => return Ok(()),
    };
    let port = port.clone();
    Err(Unfit::Port { port, master, mend })
}

/// A macvlan hears groups by way of its parent, where the guard would drop what asks for a shared IP, and
/// speaks by way of it. Without a guard the host would answer by the parent too.
fn refuse_upper(link: &Link, links: &[Link]) -> Result<(), Unfit> {
    let lower = links.iter().find(|one| Some(one.ifindex) == link.lower);
    match (lower, link.kind.as_str()) {
        (Some(lower), kind @ ("macvlan" | "ipvlan")) => Err(Unfit::Upper {
            upper: link.name.clone(),
            kind: kind.to_owned(),
            lower: lower.name.clone(),
        }),
        _ => Ok(()),
    }
}

/// Whether a link speaks ARP or ND for this host. What comes in by a port is its bridge's or bond's, unless
/// it is one that routes (VRF): these alone have addresses that somebody gave them, for Linux gives a
/// link-local one to ports of bridges too. What has no MAC, as tunnels have none, speaks neither.
fn speaks(link: &Link) -> bool {
    let is_given = |address: &IpNet| match address {
        IpNet::V4(_) => true,
        IpNet::V6(address) => !address.addr().is_unicast_link_local(),
    };
    let is_asked = link.master.is_none() || link.addresses.iter().any(is_given);
    is_asked && !link.loopback && link.mac != [0; 6]
}

fn spec(gate: Gate, interface: &Interface) -> GateSpec {
    let (ifindex, mac) = interface
        .link
        .as_ref()
        .map_or((0, [0; 6]), |link| (link.ifindex, link.mac));
    let (deadline_ns, epoch, owner_mac) = match gate {
        // No limit of its own: the lease's deadline is what shuts it.
        Gate::Open { epoch } => (u64::MAX, epoch, mac),
        Gate::Closed { epoch, owner } => (0, epoch, owner.unwrap_or_default().0),
    };
    GateSpec {
        deadline_ns,
        epoch: u64::try_from(epoch).unwrap_or(0),
        ifindex,
        mac,
        owner_mac,
        is_router: interface.is_router,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(own: &[&str]) -> Link {
        Link {
            name: "p".to_owned(),
            ifindex: 7,
            mac: [2, 0, 0, 0, 0, 7],
            up: true,
            loopback: false,
            master: Some(8),
            master_kind: "bridge".to_owned(),
            kind: "veth".to_owned(),
            lower: None,
            addresses: own
                .iter()
                .map(|own| own.parse().expect("an address"))
                .collect(),
            shared: Vec::new(),
            dad_failed: Vec::new(),
        }
    }

    #[test]
    fn a_port_is_refused_with_the_name_of_what_takes_its_frames_but_for_a_vrfs() {
        let master = Link {
            name: "m".to_owned(),
            ifindex: 8,
            master: None,
            ..port(&[])
        };
        let told = |kind: &str| {
            let link = Link {
                master_kind: kind.to_owned(),
                ..port(&[])
            };
            let links = [link.clone(), master.clone()];
            refuse_port(&link, &links).err().map(|why| why.to_string())
        };
        for kind in ["bridge", "bond", "team"] {
            let expected = format!(
                "interface p: it is a port of {kind} m, which takes its frames; name m in the configuration"
            );
            assert_eq!(told(kind), Some(expected));
        }
        let of_ovs = told("openvswitch").expect("refused");
        assert!(of_ovs.contains("`ovs-vsctl iface-to-br p`"), "{of_ovs}");
        for kind in ["vrf", ""] {
            assert_eq!(told(kind), None);
        }
    }

    #[test]
    fn a_macvlan_beside_its_parent_is_refused_and_one_alone_is_not() {
        let parent = Link {
            ifindex: 9,
            ..port(&[])
        };
        let refused = |kind: &str, lower| {
            let link = Link {
                name: "v".to_owned(),
                kind: kind.to_owned(),
                lower,
                ..port(&[])
            };
            let links = [link.clone(), parent.clone()];
            refuse_upper(&link, &links).err().map(|why| why.to_string())
        };
        let told = refused("macvlan", Some(9)).expect("refused");
        assert!(
            told.contains("interface v: it is a macvlan on p") && told.contains("name p in"),
            "{told}"
        );
        assert_eq!(refused("macvlan", None), None);
        assert_eq!(refused("veth", Some(9)), None);
        assert_eq!(refused("vlan", Some(9)), None);
    }

    #[test]
    fn a_port_speaks_for_this_host_only_by_an_address_that_somebody_gave_it() {
        for (own, expected) in [
            (&[][..], false),
            (&["fe80::7/64"], false),
            (&["fe80::7/64", "fd00::7/64"], true),
            (&["10.0.0.7/24"], true),
        ] {
            assert_eq!(speaks(&port(own)), expected, "{own:?}");
        }
        let mut lone = port(&["fe80::7/64"]);
        lone.master = None;
        assert!(speaks(&lone), "an interface with IPv6 alone");
        lone.mac = [0; 6];
        assert!(!speaks(&lone), "a tunnel");
    }
}
