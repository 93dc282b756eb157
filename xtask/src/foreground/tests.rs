use super::*;
use nix::sys::pthread::{pthread_kill, pthread_self};

/// A program that does not end is a failure, and no reason to wait for good.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

/// Whoever started the tests may have had them ignore signals, which all programs inherit.
fn dispose(of: Signal, handler: SigHandler) {
    // SAFETY: neither the default action nor ignoring is a handler that could run.
    unsafe { signal(of, handler) }.unwrap();
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

#[test]
fn the_programs_code_is_passed_on() {
    let ended = run(&mut shell("exit 7"), Reach::Program, PATIENCE).unwrap();
    assert!(!ended.success());
    assert_eq!(
        format!("{:?}", ended.code()),
        format!("{:?}", ExitCode::from(7))
    );
    assert_eq!(ended.to_string(), "ended with code 7");
}

#[test]
fn a_program_that_a_signal_killed_counts_as_shells_count_it() {
    let ended = run(&mut shell("kill -9 $$"), Reach::Program, PATIENCE).unwrap();
    assert_eq!(
        format!("{:?}", ended.code()),
        format!("{:?}", ExitCode::from(137))
    );
    assert_eq!(ended.to_string(), "died of SIGKILL");
}

#[test]
fn an_interrupt_reaches_the_program_once_and_its_clean_up_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let script = format!(
        "trap 'echo interrupted >> {0}; sleep 0.2; echo cleaned up >> {0}; exit 3' INT; touch {0}; \
         while :; do sleep 0.05; done",
        log.display(),
    );
    dispose(Signal::SIGINT, SigHandler::SigDfl);
    // To this thread alone: the others of this test program do not block the signal and would die of it.
    let this_thread = pthread_self();
    let interrupter = std::thread::spawn({
        let log = log.clone();
        move || {
            let started = Instant::now();
            while !log.exists() && started.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(5));
            }
            pthread_kill(this_thread, Signal::SIGINT).unwrap();
        }
    });
    let ended = run(&mut shell(&script), Reach::Program, PATIENCE).unwrap();
    interrupter.join().unwrap();
    assert_eq!(
        std::fs::read_to_string(log).unwrap(),
        "interrupted\ncleaned up\n"
    );
    assert_eq!(ended.interrupted, Some(Signal::SIGINT));
    assert!(!ended.success());
}

#[test]
fn a_signal_that_is_ignored_is_for_nobody() {
    dispose(Signal::SIGHUP, SigHandler::SigIgn);
    let this_thread = pthread_self();
    let hanger_up = std::thread::spawn(move || {
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(20));
            pthread_kill(this_thread, Signal::SIGHUP).unwrap();
        }
    });
    // A shell keeps ignoring what it was started to ignore.
    let script = "kill -HUP $$; sleep 0.5; exit 7";
    let ended = run(&mut shell(script), Reach::Program, PATIENCE).unwrap();
    hanger_up.join().unwrap();
    assert_eq!(ended.to_string(), "ended with code 7");
}

#[test]
fn ignored_signals_are_read_from_a_process_status() {
    // SIGHUP is bit 0, SIGINT bit 1, SIGTERM bit 14.
    let status = "SigBlk:\t0000000000000002\nSigIgn:\t0000000000004001\nSigCgt:\t0\n";
    assert_eq!(
        REQUESTS.map(|signal| is_ignored(signal, status)),
        [false, true, true]
    );
    assert!(!is_ignored(Signal::SIGHUP, "Name:\txtask\n"));
}

#[test]
fn a_program_beyond_its_deadline_is_stopped() {
    let ended = run(
        &mut shell("exec sleep 600"),
        Reach::Group,
        Some(Duration::from_millis(50)),
    )
    .unwrap();
    assert!(ended.timed_out && !ended.success());
}
