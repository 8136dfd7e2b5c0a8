//! The ring buffer of events.

use aya::maps::{Map, MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};
use vip_common::abi::{Event, VipKey, names};

use super::error::DataplaneError;

pub(super) struct Events(AsyncFd<RingBuf<MapData>>);

impl Events {
    pub fn open(map: Map) -> Result<Self, DataplaneError> {
        let buffer =
            RingBuf::try_from(map).map_err(|error| DataplaneError::map(names::EVENTS, error))?;
        // SAFETY: the buffer keeps its one descriptor open for as long as it lives, and `AsyncFd`
        // owns the buffer.
        unsafe { AsyncFd::register_with_interest(buffer, Interest::READABLE) }
            .map(Self)
            .map_err(|error| DataplaneError::io(names::EVENTS)(error.into()))
    }

    pub fn at_hand(&mut self) -> Option<Event> {
        let buffer = self.0.get_mut();
        while let Some(item) = buffer.next() {
            if let Some(event) = parse(&item) {
                return Some(event);
            }
        }
        None
    }

    pub async fn next(&mut self) -> Result<Event, DataplaneError> {
        loop {
            let mut ready = self
                .0
                .readable_mut()
                .await
                .map_err(DataplaneError::io(names::EVENTS))?;
            // One that cannot be read is of no ABI of ours, and passed over.
            if let Some(event) = ready.get_inner_mut().next().and_then(|item| parse(&item)) {
                return Ok(event);
            }
            ready.clear_ready();
        }
    }
}

/// Field by field, at the offsets of `repr(C)`: the buffer is bytes, and of whatever alignment.
fn parse(bytes: &[u8]) -> Option<Event> {
    let (at_ns, rest) = bytes.split_first_chunk()?;
    let (addr, rest) = rest.split_first_chunk()?;
    let (ifindex, rest) = rest.split_first_chunk()?;
    let (op, rest) = rest.split_first_chunk()?;
    let (mac, _) = rest.split_first_chunk()?;
    Some(Event {
        at_ns: u64::from_ne_bytes(*at_ns),
        vip: VipKey { addr: *addr },
        ifindex: u32::from_ne_bytes(*ifindex),
        op: u16::from_ne_bytes(*op),
        mac: *mac,
        reserved: [0; 4],
    })
}
