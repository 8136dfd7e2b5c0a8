//! What the NIC and its driver do, as ethtool tells it.

use std::{ffi::c_char, io, os::fd::AsRawFd as _};

use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// `ETHTOOL_GFLAGS` of `linux/ethtool.h`.
const GET_FLAGS: u32 = 0x25;
/// `ETH_FLAG_RXVLAN`.
const RX_VLAN: u32 = 1 << 8;

/// `ETHTOOL_GDRVINFO`.
const GET_DRIVER: u32 = 3;
/// Drivers that run an interface's XDP program on others below it: a bond on its ports, Hyper-V's on a
/// virtual function.
const HANDING_DOWN: [&str; 2] = ["bonding", "hv_netvsc"];

/// Drivers of interfaces whose frames come in by others: Linux takes the tag off there, whatever the
/// NIC left in.
const HANDED_FRAMES: [&str; 6] = [
    "bridge",
    "macvlan",
    "ipvlan",
    "team",
    "bonding",
    "openvswitch",
];

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct Driver {
    command: u32,
    name: [u8; 32],
    rest: [u8; 160],
}

/// Whether the interface takes VLAN tags off the frames that it receives and hands them to the
/// stack beside (`ethtool -k`: `rx-vlan-offload`). `false` where it can't be told.
pub(super) fn strips_vlan_tags(interface: &str) -> bool {
    flags(interface).is_ok_and(|flags| flags & RX_VLAN != 0)
}

/// Whether native XDP of this interface runs on others, and takes its frames for theirs. `false`
/// where it can't be told.
pub(super) fn hands_xdp_down(interface: &str) -> bool {
    driver(interface).is_ok_and(|driver| HANDING_DOWN.contains(&driver.as_str()))
}

/// Whether the interface gets its frames from other interfaces, their VLAN tags beside them. `false`
/// where it can't be told.
pub(super) fn is_handed_frames(interface: &str) -> bool {
    driver(interface).is_ok_and(|driver| HANDED_FRAMES.contains(&driver.as_str()))
}

fn flags(interface: &str) -> io::Result<u32> {
    let mut value = Value {
        command: GET_FLAGS,
        data: 0,
    };
    // SAFETY: the command reads and writes an `ethtool_value`.
    unsafe { ask(interface, &mut value) }?;
    Ok(value.data)
}

fn driver(interface: &str) -> io::Result<String> {
    let mut driver = Driver {
        command: GET_DRIVER,
        name: [0; 32],
        rest: [0; 160],
    };
    // SAFETY: the command reads and writes an `ethtool_drvinfo`.
    unsafe { ask(interface, &mut driver) }?;
    let name = driver.name.split(|byte| *byte == 0).next();
    Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
}

/// Hands over a command, in whose place the answer comes.
///
/// # Safety
///
/// `T` must be what the command at its beginning reads and writes.
unsafe fn ask<T>(interface: &str, command: &mut T) -> io::Result<()> {
    let any = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut name = [0; libc::IFNAMSIZ];
    for (place, byte) in name.iter_mut().zip(interface.bytes()) {
        *place = c_char::from_ne_bytes([byte]);
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: std::ptr::from_mut(command).cast(),
        },
    };
    // SAFETY: the kernel reads the request, and reads and writes what it points to as far as the
    // caller vouches for; both outlive the call.
    let failed = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
