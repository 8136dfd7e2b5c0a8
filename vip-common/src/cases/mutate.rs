//! Frames of the table, spoilt.

use alloc::vec::Vec;

use super::{put_checksum, tagged};

/// One thing done to a frame.
#[derive(Clone, Debug)]
pub enum Mutation {
    /// Puts a byte somewhere; places count from the beginning, over and over.
    Put(u16, u8),
    /// Turns a bit over.
    Flip(u16, u8),
    /// Cuts it short.
    Truncate(u16),
    /// Adds something at its end.
    Extend(Vec<u8>),
    /// Puts a VLAN tag before its payload.
    Tag(u16),
    /// Makes an untagged ICMPv6 message's checksum right again.
    Resum,
}

/// The frame after all of it.
pub fn mutate(frame: &[u8], mutations: &[Mutation]) -> Vec<u8> {
    mutations
        .iter()
        .fold(frame.to_vec(), |frame, mutation| mutation.apply(frame))
}

impl Mutation {
    fn apply(&self, mut frame: Vec<u8>) -> Vec<u8> {
        let place = |at: u16| usize::from(at) % frame.len().max(1);
        match self {
            Self::Put(at, byte) => {
                let at = place(*at);
                frame
                    .iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|old| *old = *byte);
            }
            Self::Flip(at, bit) => {
                let at = place(*at);
                let mask = 1 << (bit % 8);
                frame
                    .iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|old| *old ^= mask);
            }
            Self::Truncate(length) => {
                let length = place(*length);
                frame.truncate(length);
            }
            Self::Extend(more) => frame.extend(more),
            Self::Tag(tag) if frame.len() >= 12 => return tagged(&frame, *tag),
            Self::Resum if frame.len() >= 58 => put_checksum(&mut frame),
            Self::Tag(_) | Self::Resum => {}
        }
        frame
    }
}
