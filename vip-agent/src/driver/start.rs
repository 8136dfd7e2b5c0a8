//! From a configuration to a running loop, and from its end to what is left behind.

use std::{fs::File, path::Path};

use anyhow::{Context as _, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::mpsc;

use super::{
    Driver, Inputs, Since,
    addresses::Addresses,
    announcements::Announcements,
    interfaces::{Interfaces, Unfit},
    signals,
};
use crate::{
    config::Config,
    dataplane::{Dataplane, DataplaneMode, GateSpec},
    election::{BootInstant, Election, Event, Exit, Inheritance, Settings},
    net::{self, AddressManager, Announcer, LinkMonitor},
    state::StateDir,
    status,
    store::Store,
};

/// Runs an agent until it is told to stop.
pub async fn run(config: Config, ebpf_log: bool) -> anyhow::Result<()> {
    let (release, hold) = signals().context("signals cannot be awaited")?;
    let state = StateDir::open(&config.state_dir)?;
    let mut dataplane = open_dataplane(&config, ebpf_log)?;
    let _bpf_lock = dataplane
        .is_some()
        .then(|| lock_bpf_dir(&config.bpf_dir))
        .transpose()?;
    let mut interfaces = Interfaces::new(&config.interfaces);
    let inheritance = inherit(&state, &config, dataplane.as_mut(), &mut interfaces).await?;
    let inherits = !inheritance.open_gates.is_empty();

    let (store_sender, store_events) = mpsc::unbounded_channel();
    let (address_sender, address_events) = mpsc::unbounded_channel();
    let (status_sender, status_requests) = mpsc::channel(8);
    let links = LinkMonitor::open().context("changes of the interfaces cannot be watched")?;
    let manager = AddressManager::open().context("addresses cannot be managed")?;
    let announcer = Announcer::open().context("frames cannot be sent")?;
    status::serve(&state.socket(), status_sender)
        .with_context(|| format!("{}", state.socket().display()))?;

    let settings = Settings {
        node: config.node.clone(),
        instance: state.instance().to_owned(),
        host: nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ttl: config.lease_ttl,
        vips: config
            .interfaces
            .iter()
            .flat_map(|one| one.vips.iter().copied())
            .collect(),
    };
    let mut inputs = Inputs {
        store: store_events,
        addresses: address_events,
        status: status_requests,
        links,
        release,
        hold,
    };
    let mut driver = Driver {
        election: Election::new(settings, inheritance),
        store: Store::new(&config.etcd, config.lease_ttl, store_sender),
        addresses: Addresses::new(manager, config.lease_ttl, address_sender),
        announcements: Announcements::new(announcer),
        since: Since::now(),
        dataplane,
        interfaces,
        state,
        config,
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
    driver.end(ended, inherits)
}

fn open_dataplane(config: &Config, ebpf_log: bool) -> anyhow::Result<Option<Dataplane>> {
    let unfenced = |mode: DataplaneMode| mode == DataplaneMode::Kernel;
    for one in config
        .interfaces
        .iter()
        .filter(|one| unfenced(one.dataplane))
    {
        tracing::warn!(
            interface = one.name,
            "UNFENCED: `dataplane: kernel` has no gate; a frozen agent keeps its address until that expires"
        );
    }
    if config.interfaces.iter().all(|one| unfenced(one.dataplane)) {
        return Ok(None);
    }
    Ok(Some(Dataplane::open(&config.bpf_dir, ebpf_log)?))
}

/// Two agents with state directories of their own would still swap each other's programs.
fn lock_bpf_dir(path: &Path) -> anyhow::Result<Flock<File>> {
    let directory = File::open(path).with_context(|| path.display().to_string())?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|_| {
        anyhow!(
            "bpf-dir {}: another vip-agent is using it; stop that one first, or give this one a \
             bpf-dir of its own",
            path.display()
        )
    })
}

/// What an earlier process left: its lease, and the gates that stand in the kernel. Those of
/// shared IPs that are no longer configured are taken away.
async fn inherit(
    state: &StateDir,
    config: &Config,
    dataplane: Option<&mut Dataplane>,
    interfaces: &mut Interfaces,
) -> anyhow::Result<Inheritance> {
    let mut inheritance = Inheritance {
        lease: state.lease(),
        ..Inheritance::default()
    };
    let Some(dataplane) = dataplane else {
        return Ok(inheritance);
    };
    inheritance.deadline = BootInstant::from_ns(dataplane.lease_deadline_ns());
    for (vip, gate) in dataplane.gates()? {
        if config.interfaces.iter().any(|one| one.vips.contains(&vip)) {
            interfaces.adopt_gate(vip, &gate);
            if gate.deadline_ns > 0 {
                let epoch = i64::try_from(gate.epoch).unwrap_or(0);
                inheritance.open_gates.insert(vip, epoch);
            }
        } else {
            tracing::info!(%vip, "no longer configured: its gate and address are taken away");
            let closed = GateSpec {
                deadline_ns: 0,
                ..GateSpec::from(&gate)
            };
            dataplane.put_gate(vip, closed)?;
            AddressManager::open()?.remove(gate.ifindex, vip).await?;
            dataplane.remove_gate(vip)?;
        }
    }
    Ok(inheritance)
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
        self.interfaces.refresh(&links, self.dataplane.as_mut())?;
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
        }
        for (vip, fit) in self.interfaces.fitness().collect::<Vec<_>>() {
            if let Some(exit) = self.feed(Event::Fitness(vip, fit))? {
                return Ok(Some(exit));
            }
        }
        Ok(None)
    }

    /// Leaves behind what the end asks for: nothing, or all of it.
    fn end(self, ended: anyhow::Result<Exit>, inherits: bool) -> anyhow::Result<()> {
        let holds_any = self
            .interfaces
            .fitness()
            .any(|(vip, _)| self.addresses.holds(vip));
        let leave_nothing = match &ended {
            Ok(Exit::Released | Exit::NameTaken { .. }) => true,
            Ok(Exit::Held) => false,
            // What serves goes on until its deadline: the kernel shuts it, not we.
            Err(_) => !holds_any && !inherits,
        };
        if leave_nothing {
            if let Some(dataplane) = self.dataplane {
                dataplane.close()?;
            }
            self.state
                .clear()
                .context("the state directory could not be cleared")?;
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
