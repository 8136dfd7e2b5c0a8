//! Preloaded into an agent: its time of day is off by as many seconds as the file that `VIP_WALL_CLOCK` names says.
//! All other clocks are as they are.

use std::os::raw::{c_int, c_long};

#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

const CLOCK_REALTIME: c_int = 0;

#[cfg(target_arch = "x86_64")]
const SYS_CLOCK_GETTIME: c_long = 228;
#[cfg(target_arch = "aarch64")]
const SYS_CLOCK_GETTIME: c_long = 113;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// # Safety
/// As of the C library's function of this name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    // SAFETY: the caller's promise is the kernel's demand.
    let answer = unsafe { syscall(SYS_CLOCK_GETTIME, clock, time) };
    if clock == CLOCK_REALTIME && answer == 0 {
        // SAFETY: the kernel has just written there.
        unsafe { (*time).seconds += off_by() };
    }
    answer as c_int
}

fn off_by() -> i64 {
    let file = std::env::var_os("VIP_WALL_CLOCK");
    let text = file.and_then(|file| std::fs::read_to_string(file).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
