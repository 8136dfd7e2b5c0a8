//! The agent's end of the socket.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::report::Status;

/// Someone wants to know; the loop answers here.
pub type Request = oneshot::Sender<Status>;

/// A client that does not read is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Listens on `socket` (mode 0600) and passes each connection's question on to `requests`.
pub fn serve(socket: &Path, requests: mpsc::Sender<Request>) -> io::Result<()> {
    // The state directory is locked, so whoever made it is dead.
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(timeout(PATIENCE, answer(stream, requests.clone())));
                }
                Err(error) => {
                    tracing::warn!(%error, "the status socket took no connection");
                    tokio::time::sleep(PATIENCE).await;
                }
            }
        }
    });
    Ok(())
}

async fn answer(mut stream: UnixStream, requests: mpsc::Sender<Request>) -> io::Result<()> {
    let (reply, answer) = oneshot::channel();
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    requests.send(reply).await.map_err(|_| gone())?;
    let status = answer.await.map_err(|_| gone())?;
    let mut text = serde_json::to_vec(&status)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    stream.shutdown().await
}
