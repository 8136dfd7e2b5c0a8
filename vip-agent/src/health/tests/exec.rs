//! Programs that end well, that do not, and that do not end.

use std::{fs, path::Path};

use super::*;

fn check(script: &str) -> CheckConfig {
    let words = ["/bin/sh", "-c", script].map(str::to_owned);
    super::check(Target::Exec(words.into()))
}

#[test]
fn the_exit_code_decides_and_the_last_line_says_why() {
    let long = "x".repeat(159);
    let cut = format!("exit code 1: {long}x…");
    let long = format!("echo {long}xyz; exit 1");
    for (script, expected) in [
        ("exit 0", Ok(())),
        ("echo fine; exit 0", Ok(())),
        ("exit 3", Err("exit code 3")),
        (
            "echo no; echo disk is full >&2; echo; exit 1",
            Err("exit code 1: disk is full"),
        ),
        (
            "printf 'a\\033[31mb'; exit 1",
            Err("exit code 1: a\\u{1b}[31mb"),
        ),
        ("kill -9 $$", Err("ended by signal 9")),
        (&long, Err(&*cut)),
        // Nothing comes in, and no shell adds its own.
        ("read line || exit 7", Err("exit code 7")),
        ("[ \"$(pwd)\" = / ]", Ok(())),
    ] {
        assert_eq!(
            first(check(script)),
            expected.map_err(str::to_owned),
            "{script}"
        );
    }
}

#[test]
fn no_shell_reads_the_words() {
    let words = ["/bin/echo", "$HOME; exit 1"].map(str::to_owned);
    assert_eq!(first(super::check(Target::Exec(words.into()))), Ok(()));
}

#[test]
fn a_program_that_cannot_be_run_says_so() {
    let words = vec!["/no/such/program".to_owned()];
    let why = first(super::check(Target::Exec(words))).expect_err("there is none");
    assert!(
        why.starts_with("it could not be run: No such file"),
        "{why}"
    );
}

/// The process id that a script wrote to a file.
fn await_pid(file: &Path) -> u32 {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(pid) = fs::read_to_string(file)
            .ok()
            .and_then(|text| text.trim().parse().ok())
        {
            return pid;
        }
        assert!(Instant::now() < until, "{} was not written", file.display());
        thread::sleep(Duration::from_millis(5));
    }
}

fn await_end(pid: u32) {
    let until = Instant::now() + PATIENCE;
    // One that has ended and was not waited for by its parent counts as ended.
    let lives = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    };
    while lives() {
        assert!(Instant::now() < until, "{pid} lives on");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_program_that_hangs_is_killed_with_what_it_started() {
    let directory = tempfile::tempdir().expect("a directory");
    let [own, child] = ["own", "child"].map(|name| directory.path().join(name));
    // What it started ignores what can be ignored.
    let script = format!(
        "echo $$ > {}; (trap '' TERM INT HUP; echo waiting for the disk; sleep 300) & echo $! > {}; wait",
        own.display(),
        child.display()
    );
    let mut bench = Bench::with(&[CheckConfig {
        timeout: SHORT,
        ..check(&script)
    }]);
    let begun = Instant::now();
    let expected = "no end within 300ms: waiting for the disk";
    assert_eq!(bench.next().result, Err(expected.to_owned()));
    assert!(begun.elapsed() < PATIENCE / 2);
    for file in [own, child] {
        await_end(await_pid(&file));
    }
}

#[test]
fn what_a_program_leaves_running_ends_with_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("child");
    // It holds the output open, which is not waited for.
    let script = format!("sleep 300 & echo $! > {}", file.display());
    assert_eq!(first(check(&script)), Ok(()));
    await_end(await_pid(&file));
}

#[test]
fn a_program_that_is_still_running_when_the_checks_end_is_killed() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("own");
    let bench = Bench::with(&[check(&format!(
        "echo $$ > {}; exec sleep 300",
        file.display()
    ))]);
    let pid = await_pid(&file);
    let begun = Instant::now();
    drop(bench);
    assert!(begun.elapsed() < PATIENCE / 2);
    await_end(pid);
}

#[test]
fn a_program_that_prints_much_ends_nevertheless() {
    // More than a pipe holds, and without a line end.
    let script = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 1";
    assert_eq!(first(check(script)), Err("exit code 1: the end".to_owned()));
    let endless = CheckConfig {
        timeout: SHORT,
        ..check("while :; do echo on and on; done")
    };
    let why = first(endless).expect_err("it does not end");
    assert!(why.starts_with("no end within 300ms: on and on"), "{why}");
}

#[test]
fn a_program_that_was_killed_is_run_again_at_the_next_interval() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("well");
    let script = format!("[ -e {} ] || sleep 300", file.display());
    let mut bench = Bench::with(&[CheckConfig {
        interval: SHORT,
        timeout: SHORT,
        ..check(&script)
    }]);
    assert_eq!(bench.next().result, Err("no end within 300ms".to_owned()));
    fs::write(&file, "").expect("it can be written");
    bench.await_result(Result::is_ok);
}
