//! A container behind a node's own bridge reaches the shared IP, whoever owns it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{Bed, Setup, VIP, scenario};
use vip_tests::failover::{SETTLED_WITHIN, up};
use vip_tests::netns::Netns;
use vip_tests::node::Node;

const PORT: u16 = 7077;
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn a_container_on_a_follower_reaches_the_owner_through_its_own_node() -> Result<()> {
    scenario("container on a follower", Setup::default(), |bed| {
        let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
        let follower = (owner + 1) % bed.nodes.len();
        let container = plug_container(bed, follower)?;
        // No address translation: the owner has to find the way back.
        let gateway = bed.nodes[follower]
            .interface("eth0")?
            .addresses
            .v4
            .to_string();
        let owners = bed.nodes[owner].netns();
        owners.ip(&["route", "add", "10.79.0.0/24", "via", &gateway])?;
        // The guard of an interface that has just come stands when it is told of.
        vip_tests::wait::until_true("the guard on the new interface", SETTLED_WITHIN, || {
            let pins = bed.nodes[follower].pins()?;
            Ok(pins
                .iter()
                .any(|pin| pin.contains("pods") && pin.ends_with("guard")))
        })?;
        let answer = ask(&container, &bed.nodes[owner])?;
        ensure!(answer == "served", "{answer}");
        let report = probe.finish()?;
        ensure!(report.by_two() == 0, "{report:#?}");
        Ok(())
    })
}

/// A namespace behind the node, 10.79.0.2, with the node as its gateway.
fn plug_container(bed: &Bed, index: usize) -> Result<Netns> {
    let run = bed
        .directory()
        .file_name()
        .context("a run has a directory")?;
    let container = Netns::create(&format!("{}-container", run.to_string_lossy()))?;
    let node = bed.nodes[index].netns();
    node.ip(&[
        "link",
        "add",
        "pods",
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        container.name(),
    ])?;
    node.ip(&["address", "add", "10.79.0.1/24", "dev", "pods"])?;
    node.ip(&["link", "set", "pods", "up"])?;
    container.ip(&["address", "add", "10.79.0.2/24", "dev", "eth0"])?;
    container.ip(&["link", "set", "eth0", "up"])?;
    container.ip(&["route", "add", "default", "via", "10.79.0.1"])?;
    node.within(|| Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))?;
    Ok(container)
}

/// What a service on the shared IP answers to somebody in `from`.
fn ask(from: &Netns, owner: &Node) -> Result<String> {
    let listener = owner
        .netns()
        .within(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?))?;
    let service = std::thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.write_all(b"served")?;
        Ok(())
    });
    let answer = from.within(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((VIP, PORT)), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?;
    service
        .join()
        .map_err(|_| anyhow::anyhow!("the service panicked"))??;
    Ok(answer)
}
