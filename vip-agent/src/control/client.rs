//! The other end of the socket.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    answer::{Error, ErrorKind, Line, Success},
    request::Request,
};
use crate::{dataplane, state::socket_in};

/// Longer than the agent's loop ever takes for one turn.
const PATIENCE: Duration = Duration::from_secs(3);

/// Which agent is asked.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its state directory.
    pub state_dir: PathBuf,
    /// Its pins: they tell whether one that does not run has left its programs there.
    pub bpf_dir: PathBuf,
    /// What a command line says to mean this agent: empty, or ` --config FILE`, ….
    pub flags: String,
}

/// Asks an agent, and hands on what it says while it is at it. `patience`: for how long the agent was asked to wait.
pub fn ask(
    agent: &Agent,
    request: &Request,
    patience: Duration,
    mut progress: impl FnMut(&str),
) -> Result<Success, Error> {
    let socket = socket_in(&agent.state_dir);
    let mut stream = UnixStream::connect(&socket).map_err(|error| no_agent(agent, &error))?;
    let at = socket.display();
    let failed = |error: io::Error| Error::new(ErrorKind::NoAnswer, format!("{at}: {error}"));
    stream
        .set_read_timeout(Some(patience.saturating_add(PATIENCE)))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        .map_err(failed)?;
    let sent = stream.write_all(request.to_line().as_bytes());
    let mut is_first = true;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::new(
                ErrorKind::NoAnswer,
                format!("{at}: the agent did not answer in time; it is frozen or very busy"),
            ),
            // One that did not read the question.
            io::ErrorKind::ConnectionReset if is_first => of_another_version(&socket),
            _ => failed(error),
        })?;
        is_first = false;
        match serde_json::from_str(&line) {
            Ok(Line::Progress(text)) => progress(&text),
            Ok(Line::Result(success)) => return Ok(success),
            Ok(Line::Error(error)) => return Err(error),
            Err(_) => return Err(of_another_version(&socket)),
        }
    }
    sent.map_err(failed)?;
    Err(Error::new(
        ErrorKind::NoAnswer,
        format!("{at}: the agent hung up; it is stopping"),
    ))
}

fn of_another_version(socket: &Path) -> Error {
    Error::new(
        ErrorKind::NoAnswer,
        format!(
            "{}: the agent that runs there is of another version than this command ({}): start it anew with this one",
            socket.display(),
            env!("CARGO_PKG_VERSION")
        ),
    )
}

fn no_agent(agent: &Agent, error: &io::Error) -> Error {
    let socket = socket_in(&agent.state_dir);
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::new(
            ErrorKind::NoAgent,
            format!(
                "no vip-agent is running with state-dir {}; {}",
                agent.state_dir.display(),
                what_to_do(agent)
            ),
        ),
        io::ErrorKind::PermissionDenied => Error::new(
            ErrorKind::Denied,
            format!(
                "{}: permission denied; ask as the user that the agent runs as (root, most likely)",
                socket.display()
            ),
        ),
        _ => Error::new(
            ErrorKind::NoAnswer,
            format!("{}: {error}", socket.display()),
        ),
    }
}

fn what_to_do(agent: &Agent) -> String {
    let is_left = fs::read_dir(&agent.bpf_dir).is_ok_and(|mut pins| pins.next().is_some());
    if dataplane::is_in_use(&agent.bpf_dir) {
        format!(
            "but one runs with bpf-dir {}: it has another state-dir than this one, which may have been changed in \
             its configuration since it started; name its own with --state-dir",
            agent.bpf_dir.display()
        )
    } else if is_left {
        format!(
            "its programs stand in bpf-dir {}, held for the next start or left by one that died, and \
             their gates are shut or soon will be: start it again, or take them away with \
             `vip-agent cleanup{}`",
            agent.bpf_dir.display(),
            agent.flags
        )
    } else {
        "if it has another one, name it with --state-dir or --config".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::net::UnixListener, thread};

    use super::*;

    fn agent(state: &Path, bpf: &Path) -> Agent {
        Agent {
            state_dir: state.to_owned(),
            bpf_dir: bpf.to_owned(),
            flags: " --config /etc/vip.yaml".to_owned(),
        }
    }

    fn asked(agent: &Agent) -> Result<Success, Error> {
        ask(agent, &Request::Members {}, Duration::ZERO, |_| ())
    }

    #[test]
    fn without_an_agent_it_says_whether_one_left_something() {
        let [state, bpf] = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"));
        let refusal = || {
            let error = asked(&agent(state.path(), bpf.path())).expect_err("nobody is there");
            assert_eq!(error.kind, ErrorKind::NoAgent);
            error.message
        };
        let nothing_left = refusal();
        assert!(nothing_left.contains("--state-dir"), "{nothing_left}");
        fs::write(bpf.path().join("LEASE"), "").expect("a file can be written");
        let left = refusal();
        for part in [
            &*bpf.path().to_string_lossy(),
            "start it again",
            "cleanup --config /etc/vip.yaml`",
        ] {
            assert!(left.contains(part), "{left}");
        }
        // Whoever runs has it locked.
        let directory = fs::File::open(bpf.path()).expect("it can be opened");
        directory.lock().expect("nobody else has it");
        let in_use = refusal();
        assert!(in_use.contains("one runs with bpf-dir"), "{in_use}");
        assert!(!in_use.contains("cleanup"), "{in_use}");
    }

    /// What comes of asking one that says these lines.
    fn told(lines: &'static str) -> (Result<Success, Error>, Vec<String>) {
        let state = tempfile::tempdir().expect("a temporary directory");
        let listener = UnixListener::bind(socket_in(state.path())).expect("it is writable");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody asks");
            stream.write_all(lines.as_bytes()).expect("it is read");
            let mut question = [0; 64];
            let _ = stream.read(&mut question);
        });
        let mut said = Vec::new();
        let answer = ask(
            &agent(state.path(), state.path()),
            &Request::Reload {},
            Duration::ZERO,
            |text| said.push(text.to_owned()),
        );
        server.join().expect("it ends");
        (answer, said)
    }

    #[test]
    fn the_last_line_is_the_answer_and_those_before_it_are_told() {
        let (answer, said) =
            told("{\"progress\":\"a\"}\n{\"progress\":\"b\"}\n{\"result\":{\"reload\":{}}}\n");
        assert_eq!(
            (answer, said.join(" ")),
            (
                Ok(Success::Reload(crate::control::Reloaded::default())),
                "a b".into()
            )
        );
        let (answer, _) = told("{\"error\":{\"kind\":\"timeout\",\"message\":\"m\"}}\n");
        assert_eq!(answer, Err(Error::new(ErrorKind::Timeout, "m")));
    }

    #[test]
    fn an_agent_that_hangs_up_or_speaks_otherwise_is_said() {
        let (answer, _) = told("{\"progress\":\"a\"}\n");
        let error = answer.expect_err("it hung up");
        assert!(error.message.contains("it is stopping"), "{error}");
        let (answer, _) = told("{\"node\":\"cp-1\"}\n");
        let error = answer.expect_err("it is no answer");
        assert!(error.message.contains("another version"), "{error}");
    }
}
