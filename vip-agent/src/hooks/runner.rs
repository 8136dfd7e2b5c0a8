//! The thread that runs hooks.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as sync_mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    Kind, Occasion,
    queue::{Queue, Row},
};
use crate::{
    config::Hooks,
    program::{Ended, How, Program},
};

/// How long the thread may take to kill what still runs.
const KILLING: Duration = Duration::from_secs(1);

/// What became of the hooks of one kind since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that ended, however they did.
    pub ran: u64,
    /// Of these: those that could not be started, or ended with another exit status than 0 or by a signal.
    pub failed: u64,
    /// Of these: those that were killed at their limit.
    pub timed_out: u64,
    /// Those that were not run, because the shared IP was something else again before their turn came.
    pub merged: u64,
    /// Which shared IP the last that did not end well was for, and how it ended.
    pub last_failure: Option<String>,
}

/// Runs hooks on a thread, which is begun with the first one.
#[derive(Debug, Default)]
pub struct Runner {
    thread: Option<Thread>,
    counts: Counters,
}

#[derive(Debug)]
struct Thread {
    jobs: mpsc::UnboundedSender<Job>,
    /// Sent to, or dropped: nothing is waited for any longer.
    cut: oneshot::Sender<()>,
    ended: sync_mpsc::Receiver<()>,
}

/// News of a shared IP, and what is to be run for it, if anything.
#[derive(Debug)]
struct Job {
    occasion: Occasion,
    command: Option<Vec<String>>,
    limit: Duration,
}

/// Shared with the thread, which holds it for the time of an addition.
#[derive(Clone, Debug, Default)]
struct Counters(Arc<Mutex<BTreeMap<Kind, Counts>>>);

impl Runner {
    /// Has the hook for this run, as soon as those before it have ended. Never waits.
    pub fn tell(&mut self, occasion: Occasion, hooks: &Hooks) {
        let command = occasion.kind.command(hooks).cloned();
        // Without one, what waits for the same shared IP is still no longer true.
        if command.is_none() && self.thread.is_none() {
            return;
        }
        let thread = match &mut self.thread {
            Some(thread) => thread,
            none => match begin(self.counts.clone()) {
                Ok(thread) => none.insert(thread),
                Err(error) => {
                    let how = format!("no thread could be started for it: {error}");
                    tracing::warn!(hook = %occasion.kind, vip = %occasion.vip, how, "hook failed");
                    self.counts
                        .add(&occasion, &how, |counts| counts.failed += 1);
                    return;
                }
            },
        };
        let job = Job {
            occasion,
            command,
            limit: hooks.timeout,
        };
        // It ends with us.
        let _ = thread.jobs.send(job);
    }

    /// What became of those of a kind.
    pub fn counts(&self, kind: Kind) -> Counts {
        self.counts.lock().get(&kind).cloned().unwrap_or_default()
    }

    /// Lets all that runs or waits end, but for no longer than `patience`: what still runs then is killed.
    pub fn finish(self, patience: Duration) {
        let Some(Thread { jobs, cut, ended }) = self.thread else {
            return;
        };
        drop(jobs);
        if ended.recv_timeout(patience) == Err(sync_mpsc::RecvTimeoutError::Timeout) {
            let _ = cut.send(());
            let _ = ended.recv_timeout(KILLING);
        }
    }
}

impl Counters {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Kind, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, occasion: &Occasion, failure: &str, count: impl FnOnce(&mut Counts)) {
        let mut all = self.lock();
        let counts = all.entry(occasion.kind).or_default();
        counts.ran += 1;
        count(counts);
        if !failure.is_empty() {
            counts.last_failure = Some(format!("{}: {failure}", occasion.vip));
        }
    }

    fn merged(&self, kind: Kind) {
        self.lock().entry(kind).or_default().merged += 1;
    }
}

fn begin(counts: Counters) -> io::Result<Thread> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (jobs, receiver) = mpsc::unbounded_channel();
    let (cut, was_cut) = oneshot::channel();
    let (end, ended) = sync_mpsc::channel();
    thread::Builder::new()
        .name("hooks".to_owned())
        .spawn(move || {
            runtime.block_on(work(receiver, was_cut, &counts));
            // With it goes, killed, what still runs.
            drop(runtime);
            let _ = end.send(());
        })?;
    Ok(Thread { jobs, cut, ended })
}

/// Runs what comes, until no more can come and all has ended, or it is cut short.
async fn work(
    mut jobs: mpsc::UnboundedReceiver<Job>,
    mut cut: oneshot::Receiver<()>,
    counts: &Counters,
) {
    let mut queue: Queue<Job> = Queue::new();
    let mut running: JoinSet<(Row, Job)> = JoinSet::new();
    let mut is_open = true;
    loop {
        while let Some((row, job)) = queue.next() {
            let counts = counts.clone();
            running.spawn(async move {
                run(&job, &counts).await;
                (row, job)
            });
        }
        if !is_open && running.is_empty() && queue.is_empty() {
            return;
        }
        tokio::select! {
            job = jobs.recv(), if is_open => match job {
                Some(job) => {
                    let row = Row::of(job.occasion.kind, job.occasion.vip);
                    let newest = job.command.is_some().then_some(job);
                    if let Some(old) = queue.put(row, newest) {
                        tracing::debug!(hook = %old.occasion.kind, vip = %old.occasion.vip, "hook not run: newer news came before its turn");
                        counts.merged(old.occasion.kind);
                    }
                }
                None => is_open = false,
            },
            Some(Ok((row, _))) = running.join_next() => queue.ended(row),
            _ = &mut cut => {
                for job in queue.waiting() {
                    tracing::warn!(hook = %job.occasion.kind, vip = %job.occasion.vip, "hook not run: the agent ends before its turn");
                }
                if !running.is_empty() {
                    tracing::warn!(count = running.len(), "hooks killed: the agent ends, and waits for them no longer");
                }
                return;
            }
        }
    }
}

async fn run(job: &Job, counts: &Counters) {
    let Job {
        occasion,
        command,
        limit,
    } = job;
    let (hook, vip) = (occasion.kind, occasion.vip);
    let program = Program {
        words: command.as_deref().unwrap_or_default(),
        environment: &occasion.environment(),
        input: &occasion.json(),
    };
    let begun = Instant::now();
    let hear = |stream, line: &str| tracing::debug!(%hook, %vip, ?stream, line, "hook says");
    let ended = program.run(*limit, hear).await;
    let took = begun.elapsed();
    if ended.is_well() {
        tracing::info!(%hook, %vip, ?took, "hook ran");
    } else {
        tracing::warn!(%hook, %vip, ?took, how = %ended, "hook failed");
    }
    count(counts, occasion, &ended);
}

fn count(counts: &Counters, occasion: &Occasion, ended: &Ended) {
    match ended.how {
        How::Well => counts.add(occasion, "", |_| {}),
        How::AtLimit(_) => counts.add(occasion, &ended.to_string(), |counts| counts.timed_out += 1),
        How::Badly(_) | How::NotStarted(_) => {
            counts.add(occasion, &ended.to_string(), |counts| counts.failed += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{super::occasion::occasion, *};

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Writes what it is and for whom to a file, after doing as told.
    fn writing(file: &Path, script: &str) -> Option<Vec<String>> {
        let line = "$VIP_AGENT_EVENT $VIP_AGENT_VIP $VIP_AGENT_EPOCH";
        let script = format!("{script}; echo \"{line}\" >> {}", file.display());
        Some(["/bin/sh", "-c", &script].map(str::to_owned).into())
    }

    fn written(file: &Path) -> Vec<String> {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < PATIENCE, "waited for {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    struct Stage {
        directory: tempfile::TempDir,
        runner: Runner,
        hooks: Hooks,
    }

    impl Stage {
        /// Each owner's hook says that it has begun, and waits until it may go on.
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let at = |name: &str| directory.path().join(name);
            let wait = format!(
                "touch {}.$VIP_AGENT_EPOCH; while [ ! -e {} ]; do sleep 0.01; done",
                at("begun").display(),
                at("go").display()
            );
            let hooks = Hooks {
                become_owner: writing(&at("log"), &wait),
                become_follower: writing(&at("log"), ":"),
                conflict: writing(&at("log"), ":"),
                timeout: PATIENCE,
            };
            Self {
                directory,
                runner: Runner::default(),
                hooks,
            }
        }

        fn tell(&mut self, kind: Kind, last_octet: u8, epoch: i64) {
            self.runner
                .tell(occasion(kind, last_octet, epoch), &self.hooks);
        }

        fn wait_for(&self, name: &str) {
            until(name, || self.directory.path().join(name).exists());
        }

        fn go(&self) {
            fs::write(self.directory.path().join("go"), "").expect("a file can be written");
        }

        fn log(&self) -> Vec<String> {
            written(&self.directory.path().join("log"))
        }
    }

    #[test]
    fn of_one_shared_ip_they_run_in_order_and_the_newest_state_wins() {
        let mut stage = Stage::new();
        stage.tell(Kind::BecomeOwner, 100, 1);
        stage.wait_for("begun.1");
        stage.tell(Kind::BecomeFollower, 100, 2);
        stage.tell(Kind::BecomeOwner, 100, 3);
        stage.tell(Kind::BecomeFollower, 100, 4);
        // Another one's is not held up, nor is what a stranger does.
        stage.tell(Kind::BecomeFollower, 101, 5);
        stage.tell(Kind::Conflict, 100, 6);
        until("the others", || stage.log().len() == 2);
        let mut others = stage.log();
        others.sort();
        assert_eq!(
            others,
            ["become-follower 10.0.0.101 5", "conflict 10.0.0.100 6"]
        );
        stage.go();
        until("the last", || stage.log().len() == 4);
        assert_eq!(
            stage.log()[2..],
            ["become-owner 10.0.0.100 1", "become-follower 10.0.0.100 4"]
        );
        until("the count", || {
            stage.runner.counts(Kind::BecomeFollower).ran == 2
        });
        assert_eq!(stage.runner.counts(Kind::BecomeFollower).merged, 1);
        assert_eq!(stage.runner.counts(Kind::BecomeOwner).merged, 1);
    }

    #[test]
    fn what_waits_is_not_run_when_it_is_no_longer_true_although_no_hook_is_to_be_run_then() {
        let mut stage = Stage::new();
        stage.tell(Kind::BecomeOwner, 100, 1);
        stage.wait_for("begun.1");
        stage.tell(Kind::BecomeFollower, 100, 2);
        let become_owner = stage.hooks.become_owner.take();
        stage.tell(Kind::BecomeOwner, 100, 3);
        stage.hooks.become_owner = become_owner;
        until("the merge", || {
            stage.runner.counts(Kind::BecomeFollower).merged == 1
        });
        stage.go();
        let log = stage.directory.path().join("log");
        stage.runner.finish(PATIENCE);
        assert_eq!(written(&log), ["become-owner 10.0.0.100 1"]);
    }

    #[test]
    fn failures_and_hangs_are_counted_with_the_last_words() {
        let mut stage = Stage::new();
        let script = |text: &str| Some(["/bin/sh", "-c", text].map(str::to_owned).to_vec());
        stage.hooks = Hooks {
            become_owner: script("echo >&2 no such server; exit 7"),
            become_follower: script("sleep 600"),
            conflict: script(":"),
            timeout: Duration::from_millis(300),
        };
        for kind in Kind::ALL {
            stage.tell(kind, 100, 1);
            until("its end", || stage.runner.counts(kind).ran == 1);
        }
        let counts = |failed, timed_out, last_failure: Option<&str>| Counts {
            ran: 1,
            failed,
            timed_out,
            merged: 0,
            last_failure: last_failure.map(str::to_owned),
        };
        let failed = Some("10.0.0.100: exit status 7: no such server");
        let timed_out = Some("10.0.0.100: killed at its limit of 300ms");
        assert_eq!(stage.runner.counts(Kind::BecomeOwner), counts(1, 0, failed));
        assert_eq!(
            stage.runner.counts(Kind::BecomeFollower),
            counts(0, 1, timed_out)
        );
        assert_eq!(stage.runner.counts(Kind::Conflict), counts(0, 0, None));
    }

    #[test]
    fn at_the_end_all_that_is_to_run_does() {
        let mut stage = Stage::new();
        stage.go();
        (0..9).for_each(|n| stage.tell(Kind::BecomeFollower, n, 1));
        stage.tell(Kind::BecomeOwner, 100, 1);
        let log = stage.directory.path().join("log");
        let begun = Instant::now();
        stage.runner.finish(PATIENCE);
        assert_eq!(written(&log).len(), 10, "{:?}", written(&log));
        assert!(begun.elapsed() < PATIENCE);
    }

    #[test]
    fn at_the_end_one_that_hangs_is_killed_when_patience_is_over() {
        let mut stage = Stage::new();
        stage.tell(Kind::BecomeOwner, 100, 1);
        stage.wait_for("begun.1");
        let begun = Instant::now();
        let Stage {
            directory, runner, ..
        } = stage;
        runner.finish(Duration::from_millis(200));
        assert!(begun.elapsed() < PATIENCE / 2);
        // Had it been left alive, it would go on now.
        fs::write(directory.path().join("go"), "").expect("a file can be written");
        thread::sleep(Duration::from_millis(300));
        assert_eq!(written(&directory.path().join("log")), [] as [String; 0]);
    }

    #[test]
    fn without_hooks_there_is_no_thread() {
        let mut runner = Runner::default();
        runner.tell(occasion(Kind::BecomeOwner, 100, 1), &Hooks::default());
        assert!(runner.thread.is_none());
        assert_eq!(runner.counts(Kind::BecomeOwner), Counts::default());
    }
}
