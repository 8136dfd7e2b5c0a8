//! What the NIC does for the stack.

use std::{ffi::c_char, io, os::fd::AsRawFd as _};

use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// `ETHTOOL_GFLAGS` of `linux/ethtool.h`.
const GET_FLAGS: u32 = 0x25;
/// `ETH_FLAG_RXVLAN`.
const RX_VLAN: u32 = 1 << 8;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether the interface takes VLAN tags off the frames that it receives and hands them to the
/// stack beside (`ethtool -k`: `rx-vlan-offload`). `false` where it can't be told.
pub(super) fn strips_vlan_tags(interface: &str) -> bool {
    flags(interface).is_ok_and(|flags| flags & RX_VLAN != 0)
}

fn flags(interface: &str) -> io::Result<u32> {
    let any = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut value = Value {
        command: GET_FLAGS,
        data: 0,
    };
    let mut name = [0; libc::IFNAMSIZ];
    for (place, byte) in name.iter_mut().zip(interface.bytes()) {
        *place = c_char::from_ne_bytes([byte]);
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: std::ptr::from_mut(&mut value).cast(),
        },
    };
    // SAFETY: the kernel reads the request and the value that it points to, and writes the value;
    // both outlive the call.
    let failed = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value.data)
}
