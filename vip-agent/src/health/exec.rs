//! A program, and the exit code that it ends with.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _, unix::process::ExitStatusExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use tokio::{io::AsyncReadExt as _, net::unix::pipe, sync::oneshot, task::JoinHandle};

use crate::config::one_line;

/// Of a program's output, as much of its end as is kept.
const TAIL: usize = 1024;
/// Of the last line, in characters.
const LONGEST_LINE: usize = 160;
/// Once a program has ended, more than a pipe ever holds.
const MOST_LEFT: usize = 1 << 20;

/// Runs a program, in a process group of its own, which ends with it.
pub(super) struct Exec {
    words: Vec<String>,
    /// The program that was started last, until it has been waited for: one that was killed may take its time.
    last: Option<JoinHandle<io::Result<ExitStatus>>>,
    tail: Vec<u8>,
}

impl Exec {
    pub fn new(words: &[String]) -> Self {
        Self {
            words: words.to_owned(),
            last: None,
            tail: Vec::new(),
        }
    }

    /// Dropped before its end, it kills the group.
    pub async fn run(&mut self) -> Result<(), String> {
        if let Some(before) = &mut self.last {
            // What it came to was told when it was killed.
            let _ = before.await;
            self.last = None;
        }
        self.tail.clear();
        let group = Arc::new(Group::default());
        let _guard = Guard(group.clone());
        let (output, writer) = io::pipe().map_err(|error| not_run(&error))?;
        let output = pipe::Receiver::from_owned_fd(output.into());
        let mut output = output.map_err(|error| not_run(&error))?;
        let (words, (started, start)) = (self.words.clone(), oneshot::channel());
        let last = self.last.insert(tokio::task::spawn_blocking(move || {
            group.run(&words, writer.into(), started)
        }));
        // It is not sent if there is no program.
        let mut is_open = start.await.is_ok();
        let mut buffer = [0; 4096];
        let ended = loop {
            tokio::select! {
                ended = &mut *last => break ended,
                read = output.read(&mut buffer), if is_open => match read {
                    Ok(0) | Err(_) => is_open = false,
                    Ok(count) => keep(&mut self.tail, &buffer[..count]),
                },
            }
        };
        self.last = None;
        let mut left = MOST_LEFT;
        while let Ok(count @ 1..) = output.try_read(&mut buffer) {
            keep(&mut self.tail, &buffer[..count]);
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
        let status = ended.map_err(|error| error.to_string())?;
        let status = status.map_err(|error| not_run(&error))?;
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            (Some(code), _) => Err(self.with_output(&format!("exit code {code}"))),
            (None, signal) => {
                let signal = signal.unwrap_or_default();
                Err(self.with_output(&format!("ended by signal {signal}")))
            }
        }
    }

    /// What a run came to that was dropped at its timeout.
    pub fn overdue(&self, limit: &str) -> String {
        self.with_output(&format!("no end within {limit}"))
    }

    fn with_output(&self, what: &str) -> String {
        match last_line(&self.tail) {
            Some(line) => format!("{what}: {line}"),
            None => what.to_owned(),
        }
    }
}

fn not_run(error: &io::Error) -> String {
    format!("it could not be run: {error}")
}

/// A program's process group, which is killed only while the program has not been waited for: after that its
/// number may be another one's.
#[derive(Default)]
struct Group(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Starting,
    Running(Pid),
    /// To be killed as soon as it runs, if it does not yet.
    Unwanted,
}

impl Group {
    /// Starts the program and waits for its end, and the end of what it left running.
    fn run(
        &self,
        words: &[String],
        output: OwnedFd,
        started: oneshot::Sender<()>,
    ) -> io::Result<ExitStatus> {
        let mut child = spawn(words, output)?;
        // Process ids are positive numbers of this type.
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        match &mut *self.state() {
            State::Unwanted => kill(pid),
            state => *state = State::Running(pid),
        }
        // It may be listened for no more.
        let _ = started.send(());
        // Not yet waited for it keeps its number, and that of its group.
        let ended = await_end(pid);
        let mut state = self.state();
        if ended {
            kill(pid);
        }
        *state = State::Unwanted;
        drop(state);
        child.wait()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kills a group that nobody waits for any more.
struct Guard(Arc<Group>);

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let State::Running(pid) = *state {
            kill(pid);
        }
        *state = State::Unwanted;
    }
}

fn spawn(words: &[String], output: OwnedFd) -> io::Result<Child> {
    let [program, arguments @ ..] = words else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    Command::new(program)
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()
}

/// Whether it has ended, and is still to be waited for.
fn await_end(pid: Pid) -> bool {
    loop {
        match waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(_) => return true,
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// Of a group that has ended there is nothing to kill.
fn kill(group: Pid) {
    let _ = killpg(group, Signal::SIGKILL);
}

fn keep(tail: &mut Vec<u8>, output: &[u8]) {
    tail.extend_from_slice(output);
    tail.drain(..tail.len().saturating_sub(TAIL));
}

/// The last line that is not blank.
fn last_line(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    let line = one_line(line);
    let mut cut: String = line.chars().take(LONGEST_LINE).collect();
    if cut.len() < line.len() {
        cut.push('…');
    }
    Some(cut)
}
