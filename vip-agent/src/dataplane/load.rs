//! The object: into the kernel, with maps that may stand there already.

use std::time::Duration;

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::MapError,
    programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use vip_common::abi::{Gate, VipKey, names};

use super::{error::DataplaneError, pins::Pins};
use crate::clock::boot_now;

#[cfg(ebpf_object)]
const OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(
    env!("OUT_DIR"),
    "/vip-ebpf"
)));
#[cfg(not(ebpf_object))]
const OBJECT: Option<&[u8]> = None;

/// The eBPF object that this build embeds, if it does.
pub fn object() -> Option<&'static [u8]> {
    OBJECT
}

/// `enum xdp_action` of `linux/bpf.h`.
const XDP_PASS: u32 = 2;

/// Boot clocks that differ by more are not one clock.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(10);

/// Loads all programs; pinned maps are adopted, the others are made and pinned.
pub(super) fn load(pins: &Pins, logging: bool) -> Result<Ebpf, DataplaneError> {
    let object = object().ok_or(DataplaneError::NotBuilt)?;
    let mut loader = EbpfLoader::new();
    for name in names::MAPS {
        loader.map_pin_path(name, pins.map(name));
    }
    let flag = u8::from(logging);
    loader.override_global("LOGGING", &flag, true);
    let mut programs = loader.load(object).map_err(refused)?;
    if logging {
        forward_log(&mut programs);
    }
    for name in [names::XDP, names::CLOCK, names::PUT_GATE] {
        xdp(&mut programs, name)?.load().map_err(refused)?;
    }
    for name in [names::INGRESS, names::EGRESS, names::GUARD] {
        classifier(&mut programs, name)?.load().map_err(refused)?;
    }
    Ok(programs)
}

/// Refuses a process whose boot clock is not the kernel's: deadlines would mean two things.
pub(super) fn compare_clocks(programs: &mut Ebpf) -> Result<(), DataplaneError> {
    let program = xdp(programs, names::CLOCK)?;
    let frame = [0; 64];
    let mut answer = [0; 64];
    let before = boot_now();
    let options = TestRunOptions {
        data_in: Some(&frame),
        data_out: Some(&mut answer),
        ..TestRunOptions::default()
    };
    program.test_run(options).map_err(refused)?;
    let after = boot_now();
    let kernel_ns = answer
        .first_chunk()
        .map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    let ahead = Duration::from_nanos(kernel_ns.saturating_sub(after.as_ns()));
    let behind = Duration::from_nanos(before.as_ns().saturating_sub(kernel_ns));
    let apart = ahead.max(behind);
    if apart > CLOCK_TOLERANCE {
        Err(DataplaneError::Clock(apart))
    } else {
        Ok(())
    }
}

/// Has the kernel change a gate that stands, in place.
pub(super) fn put_gate(programs: &mut Ebpf, vip: VipKey, gate: Gate) -> Result<(), DataplaneError> {
    let words = gate.to_words().map(u64::to_ne_bytes);
    let input = [vip.addr.as_slice(), words.as_flattened()].concat();
    let options = TestRunOptions {
        data_in: Some(&input),
        ..TestRunOptions::default()
    };
    let ran = xdp(programs, names::PUT_GATE)?
        .test_run(options)
        .map_err(refused)?;
    if ran.return_value == XDP_PASS {
        Ok(())
    } else {
        Err(DataplaneError::map(names::GATES, MapError::KeyNotFound))
    }
}

pub(super) fn xdp<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, DataplaneError> {
    let missing = || DataplaneError::Load(format!("the object has no program {name}"));
    programs
        .program_mut(name)
        .ok_or_else(missing)?
        .try_into()
        .map_err(refused)
}

pub(super) fn classifier<'a>(
    programs: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, DataplaneError> {
    let missing = || DataplaneError::Load(format!("the object has no program {name}"));
    programs
        .program_mut(name)
        .ok_or_else(missing)?
        .try_into()
        .map_err(refused)
}

/// Debugging output is worth a warning where it fails, and no more.
fn forward_log(programs: &mut Ebpf) {
    use tokio::io::{Interest, unix::AsyncFd};
    let opened = aya_log::EbpfLogger::init(programs)
        .map_err(|error| error.to_string())
        .and_then(|logger| {
            // SAFETY: the logger keeps its one descriptor open for as long as it lives, and
            // `AsyncFd` owns the logger.
            unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }
                .map_err(|error| error.to_string())
        });
    match opened {
        Ok(mut logger) => {
            tokio::spawn(async move {
                while let Ok(mut ready) = logger.readable_mut().await {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
            });
        }
        Err(error) => tracing::warn!(error, "the eBPF programs' log cannot be read"),
    }
}

/// The kernel's refusal, told apart from a fault of the program.
fn refused(error: impl Into<EbpfError>) -> DataplaneError {
    let error = error.into();
    match errno(&error) {
        Some(code) if code == nix::libc::EPERM || code == nix::libc::EACCES => {
            DataplaneError::Permission {
                what: "load the eBPF programs".to_owned(),
                cause: std::io::Error::from_raw_os_error(code),
            }
        }
        _ => DataplaneError::Load(with_causes(&error)),
    }
}

fn errno(error: &EbpfError) -> Option<i32> {
    match error {
        // A program that the verifier turns down is EACCES too, but says why.
        EbpfError::ProgramError(ProgramError::LoadError { io_error, .. }) => io_error
            .raw_os_error()
            .filter(|code| *code == nix::libc::EPERM),
        EbpfError::ProgramError(ProgramError::SyscallError(error)) => error.io_error.raw_os_error(),
        EbpfError::MapError(MapError::CreateError { io_error, .. }) => io_error.raw_os_error(),
        EbpfError::MapError(MapError::SyscallError(error)) => error.io_error.raw_os_error(),
        _ => None,
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
