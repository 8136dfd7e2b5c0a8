//! A machine has an address of each family, with the same digits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One machine's addresses on one network: 10.77.0.5 and fd77::5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// In a /24.
    pub v4: Ipv4Addr,
    /// In a /64.
    pub v6: Ipv6Addr,
}

/// An address family. Its name is what figures are told under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// ARP (RFC 826) and ICMP.
    Ipv4,
    /// Neighbour Discovery (RFC 4861) and ICMPv6.
    Ipv6,
}

impl Addresses {
    /// 10.`network`.0.`host` and fd`network`::`host`.
    pub const fn new(network: u8, host: u8) -> Addresses {
        Addresses {
            v4: Ipv4Addr::new(10, network, 0, host),
            v6: Ipv6Addr::new(0xfd00 | digits(network), 0, 0, 0, 0, 0, 0, digits(host)),
        }
    }

    /// The one of a family.
    pub fn of(self, family: Family) -> IpAddr {
        match family {
            Family::Ipv4 => self.v4.into(),
            Family::Ipv6 => self.v6.into(),
        }
    }
}

impl From<IpAddr> for Family {
    fn from(address: IpAddr) -> Family {
        if address.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        })
    }
}

/// A number whose hexadecimal digits read as this one's decimal ones.
const fn digits(number: u8) -> u16 {
    let number = number as u16;
    ((number / 100) << 8) | ((number / 10 % 10) << 4) | (number % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_show_the_same_digits() {
        let client = Addresses::new(77, 200);
        assert_eq!(client.of(Family::Ipv4).to_string(), "10.77.0.200");
        assert_eq!(client.of(Family::Ipv6).to_string(), "fd77::200");
    }
}
