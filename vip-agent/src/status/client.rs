//! The other end of the socket.

use std::{
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

/// Asks the agent with this state directory how it is.
pub fn ask(state_dir: &Path) -> anyhow::Result<Status> {
    let socket = socket_in(state_dir);
    let mut stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => bail!(
                "no vip-agent is running with state-dir {}; if it has another one, name it with \
                 --state-dir",
                state_dir.display()
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
