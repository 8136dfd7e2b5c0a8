//! Frames by the other end of the veth pair, byte for byte.

use std::{
    io,
    time::{Duration, Instant},
};

use pnet::datalink::{self, Channel, Config, DataLinkReceiver, DataLinkSender};
use vip_common::cases;

use super::PEER;

/// Longer than a frame takes on any busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Sends and hears by an interface.
pub struct Wire {
    pub name: String,
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
}

impl Wire {
    /// By [`PEER`].
    pub fn open() -> Self {
        Self::open_on(PEER)
    }

    /// Hears what comes from now on.
    pub fn open_on(name: &str) -> Self {
        let interface = datalink::interfaces()
            .into_iter()
            .find(|interface| interface.name == name)
            .expect("the stage has it");
        let config = Config {
            read_timeout: Some(Duration::from_millis(100)),
            ..Config::default()
        };
        match datalink::channel(&interface, config).expect("root may") {
            Channel::Ethernet(sender, receiver) => Self {
                name: name.to_owned(),
                sender,
                receiver,
            },
            _ => unreachable!("a veth is Ethernet"),
        }
    }

    pub fn send(&mut self, frame: &[u8]) {
        self.try_to_send(frame).expect("the interface is up");
    }

    /// What is dropped on egress is an error, `ENOBUFS`.
    pub fn try_to_send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.sender.send_to(frame, None).expect("it is Ethernet")
    }

    /// The next frame, if one came yet.
    pub fn heard(&mut self) -> Option<Vec<u8>> {
        self.receiver.next().ok().map(<[u8]>::to_vec)
    }

    /// Whom an ARP reply about the shared IP came for, of the next one; `None` if none came yet.
    pub fn answered(&mut self) -> Option<[u8; 4]> {
        let frame = self.receiver.next().ok()?;
        let arp = frame.get(14..42)?;
        let is_reply = frame[12..14] == [8, 6] && arp[6..8] == [0, 2];
        (is_reply && arp[14..18] == cases::VIP).then(|| [arp[24], arp[25], arp[26], arp[27]])
    }

    /// All that were answered until `last` was.
    pub fn answered_until(&mut self, last: [u8; 4]) -> Vec<[u8; 4]> {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        while Instant::now() < deadline {
            if let Some(asker) = self.answered() {
                heard.push(asker);
                if asker == last {
                    return heard;
                }
            }
        }
        panic!("no answer to {last:?}; heard {heard:?}");
    }
}
