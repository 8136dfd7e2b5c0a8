//! ICMPv6's checksum (RFC 4443 §2.3).

use crate::frame::ipv6::{self, Address};

/// Bytes added up by fours, as ones' complement sums do (RFC 1071); which end comes first does not
/// matter to them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds four bytes.
    #[inline(always)]
    pub fn add(&mut self, bytes: [u8; 4]) {
        self.0 += u64::from(u32::from_ne_bytes(bytes));
    }

    /// Adds eight.
    #[inline(always)]
    pub fn add_word(&mut self, [a, b, c, d, e, f, g, h]: [u8; 8]) {
        self.add([a, b, c, d]);
        self.add([e, f, g, h]);
    }

    /// Adds an address.
    #[inline(always)]
    pub fn add_address(&mut self, address: &Address) {
        let (words, _) = address.as_chunks();
        for word in words {
            self.add(*word);
        }
    }

    /// Adds the rest of the pseudo header (RFC 8200 §8.1).
    #[inline(always)]
    pub fn add_length(&mut self, length: u16) {
        let [high, low] = length.to_be_bytes();
        self.add([0, 0, high, low]);
        self.add([0, 0, 0, ipv6::ICMPV6]);
    }

    /// What has to be put into the checksum's place, which counted as zero.
    #[inline(always)]
    pub fn checksum(self) -> [u8; 2] {
        (!self.folded()).to_ne_bytes()
    }

    /// Whether the checksum, which was added with the rest, is right.
    #[inline(always)]
    pub fn is_right(self) -> bool {
        self.folded() == u16::MAX
    }

    /// Three times is enough for any number of 64 bits.
    #[inline(always)]
    fn folded(self) -> u16 {
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let [low, high, ..] = sum.to_le_bytes();
        u16::from_le_bytes([low, high])
    }
}
