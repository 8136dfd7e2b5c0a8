//! What the host's settings say of IPv6 on an interface. An interface that has gone, and a kernel
//! without IPv6, have none.

use std::fs;

/// Whether the host forwards IPv6 from the interface, and so is a router to its neighbours: what Linux
/// goes by for the Router flag of its Neighbour Advertisements (RFC 4861 §4.4).
pub fn is_router(interface: &str) -> bool {
    value(interface, "forwarding").is_some_and(|value| value != "0")
}

/// Whether the interface takes IPv6 addresses: its `disable_ipv6` is 0.
pub fn has_ipv6(interface: &str) -> bool {
    value(interface, "disable_ipv6").is_some_and(|value| value == "0")
}

/// Of `net.ipv6.conf.<interface>`. As a path, for a name may hold dots.
fn value(interface: &str, setting: &str) -> Option<String> {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/{setting}");
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::stage::{ip, staged};

    fn set(interface: &str, setting: &str, value: &str) {
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/{setting}");
        fs::write(path, value).expect("root may");
    }

    #[test]
    fn a_router_is_who_forwards_on_that_interface() {
        staged(|_| {
            ip("link set vb down");
            ip("link set vb name vb.7");
            for name in ["va", "vb.7"] {
                assert!(!is_router(name), "{name}");
            }
            set("vb.7", "forwarding", "1");
            assert!(is_router("vb.7"));
            assert!(!is_router("va"));
            assert!(!is_router("gone"));
        });
    }

    #[test]
    fn an_interface_may_be_kept_from_ipv6() {
        staged(|_| {
            assert!(has_ipv6("va"));
            set("va", "disable_ipv6", "1");
            assert!(!has_ipv6("va"));
            assert!(!has_ipv6("gone"));
        });
    }
}
