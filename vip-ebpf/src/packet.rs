//! Frames behind the kernel's packet pointers. Every access is bounded against the frame's end
//! first, which is what the verifier asks for.

use aya_ebpf::{
    bindings::bpf_hdr_start_off::BPF_HDR_START_MAC,
    helpers::generated::bpf_skb_load_bytes_relative,
    programs::{TcContext, XdpContext},
};
use vip_common::reader::{Reader, Writer};

/// Enough for the longest headers that are looked at: Ethernet, one VLAN tag, IPv6, a neighbour
/// message with its options.
pub const HEADERS: u32 = 14 + 4 + 40 + 24 + 32;

/// The linear part of a frame.
pub struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    #[inline(always)]
    pub fn of_xdp(context: &XdpContext) -> Self {
        Self {
            start: context.data(),
            end: context.data_end(),
        }
    }

    /// The headers of a packet in the stack are made linear if they are not.
    #[inline(always)]
    pub fn of_tc(context: &TcContext) -> Self {
        if context.data_end().wrapping_sub(context.data()) < HEADERS as usize {
            // A frame that is shorter stays as it is, and is read as far as it goes.
            let _ = context.pull_data(context.len().min(HEADERS));
        }
        Self {
            start: context.data(),
            end: context.data_end(),
        }
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]> {
        let place = self.start + offset;
        (place + N <= self.end).then_some(place as *mut [u8; N])
    }
}

/// A packet that has come into the stack, read from its MAC header on.
///
/// Its data may begin behind that: where generic XDP has had the kernel copy a packet, Linux forgets
/// the length of the header that a TC program is to see.
pub struct Received<'a>(&'a TcContext);

impl<'a> Received<'a> {
    /// The headers are made linear if they are not.
    #[inline(always)]
    pub fn of_tc(context: &'a TcContext) -> Self {
        let _ = Frame::of_tc(context);
        Self(context)
    }
}

impl Reader for Received<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: the context is valid while the program runs; the helper fills exactly the N bytes
        // that it is handed, or fails where the packet ends before.
        let failed = unsafe {
            bpf_skb_load_bytes_relative(
                self.0.skb.skb.cast(),
                u32::try_from(offset).ok()?,
                bytes.as_mut_ptr().cast(),
                u32::try_from(N).ok()?,
                BPF_HDR_START_MAC,
            )
        };
        (failed == 0).then_some(bytes)
    }
}

impl Reader for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let place = self.at(offset)?;
        // SAFETY: `at` has checked that the N bytes lie within the frame, and the kernel keeps the
        // frame in place while the program runs; byte arrays need no alignment.
        Some(unsafe { place.read() })
    }
}

impl Writer for Frame {
    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        let place = self.at(offset)?;
        // SAFETY: as in `read`; nothing else holds the frame.
        unsafe { place.write(bytes) };
        Some(())
    }
}
