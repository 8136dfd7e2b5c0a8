//! From a configuration to a running loop, and from its end to what is left behind.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, bail};
use tokio::sync::mpsc;

use super::{
    Driver, Inputs, Since, Source, Upkeep,
    addresses::{Addresses, longest_lifetime},
    advice::Advice,
    announcements::Announcements,
    conflicts::Conflicts,
    control::Errands,
    duplicates::Duplicates,
    health::Checks,
    hooks::Hooks,
    interfaces::{Interfaces, Unfit},
    neighbours::Neighbours,
    reload::Serials,
    signals,
};
use crate::{
    cleanup::{Cleaned, clean_up_pins},
    config::{Config, InterfaceConfig, OnConflict, VipConfig},
    control,
    dataplane::{Dataplane, GateSpec},
    election::{BootInstant, Election, Exit, Inheritance, Policy, Settings, VipSettings},
    net::{self, AddressManager, Announcer, LinkMonitor, NeighbourManager},
    state::{self, StateDir},
    store::Store,
};

/// Runs an agent until it is told to stop.
///
/// `source`: where it finds another configuration when it is told to.
pub async fn run(config: Config, source: Source, ebpf_log: bool) -> anyhow::Result<()> {
    let state_dir = config.state_dir.clone();
    let state = StateDir::open(&state_dir)?;
    let goes_on = state.lease().is_some();
    let (mut driver, mut inputs) = match prepare(config, source, state, ebpf_log).await {
        Ok(prepared) => prepared,
        Err(error) => {
            // A start that came to nothing leaves nothing, unless it is for the next to go on with.
            if !goes_on && let Some(left) = state::Leftovers::find(&state_dir)? {
                left.take_away()?;
            }
            return Err(error);
        }
    };
    tracing::info!(
        node = driver.config.node,
        instance = driver.state.instance(),
        etcd = ?driver.config.etcd.endpoints,
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    let ended = match driver.begin().await {
        Ok(None) => driver.run(&mut inputs).await,
        Ok(Some(exit)) => Ok(exit),
        Err(error) => Err(error),
    };
    driver.end(ended)
}

/// Everything that the loop holds and waits for. What touches the kernel comes last.
async fn prepare(
    config: Config,
    source: Source,
    state: StateDir,
    ebpf_log: bool,
) -> anyhow::Result<(Driver, Inputs)> {
    let (release, hold, reload) = signals().context("signals cannot be awaited")?;
    let (store_sender, store_events) = mpsc::unbounded_channel();
    let (address_sender, address_events) = mpsc::unbounded_channel();
    let (verdict_sender, verdicts) = mpsc::unbounded_channel();
    let (reading_sender, readings) = mpsc::unbounded_channel();
    let (control_sender, control) = mpsc::channel(8);
    let (written_sender, written) = mpsc::unbounded_channel();
    let links = LinkMonitor::open().context("changes of the interfaces cannot be watched")?;
    let manager = AddressManager::open().context("addresses cannot be managed")?;
    let neighbours = NeighbourManager::open().context("neighbours cannot be told of")?;
    let announcer = Announcer::open()?;
    control::serve(&state.socket(), control_sender)
        .with_context(|| state.socket().display().to_string())?;
    let mut dataplane = open_dataplane(&config, ebpf_log).await?;
    let mut interfaces = Interfaces::new(&config.interfaces);
    let mut addresses = Addresses::new(manager.clone(), config.lease_ttl, address_sender);
    let inheritance = inherit(
        &state,
        &config,
        &manager,
        dataplane.as_mut(),
        &mut interfaces,
        &mut addresses,
    )
    .await?;
    let mut checks = Checks::new(verdict_sender);
    checks
        .set(&config.interfaces)
        .context("health checks cannot be run")?;
    let inputs = Inputs {
        store: store_events,
        addresses: address_events,
        verdicts,
        control,
        written,
        links,
        release,
        hold,
        reload,
        readings,
    };
    let driver = Driver {
        hooks: Hooks::inherit(inheritance.open_gates.keys().copied()),
        inherited: inheritance.open_gates.keys().copied().collect(),
        election: Election::new(settings(&config, &state), inheritance),
        store: Store::new(&config.etcd, &config.node, config.lease_ttl, store_sender),
        addresses,
        announcements: Announcements::new(announcer),
        conflicts: Conflicts::default(),
        errands: Errands::new(written_sender),
        since: Since::now(),
        upkeep: Upkeep::new(),
        advice: Advice::default(),
        duplicates: Duplicates::default(),
        neighbours: Neighbours::new(neighbours),
        checks,
        told: BTreeMap::new(),
        dataplane,
        interfaces,
        state,
        config,
        source,
        readings: reading_sender,
        serials: Serials::default(),
    };
    Ok((driver, inputs))
}

fn settings(config: &Config, state: &StateDir) -> Settings {
    let Policy {
        yields,
        preempt,
        rebalance,
        when_all_unfit,
    } = policy(config);
    let hostname = nix::unistd::gethostname();
    Settings {
        node: config.node.clone(),
        instance: state.instance().to_owned(),
        host: hostname
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ttl: config.lease_ttl,
        vips: vip_settings(&config.interfaces),
        yields,
        preempt,
        rebalance,
        when_all_unfit,
    }
}

/// What the election is to know that is no single shared IP's.
pub(super) fn policy(config: &Config) -> Policy {
    Policy {
        yields: config.on_conflict == OnConflict::Yield,
        preempt: config.preempt,
        rebalance: config.rebalance,
        when_all_unfit: config.when_all_unfit.into(),
    }
}

/// What the election is to know of the shared IPs of these interfaces.
pub(super) fn vip_settings(interfaces: &[InterfaceConfig]) -> BTreeMap<IpAddr, VipSettings> {
    let settings = |one: &InterfaceConfig, vip: &VipConfig| VipSettings {
        priority: vip.priority,
        group: vip.group.clone(),
        probes: one.is_probed(),
        fenced: one.is_fenced(),
    };
    let vips = interfaces
        .iter()
        .flat_map(|one| one.vips.iter().map(move |vip| (vip.ip, settings(one, vip))));
    vips.collect()
}

async fn open_dataplane(config: &Config, ebpf_log: bool) -> anyhow::Result<Option<Dataplane>> {
    for one in config.interfaces.iter().filter(|one| !one.is_fenced()) {
        tracing::warn!(
            interface = one.name,
            "UNFENCED: `dataplane: kernel` has no gate; a frozen agent keeps its address until that expires"
        );
    }
    if !config.interfaces.iter().any(InterfaceConfig::is_fenced) {
        // Gates of an earlier configuration would stay shut for good.
        let bpf_dir = config.bpf_dir.display();
        match clean_up_pins(&config.bpf_dir, Vec::new()).await {
            Ok(cleaned @ Cleaned { gates: Some(_), .. }) => {
                tracing::info!(%bpf_dir, %cleaned, "an earlier start left programs");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%bpf_dir, error = format!("{error:#}"), "what is pinned there is left, and shuts out the shared IPs that it has gates of");
            }
        }
        return Ok(None);
    }
    Ok(Some(Dataplane::open(&config.bpf_dir, ebpf_log)?))
}

/// What an earlier process left: its lease, and the gates that stand in the kernel. Those of
/// shared IPs that are no longer configured are taken away.
async fn inherit(
    state: &StateDir,
    config: &Config,
    manager: &AddressManager,
    dataplane: Option<&mut Dataplane>,
    interfaces: &mut Interfaces,
    addresses: &mut Addresses,
) -> anyhow::Result<Inheritance> {
    let mut inheritance = Inheritance {
        lease: state.lease(),
        history: state.history().unwrap_or_default(),
        ..Inheritance::default()
    };
    take_off_unconfigured(config, manager).await?;
    let Some(dataplane) = dataplane else {
        return Ok(inheritance);
    };
    inheritance.deadline = BootInstant::from_ns(dataplane.lease_deadline_ns());
    for (vip, gate) in dataplane.gates()? {
        let mut fenced = config.interfaces.iter().filter(|one| one.is_fenced());
        if fenced.any(|one| one.carries(vip)) {
            interfaces.adopt_gate(vip, &gate);
            // Of an interface that was not there, the index is 0.
            if gate.ifindex != 0 {
                interfaces.inherit(vip, gate.ifindex);
                addresses.inherit(vip, gate.ifindex);
            }
            if gate.deadline_ns > 0 {
                let epoch = i64::try_from(gate.epoch).unwrap_or(0);
                inheritance.open_gates.insert(vip, epoch);
            }
        } else {
            tracing::info!(%vip, "no longer configured, or to go without a gate now: its gate and address are taken away");
            let closed = GateSpec {
                deadline_ns: 0,
                ..GateSpec::from(&gate)
            };
            dataplane.put_gate(vip, closed)?;
            manager.remove(gate.ifindex, vip).await?;
            dataplane.remove_gate(vip)?;
        }
    }
    Ok(inheritance)
}

/// Without a gate an address that an earlier configuration put there would go on answering when
/// its key is given up.
async fn take_off_unconfigured(config: &Config, manager: &AddressManager) -> anyhow::Result<()> {
    if config.interfaces.iter().all(InterfaceConfig::is_fenced) {
        return Ok(());
    }
    let links = net::links()
        .await
        .context("the interfaces could not be listed")?;
    for one in config.interfaces.iter().filter(|one| !one.is_fenced()) {
        for link in links.iter().filter(|link| link.name == one.name) {
            for vip in link.shared.iter().filter(|vip| !one.carries(**vip)) {
                manager.remove(link.ifindex, *vip).await?;
                tracing::info!(%vip, interface = link.name, "no longer configured: its address is taken off");
            }
        }
    }
    Ok(())
}

impl Driver {
    /// Attaches to the interfaces that are there, and wakes the election.
    ///
    /// What stands in the way of an interface that *is* there ends the start with an error, for
    /// somebody sits before the screen; one that comes later is waited for and logged.
    async fn begin(&mut self) -> anyhow::Result<Option<Exit>> {
        let links = net::links()
            .await
            .context("the interfaces could not be listed")?;
        let in_use = self.addresses.interfaces_in_use();
        self.interfaces
            .refresh(&links, &in_use, self.dataplane.as_mut())?;
        for one in &mut self.interfaces.all {
            match one.unfit.take() {
                Some(Unfit::Address(error)) => return Err(error.into()),
                Some(Unfit::Dataplane(error)) => return Err(error.into()),
                Some(waiting) => {
                    tracing::warn!(reason = %waiting, "waiting");
                    one.unfit = Some(waiting);
                }
                None => {}
            }
            if let Some(waiting) = &one.unfit_for_ipv6 {
                tracing::warn!(reason = %waiting, "waiting");
            }
        }
        if let Some(dataplane) = &mut self.dataplane {
            dataplane.drop_unused_links()?;
        }
        self.tell_fitness()
    }

    /// Leaves behind what the end asks for: nothing, or all of it.
    fn end(mut self, ended: anyhow::Result<Exit>) -> anyhow::Result<()> {
        let lingering = self.addresses.lingering();
        let leaves = Leaves::after(&ended, !self.inherited.is_empty(), lingering);
        if leaves == Leaves::All {
            self.end_hooks(true);
        } else {
            // A gate that is shut guards an address that would not go.
            if let (Leaves::Nothing, Some(dataplane)) = (&leaves, self.dataplane.take()) {
                dataplane.close()?;
            }
            // The state directory's lock keeps another start, and its hooks, until these have ended.
            self.end_hooks(false);
            self.state
                .clear()
                .context("the state directory could not be cleared")?;
        }
        if let Leaves::Guard(vips) = leaves {
            let vips: Vec<String> = vips.iter().map(ToString::to_string).collect();
            bail!(
                "{} could not be taken off; {} by itself within {} s, and until then the shut gate \
                 in {} is left to guard it; then take that away with `vip-agent cleanup`",
                vips.join(", "),
                if vips.len() == 1 {
                    "it goes"
                } else {
                    "they go"
                },
                longest_lifetime(self.config.lease_ttl).as_secs(),
                self.config.bpf_dir.display(),
            );
        }
        match ended? {
            Exit::Released => tracing::info!("released all; nothing is left behind"),
            Exit::Held => {
                tracing::info!("holding: gates, addresses and lease are left for the next start")
            }
            Exit::NameTaken { other } => {
                let macs: Vec<String> = other.macs.iter().map(ToString::to_string).collect();
                bail!(
                    "node name `{}` is taken: a live member of that name runs on host `{}` ({}), \
                     and this is another machine; give each machine a `node` of its own",
                    other.node,
                    other.host,
                    macs.join(", ")
                );
            }
        }
        Ok(())
    }
}

/// What stands when the process has ended.
#[derive(Debug, PartialEq, Eq)]
enum Leaves {
    Nothing,
    /// Programs and maps, with their gates shut: these addresses could not be taken off.
    Guard(Vec<IpAddr>),
    All,
}

impl Leaves {
    fn after(ended: &anyhow::Result<Exit>, inherits: bool, lingering: Vec<IpAddr>) -> Self {
        match ended {
            Ok(Exit::Held) => Self::All,
            // What serves goes on until its deadline: the kernel shuts it, not we.
            Err(_) if inherits || !lingering.is_empty() => Self::All,
            Ok(Exit::Released | Exit::NameTaken { .. }) if !lingering.is_empty() => {
                Self::Guard(lingering)
            }
            Ok(Exit::Released | Exit::NameTaken { .. }) | Err(_) => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_but_what_guards_an_address_that_would_not_go() {
        let vip = IpAddr::from([10, 0, 0, 100]);
        let released = || Ok(Exit::Released);
        let failed = || Err(anyhow::anyhow!("oops"));
        assert_eq!(Leaves::after(&released(), true, vec![]), Leaves::Nothing);
        assert_eq!(
            Leaves::after(&released(), false, vec![vip]),
            Leaves::Guard(vec![vip])
        );
        assert_eq!(Leaves::after(&Ok(Exit::Held), false, vec![]), Leaves::All);
        assert_eq!(Leaves::after(&failed(), false, vec![]), Leaves::Nothing);
        assert_eq!(Leaves::after(&failed(), true, vec![]), Leaves::All);
        assert_eq!(Leaves::after(&failed(), false, vec![vip]), Leaves::All);
    }
}
