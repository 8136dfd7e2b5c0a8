//! The agent's end of the socket.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::timeout,
};

use super::{
    answer::{Error, ErrorKind, Line, Reply, Success},
    request::Request,
};

/// A request, and where the answer goes.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Who asks.
    pub reply: Reply,
}

/// A client that neither reads nor goes on writing is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Who has sent nothing by then wants the status.
const SHORT_WHILE: Duration = Duration::from_millis(300);
/// How often it is looked whether who waits is still there.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// Far more than any request has.
const LONGEST_REQUEST: usize = 64 * 1024;

/// Listens on `socket` (mode 0600) and passes on what each connection asks.
pub fn serve(socket: &Path, requests: mpsc::Sender<Asked>) -> io::Result<()> {
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
                    tokio::spawn(answer(stream, requests.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the agent's socket took no connection");
                    tokio::time::sleep(PATIENCE).await;
                }
            }
        }
    });
    Ok(())
}

/// What a client sent.
enum Question {
    /// Nothing, as those of old do.
    None,
    Line(Vec<u8>),
    TooLong,
    Unfinished,
}

async fn answer(mut stream: UnixStream, requests: mpsc::Sender<Asked>) -> io::Result<()> {
    let bad = |why: &str| Err(Error::new(ErrorKind::BadRequest, why));
    let (request, is_bare) = match read(&mut stream).await? {
        Question::None => (Ok(Request::Status {}), true),
        Question::Line(line) => (
            Request::parse(&line).map_err(|why| {
                Error::new(
                    ErrorKind::BadRequest,
                    format!("the request is not understood: {why}"),
                )
            }),
            false,
        ),
        Question::TooLong => (bad("the request is too long"), false),
        Question::Unfinished => (bad("the request has no end of line"), false),
    };
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            write(&mut stream, &Line::Error(error)).await?;
            return finish(stream).await;
        }
    };
    let (lines, mut answers) = mpsc::unbounded_channel();
    let asked = Asked {
        request,
        reply: Reply::new(lines),
    };
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    requests.send(asked).await.map_err(|_| gone())?;
    loop {
        match timeout(LOOK_AFTER, answers.recv()).await {
            Ok(Some(Line::Result(Success::Status(status)))) if is_bare => {
                write(&mut stream, &status).await?;
            }
            Ok(Some(line)) => write(&mut stream, &line).await?,
            Ok(None) => return finish(stream).await,
            Err(_) if has_left(&stream).await => return Err(gone()),
            Err(_) => {}
        }
    }
}

async fn read(stream: &mut UnixStream) -> io::Result<Question> {
    let mut line = Vec::new();
    match timeout(SHORT_WHILE, stream.read_buf(&mut line)).await {
        Ok(read) => read?,
        Err(_) => return Ok(Question::None),
    };
    if line.is_empty() {
        return Ok(Question::None);
    }
    let rest = async {
        loop {
            if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                line.truncate(end);
                return Ok(Question::Line(line));
            }
            if line.len() > LONGEST_REQUEST {
                return Ok(Question::TooLong);
            }
            if stream.read_buf(&mut line).await? == 0 {
                return Ok(Question::Line(line));
            }
        }
    };
    timeout(PATIENCE, rest)
        .await
        .unwrap_or(Ok(Question::Unfinished))
}

/// Whether the client has closed its end, and not for writing alone.
async fn has_left(stream: &UnixStream) -> bool {
    let ready = stream.ready(Interest::WRITABLE).await;
    ready.is_ok_and(|ready| ready.is_write_closed())
}

async fn write(stream: &mut UnixStream, line: &impl serde::Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    timeout(PATIENCE, stream.write_all(&text)).await?
}

/// What is still unread would have the kernel throw away what was written.
async fn finish(mut stream: UnixStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 4096];
    let drain = async { while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    let _ = timeout(SHORT_WHILE, drain).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::Shutdown,
        os::unix::net::UnixStream as Client,
        time::Instant,
    };

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
    }

    /// What comes back to a client that does `talk`, from an agent that says of each request what it read, and
    /// how long that took.
    fn answered(talk: impl FnOnce(&mut Client) + Send + 'static) -> (String, Duration) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let socket = dir.path().join("agent.sock");
        runtime().block_on(async {
            let (sender, mut requests) = mpsc::channel::<Asked>(8);
            serve(&socket, sender).expect("the directory is writable");
            tokio::spawn(async move {
                while let Some(asked) = requests.recv().await {
                    asked.reply.progress("on it");
                    let what = format!("{:?}", asked.request);
                    asked
                        .reply
                        .end(Err(Error::new(ErrorKind::Unsupported, what)));
                }
            });
            let client = tokio::task::spawn_blocking(move || {
                let began = Instant::now();
                let mut client = Client::connect(socket).expect("somebody listens");
                client
                    .set_read_timeout(Some(Duration::from_secs(20)))
                    .expect("a timeout may be set");
                talk(&mut client);
                let mut text = String::new();
                let _ = client.read_to_string(&mut text);
                (text, began.elapsed())
            });
            client.await.expect("it ends")
        })
    }

    #[test]
    fn a_request_gets_its_lines() {
        let (text, _) = answered(|client| {
            client.write_all(b"{\"members\":{}}\n").expect("it is read");
        });
        assert_eq!(
            text,
            "{\"progress\":\"on it\"}\n{\"error\":{\"kind\":\"unsupported\",\"message\":\"Members\"}}\n"
        );
    }

    #[test]
    fn who_asks_nothing_wants_the_status() {
        let (silent, waited) = answered(|_| ());
        assert!(silent.contains("Status"), "{silent}");
        assert!(waited >= SHORT_WHILE, "{waited:?}");
        let (closed, _) = answered(|client| {
            client.shutdown(Shutdown::Write).expect("it is connected");
        });
        assert!(closed.contains("Status"), "{closed}");
    }

    #[test]
    fn what_is_not_understood_is_said_and_goes_no_further() {
        for (bytes, says) in [
            (&b"garbage\n"[..], "not understood"),
            (b"\n", "not understood"),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not understood"),
            (b"\0\0\0\0\n", "not understood"),
            (b"{\"members\":{}", "no end of line"),
        ] {
            let (text, _) = answered(move |client| client.write_all(bytes).expect("it is read"));
            assert!(
                text.contains("bad-request") && text.contains(says),
                "{text}"
            );
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }

    #[test]
    fn the_end_of_what_is_sent_ends_the_line_too() {
        let (text, _) = answered(|client| {
            client.write_all(b"{\"members\":{}}").expect("it is read");
            client.shutdown(Shutdown::Write).expect("it is connected");
        });
        assert!(text.contains("Members"), "{text}");
    }

    #[test]
    fn who_sends_without_end_is_cut_off() {
        let (text, _) = answered(|client| {
            let block = [b' '; 4096];
            for _ in 0..1000 {
                if client.write_all(&block).is_err() {
                    break;
                }
            }
        });
        assert!(text.contains("too long"), "{text}");
    }

    #[test]
    fn who_sends_drop_by_drop_is_not_waited_for_longer_than_others() {
        let (text, waited) = answered(|client| {
            let ended = Instant::now() + 5 * PATIENCE;
            while Instant::now() < ended && client.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        assert!(waited < 5 * PATIENCE, "{waited:?}, {text}");
    }

    #[test]
    fn who_leaves_is_noticed_and_who_only_ended_his_question_is_not_taken_for_gone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let socket = dir.path().join("agent.sock");
        runtime().block_on(async {
            let (sender, mut requests) = mpsc::channel::<Asked>(8);
            serve(&socket, sender).expect("the directory is writable");
            let client = || {
                let mut client = Client::connect(&socket).expect("somebody listens");
                client.write_all(b"{\"members\":{}}\n").expect("it is read");
                client.shutdown(Shutdown::Write).expect("it is connected");
                client
            };
            let [gone, there] = [client(), client()];
            drop(gone);
            let mut replies = Vec::new();
            for _ in 0..2 {
                replies.push(requests.recv().await.expect("both ask").reply);
            }
            let ended = Instant::now() + Duration::from_secs(20);
            while !replies.iter().any(Reply::is_in_vain) {
                assert!(Instant::now() < ended, "nobody noticed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            replies.retain(|reply| !reply.is_in_vain());
            assert_eq!(replies.len(), 1);
            tokio::time::sleep(2 * LOOK_AFTER).await;
            assert!(!replies[0].is_in_vain());
            drop(there);
        });
    }
}
