//! The other end of the socket.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::report::Status;
use crate::state::socket_in;

/// Longer than the agent's loop ever takes for one turn.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the agent with this state directory how it is. If none runs, `bpf_dir` tells whether one left
/// its programs there.
pub fn ask(state_dir: &Path, bpf_dir: &Path) -> anyhow::Result<Status> {
    let socket = socket_in(state_dir);
    let mut stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => bail!(
                "no vip-agent is running with state-dir {}; {}",
                state_dir.display(),
                what_to_do(bpf_dir)
            ),
            io::ErrorKind::PermissionDenied => bail!(
                "{}: permission denied; ask as the user that the agent runs as (root, most likely)",
                socket.display()
            ),
            _ => return Err(error).with_context(|| socket.display().to_string()),
        },
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| {
        format!(
            "{}: the agent did not answer within {} s; it is frozen or very busy",
            socket.display(),
            PATIENCE.as_secs()
        )
    })?;
    if text.is_empty() {
        bail!("{}: the agent hung up; it is stopping", socket.display());
    }
    serde_json::from_str(&text).context("the agent's answer is of another version")
}

fn what_to_do(bpf_dir: &Path) -> String {
    let is_left = fs::read_dir(bpf_dir).is_ok_and(|mut pins| pins.next().is_some());
    if is_left {
        format!(
            "its programs stand in bpf-dir {}, held for the next start or left by one that died, and \
             their gates are shut or soon will be: start it again, or take them away with \
             `vip-agent cleanup`",
            bpf_dir.display()
        )
    } else {
        "if it has another one, name it with --state-dir or --config".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_agent_it_says_whether_one_left_something() {
        let [state, bpf] = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"));
        let refusal = || {
            let asked = ask(state.path(), bpf.path());
            asked.expect_err("nobody is there").to_string()
        };
        let nothing_left = refusal();
        assert!(nothing_left.contains("--state-dir"), "{nothing_left}");
        fs::write(bpf.path().join("LEASE"), "").expect("a file can be written");
        let left = refusal();
        for part in [&*bpf.path().to_string_lossy(), "start it again", "cleanup"] {
            assert!(left.contains(part), "{left}");
        }
    }
}
