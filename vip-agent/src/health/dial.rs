//! A TCP connection to a host that may be a name.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
};

use tokio::{net::TcpStream, task::JoinHandle};

/// Makes connections, one at a time.
pub(super) struct Dial {
    host: String,
    port: u16,
    /// A look-up cannot be ended: one that is late is waited for by later runs, instead of one more each.
    lookup: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

impl Dial {
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
            lookup: None,
        }
    }

    pub async fn connect(&mut self) -> Result<TcpStream, String> {
        let mut why = format!("{} has no address", self.host);
        for address in self.addresses().await? {
            match TcpStream::connect(address).await {
                Ok(stream) if is_to_itself(&stream) => why = "nobody listens".to_owned(),
                Ok(stream) => return Ok(stream),
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }

    /// What a run that took too long lacked.
    pub fn awaited(&self) -> String {
        match &self.lookup {
            Some(_) => format!("no address of {}", self.host),
            None => "no connection".to_owned(),
        }
    }

    async fn addresses(&mut self) -> Result<Vec<SocketAddr>, String> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(vec![(ip, self.port).into()]);
        }
        let lookup = self.lookup.get_or_insert_with(|| {
            let name = (self.host.clone(), self.port);
            tokio::task::spawn_blocking(move || name.to_socket_addrs().map(Iterator::collect))
        });
        let found = lookup.await;
        self.lookup = None;
        match found {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(format!("no address of {}: {error}", self.host)),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Whoever connects to a port of this host that nobody listens at may be given that very port to connect
/// from, and is then connected to itself (RFC 9293 §3.5, simultaneous open).
pub(super) fn is_to_itself(stream: &TcpStream) -> bool {
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(own), Ok(peer)) => own == peer,
        _ => false,
    }
}
