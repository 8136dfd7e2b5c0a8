//! The virtual machine: emulated, so slow, and the same on every host.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::run::Failure;

/// What the machine says last when all is well.
pub const PASSED: &str = "vm: all passed";

const FAILED: &str = "vm: FAILED:";
/// Many times what it takes.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// NICs: two on one wire, then three on another, for a bond of two and its client.
const WIRES: &[usize] = &[2, 3];

/// Shows what the machine says, behind its name, and returns the last of it.
pub fn boot(name: &str, kernel: &Path, image: &Path) -> Result<String, Failure> {
    let mut machine = Machine::start(kernel, image)?;
    let lines = machine.lines();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{name}: {line}");
                if line == PASSED || line.starts_with(FAILED) {
                    return Ok(line);
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Ok("it ended before its tests did".to_owned());
            }
            Err(RecvTimeoutError::Timeout) => {
                let minutes = PATIENCE.as_secs() / 60;
                return Ok(format!("it was not done after {minutes} minutes"));
            }
        }
    }
}

/// Ends with its owner.
struct Machine(Child);

impl Machine {
    fn start(kernel: &Path, image: &Path) -> Result<Machine, Failure> {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max"])
            .args(["-smp", "2", "-m", "1024", "-nodefaults", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(image)
            // A panic restarts the machine, and a restart ends it.
            .args(["-append", "console=ttyS0 quiet panic=-1"]);
        for (at, wire) in nics(WIRES).iter().enumerate() {
            // A name that the tests know it by: the last byte of the MAC.
            qemu.arg("-netdev")
                .arg(format!("hubport,id=n{at},hubid={wire}"))
                .arg("-device")
                .arg(format!(
                    "virtio-net-pci,netdev=n{at},mac=02:00:00:00:01:{at:02x},romfile="
                ));
        }
        qemu.stdin(Stdio::null()).stdout(Stdio::piped());
        qemu.spawn()
            .map(Machine)
            .map_err(|error| Failure::new(format!("test-kernels: cannot run qemu: {error}")))
    }

    /// Of the serial console, without what a terminal would take for commands.
    fn lines(&mut self) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel();
        if let Some(output) = self.0.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line);
                    let line = line.replace(|c: char| c.is_control() && c != '\t', "");
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        receiver
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// For each NIC its wire.
fn nics(wires: &[usize]) -> Vec<usize> {
    let ends = wires.iter().enumerate();
    ends.flat_map(|(wire, count)| vec![wire; *count]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nics_are_on_their_wires() {
        assert_eq!(nics(&[2, 3]), [0, 0, 1, 1, 1]);
    }
}
