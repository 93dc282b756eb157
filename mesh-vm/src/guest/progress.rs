//! What the guest is at. Another thread tells the host every few seconds, and ends a check that
//! does not end: whatever hangs may well hold all of the driver's other threads, or the kernel.

use std::{
    fs,
    io::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use mesh_vm::{Check, Doing, GUEST_PORT, Outcome, SIGN_OF_LIFE, Standing};

use crate::stacks;

/// No check takes this long, however slow the emulation; each wait in it ends sooner.
const CHECK_DEADLINE: Duration = Duration::from_secs(400);

/// What is being done now.
static NOW: Mutex<Option<Now>> = Mutex::new(None);

struct Now {
    port: fs::File,
    check: Check,
    /// When the check began.
    since: Instant,
    step: String,
    /// When the step began.
    step_since: Instant,
}

/// Opens the port that the host listens on, and begins to give signs of life.
pub(crate) fn begin(first: Check) -> anyhow::Result<()> {
    let port = fs::OpenOptions::new()
        .write(true)
        .open(GUEST_PORT)
        .with_context(|| format!("cannot open {GUEST_PORT}, which only a guest has"))?;
    let now = Instant::now();
    *lock() = Some(Now {
        port,
        check: first,
        since: now,
        step: "two hosts with a container each".to_owned(),
        step_since: now,
    });
    // It ends with the process.
    thread::Builder::new()
        .name("progress".into())
        .spawn(watch)
        .context("cannot start a thread")?;
    Ok(())
}

/// A check begins.
pub(crate) fn check(check: Check) {
    if let Some(now) = &mut *lock() {
        now.check = check;
        now.since = Instant::now();
    }
    step("its beginning");
}

/// A step of the check begins.
pub(crate) fn step(step: impl Into<String>) {
    if let Some(now) = &mut *lock() {
        now.step = step.into();
        now.step_since = Instant::now();
        println!("{}: {}", now.check.name(), now.step);
    }
}

/// Tells the host what became of a check.
pub(crate) fn tell(check: Check, failure: Option<String>) -> anyhow::Result<()> {
    println!("{} {}", check.name(), failure.as_deref().unwrap_or("ok"));
    say(&Outcome { check, failure }.to_line()?)
}

/// Tells the host what a node has on this kernel.
pub(crate) fn tell_standing(standing: &Standing) -> anyhow::Result<()> {
    println!("{standing:?}");
    say(&standing.to_line()?)
}

fn say(line: &str) -> anyhow::Result<()> {
    match &mut *lock() {
        Some(now) => {
            writeln!(now.port, "{line}").with_context(|| format!("cannot write to {GUEST_PORT}"))
        }
        None => anyhow::bail!("{GUEST_PORT} is not open"),
    }
}

fn watch() {
    loop {
        thread::sleep(SIGN_OF_LIFE);
        let overdue = match &mut *lock() {
            Some(now) => {
                let doing = Doing {
                    check: now.check,
                    step: now.step.clone(),
                    seconds: now.step_since.elapsed().as_secs(),
                };
                // A host that does not hear it ends the machine.
                if let Ok(line) = doing.to_line() {
                    let _ = writeln!(now.port, "{line}");
                }
                let over = now.since.elapsed() >= CHECK_DEADLINE;
                over.then(|| (now.check, doing.to_string()))
            }
            None => None,
        };
        if let Some((check, doing)) = overdue {
            println!("{}", stacks::all());
            let failure = format!("it did not end in {} s; {doing}", CHECK_DEADLINE.as_secs());
            let _ = tell(check, Some(failure));
            std::process::exit(1);
        }
    }
}

fn lock() -> MutexGuard<'static, Option<Now>> {
    NOW.lock().unwrap_or_else(PoisonError::into_inner)
}
