//! Local programs that use the shared IP are told when it leaves their machine.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};

use anyhow::{Result, ensure};
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{Setup, VIP, scenario};
use vip_tests::failover::{SETTLED_WITHIN, fail_over, up};

#[test]
fn a_handover_ends_the_local_connections_of_the_shared_ip() -> Result<()> {
    scenario("handover and local connections", Setup::default(), |bed| {
        let (owner, probe) = up(bed, &AgentConfig::new(VIP))?;
        // A socket stays in the namespace that it was made in.
        let (mut local, _taken, _listener) = bed.nodes[owner].netns().within(|| {
            let listener = TcpListener::bind((VIP, 0))?;
            let local = TcpStream::connect(listener.local_addr()?)?;
            let (taken, _) = listener.accept()?;
            Ok((local, taken, listener))
        })?;
        local.set_read_timeout(Some(SETTLED_WITHIN))?;
        fail_over(bed, &probe, owner, |bed| bed.stop_agent(owner).map(drop))?;
        let read = local.read(&mut [0; 8]);
        ensure!(
            read.as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionAborted),
            "a local connection was left to hang: {read:?}"
        );
        Ok(())
    })
}
