//! Other programs, each run to its end or to a limit.

use std::{
    fmt, io,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time::{Instant, sleep_until},
};

/// How long the output of a program that ended is read on: what it left in the background may have it too.
const REST_OF_OUTPUT: Duration = Duration::from_millis(50);
/// How long one that was killed is waited for: the kernel may hold it.
const DEATH: Duration = Duration::from_secs(1);
/// What is kept of a line, in bytes.
const LONGEST_LINE: usize = 256;

/// A program, and what it is given.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its path, and its arguments.
    pub words: &'a [String],
    /// What is added to the agent's own environment.
    pub environment: &'a [(String, String)],
    /// What it can read from its standard input; short, for a pipe to hold.
    pub input: &'a [u8],
}

/// What became of a program.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub how: How,
    /// The last line of its standard error that was not empty.
    pub last_words: String,
}

/// How a program ended.
#[derive(Debug)]
pub enum How {
    /// With exit status 0.
    Well,
    /// With another one, or by a signal.
    Badly(ExitStatus),
    /// It ran into its limit, and was killed with all of its process group.
    AtLimit(Duration),
    /// It could not be started.
    NotStarted(io::Error),
}

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl Program<'_> {
    /// Runs it in `/` and in a process group of its own, to its end, but for no longer than `limit`: then all of
    /// that group are killed, and so they are when this future is dropped. `hear` gets its output line by line. What
    /// it leaves running in the background when it ends is neither waited for nor killed.
    pub async fn run(&self, limit: Duration, mut hear: impl FnMut(Stream, &str)) -> Ended {
        let mut talk = Talk::default();
        let how = self.talk(limit, &mut talk, &mut hear).await;
        talk.end(&mut hear);
        Ended {
            how,
            last_words: talk.error.last,
        }
    }

    async fn talk(
        &self,
        limit: Duration,
        talk: &mut Talk,
        hear: &mut impl FnMut(Stream, &str),
    ) -> How {
        let deadline = Instant::now() + limit;
        let mut child = match self.command().spawn() {
            Ok(child) => child,
            Err(error) => return How::NotStarted(error),
        };
        // Below the child, so that it is dropped first: a child that was waited for has no number any more.
        let mut group = Group::of(child.id());
        let (mut input, mut output, mut error) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut rest = self.input;
        let mut ended: Option<ExitStatus> = None;
        let mut until = deadline;
        while ended.is_none() || output.is_some() || error.is_some() {
            tokio::select! {
                status = child.wait(), if ended.is_none() => {
                    group.0 = None;
                    until = deadline.min(Instant::now() + REST_OF_OUTPUT);
                    match status {
                        Ok(status) => ended = Some(status),
                        Err(error) => return How::NotStarted(error),
                    }
                }
                written = write(&mut input, rest), if input.is_some() => match written {
                    // Who does not want it may close it.
                    Ok(0) | Err(_) => input = None,
                    Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                },
                read = read(&mut output, &mut talk.output), if output.is_some() => {
                    if read == 0 {
                        output = None;
                    }
                    talk.output.tell(|line| hear(Stream::Output, line));
                }
                read = read(&mut error, &mut talk.error), if error.is_some() => {
                    if read == 0 {
                        error = None;
                    }
                    talk.error.tell(|line| hear(Stream::Error, line));
                }
                () = sleep_until(until) => break,
            }
        }
        match ended {
            Some(status) if status.success() => How::Well,
            Some(status) => How::Badly(status),
            None => {
                group.kill();
                // Only for its last word to be gone from the list of processes.
                let _ = tokio::time::timeout(DEATH, child.wait()).await;
                How::AtLimit(limit)
            }
        }
    }

    /// Without what would need a fork: `posix_spawn` copies no page tables, which would hold up the other threads.
    fn command(&self) -> Command {
        let (program, arguments) = match self.words {
            [program, arguments @ ..] => (program.as_str(), arguments),
            [] => ("", self.words),
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(self.environment.iter().cloned())
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Ended {
    /// Whether all went well.
    pub fn is_well(&self) -> bool {
        matches!(self.how, How::Well)
    }
}

impl fmt::Display for Ended {
    /// How, and the last words where there are any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.how.fmt(f)?;
        match self.last_words.as_str() {
            "" => Ok(()),
            words => write!(f, ": {words}"),
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well => f.write_str("exit status 0"),
            Self::Badly(status) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "exit status {code}"),
                (None, Some(number)) => match Signal::try_from(number) {
                    Ok(signal) => write!(f, "killed by {signal}"),
                    Err(_) => write!(f, "killed by signal {number}"),
                },
                (None, None) => write!(f, "{status}"),
            },
            Self::AtLimit(limit) => write!(
                f,
                "killed at its limit of {}",
                humantime::format_duration(*limit)
            ),
            Self::NotStarted(error) => write!(f, "it could not be started: {error}"),
        }
    }
}

/// A process group whose leader was not waited for: its number is nobody else's.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: Option<u32>) -> Self {
        let pid = leader.and_then(|pid| i32::try_from(pid).ok());
        Self(pid.map(Pid::from_raw))
    }

    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // It may be about to end by itself.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Default)]
struct Talk {
    output: Lines,
    error: Lines,
}

impl Talk {
    /// The last line may lack its end.
    fn end(&mut self, hear: &mut impl FnMut(Stream, &str)) {
        for (lines, stream) in [
            (&mut self.output, Stream::Output),
            (&mut self.error, Stream::Error),
        ] {
            lines.take_in(b"\n");
            lines.tell(|line| hear(stream, line));
        }
    }
}

/// Output as lines, of which no more is kept than a person reads.
#[derive(Default)]
struct Lines {
    whole: Vec<String>,
    begun: Vec<u8>,
    last: String,
}

impl Lines {
    fn take_in(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let text = String::from_utf8_lossy(&self.begun);
                    let line = crate::config::one_line(text.trim());
                    self.begun.clear();
                    if !line.is_empty() {
                        self.whole.push(line);
                    }
                }
                _ if self.begun.len() < LONGEST_LINE => self.begun.push(*byte),
                _ => {}
            }
        }
    }

    fn tell(&mut self, mut hear: impl FnMut(&str)) {
        for line in self.whole.drain(..) {
            hear(&line);
            self.last = line;
        }
    }
}

async fn write(input: &mut Option<tokio::process::ChildStdin>, rest: &[u8]) -> io::Result<usize> {
    match input {
        Some(input) if !rest.is_empty() => input.write(rest).await,
        _ => Ok(0),
    }
}

/// How much came; an error is an end too.
async fn read(from: &mut Option<impl AsyncRead + Unpin>, lines: &mut Lines) -> usize {
    let Some(from) = from else {
        return 0;
    };
    let mut bytes = [0; 4096];
    let count = from.read(&mut bytes).await.unwrap_or(0);
    lines.take_in(bytes.get(..count).unwrap_or_default());
    count
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, thread};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn sh(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).into()
    }

    fn run(words: &[String], limit: Duration) -> (Ended, Vec<(Stream, String)>) {
        let mut heard = Vec::new();
        let program = Program {
            words,
            environment: &[("OF_THE_TEST".to_owned(), "a b".to_owned())],
            input: b"{\"a\": 1}\n",
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let ended = runtime.block_on(program.run(limit, |stream, line| {
            heard.push((stream, line.to_owned()));
        }));
        (ended, heard)
    }

    /// Whether a process is there and no zombie.
    fn lives(pid: &str) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        for _ in 0..1000 {
            if done() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("waited for {what}");
    }

    #[test]
    fn it_is_given_words_environment_and_input_and_is_heard() {
        let words = sh(
            "read -r line; echo \"$line $OF_THE_TEST $PWD\"; echo >&2 first; printf >&2 'last\\n\\n'; exit 3",
        );
        let (ended, heard) = run(&words, LIMIT);
        assert_eq!(ended.to_string(), "exit status 3: last");
        let heard_of = |wanted| {
            let of = heard.iter().filter(move |(stream, _)| *stream == wanted);
            of.map(|(_, line)| line.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(heard_of(Stream::Output), ["{\"a\": 1} a b /"]);
        assert_eq!(heard_of(Stream::Error), ["first", "last"]);
    }

    #[test]
    fn at_its_limit_it_is_killed_with_all_that_it_began() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let pids = directory.path().join("pids");
        let script = format!(
            "sleep 600 & echo $! > {0}; echo $$ >> {0}; echo >&2 waiting; trap '' TERM; wait",
            pids.display()
        );
        let limit = Duration::from_millis(500);
        let (ended, _) = run(&sh(&script), limit);
        assert_eq!(ended.to_string(), "killed at its limit of 500ms: waiting");
        let pids = fs::read_to_string(&pids).expect("it was written");
        assert_eq!(pids.lines().count(), 2, "{pids}");
        for pid in pids.lines() {
            until("the group's end", || !lives(pid));
        }
    }

    #[test]
    fn one_that_is_no_longer_waited_for_is_killed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("pid");
        let words = sh(&format!("echo $$ > {}; exec sleep 600", file.display()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let written = || fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n'));
        runtime.block_on(async {
            let program = Program {
                words: &words,
                environment: &[],
                input: b"",
            };
            let begun = async {
                while !written() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::select! {
                ended = program.run(LIMIT, |_, _| {}) => panic!("{ended}"),
                () = begun => {}
            }
        });
        let pid = fs::read_to_string(&file).expect("it was written");
        until("its end", || !lives(&pid));
    }

    #[test]
    fn what_it_leaves_in_the_background_holds_nobody_up() {
        let begun = std::time::Instant::now();
        let (ended, heard) = run(&sh("sleep 20 & echo done"), LIMIT);
        assert!(ended.is_well(), "{ended}");
        assert_eq!(heard, [(Stream::Output, "done".to_owned())]);
        assert!(begun.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn much_output_neither_stops_it_nor_is_kept() {
        let script = "head -c 3000000 /dev/zero | tr '\\0' x >&2; exec 0<&-; seq 5 >&2; printf '\\033[2J' >&2";
        let (ended, heard) = run(&sh(script), LIMIT);
        assert!(ended.is_well(), "{ended}");
        assert_eq!(ended.last_words, "\\u{1b}[2J");
        assert!(heard.iter().all(|(_, line)| line.len() <= LONGEST_LINE));
    }

    #[test]
    fn what_cannot_be_started_says_why() {
        let (ended, _) = run(&["/nowhere/hook".to_owned()], LIMIT);
        assert_eq!(
            ended.to_string(),
            "it could not be started: No such file or directory (os error 2)"
        );
        let (ended, _) = run(&sh("kill -SEGV $$"), LIMIT);
        assert_eq!(ended.to_string(), "killed by SIGSEGV");
        assert!(Path::new("/bin/sh").exists());
    }
}
