//! Programs that a person waits for and may interrupt.
//!
//! A program that made network namespaces has to remove them before anybody hears that it ended. So a signal
//! to xtask goes on to the program, and xtask ends after it. The program runs in a process group of its own:
//! otherwise the terminal's Ctrl-C would reach it twice, once from the terminal and once from here, and a
//! second Ctrl-C usually means "stop cleaning up".
//!
//! A signal that xtask was started to ignore, by `nohup` or in the background of a script, is not for xtask, and not
//! passed on: its programs ignore it as well. SIGTERM alone is theirs again, for it is how xtask itself stops one.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::{get_child_subreaper, set_child_subreaper, set_pdeathsig};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, kill, killpg, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// How long a program that was told to stop may take to clean up before it is killed.
const CLEAN_UP: Duration = Duration::from_secs(30);

/// How long a program's output may stay open after its end.
const DRAIN: Duration = Duration::from_secs(5);

/// How often the program is looked at, in milliseconds, should SIGCHLD not arrive: the kernel drops it when
/// another thread of this process leaves it at its default.
const LOOK: u8 = 100;

/// The signals that ask xtask to stop.
const REQUESTS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Who hears a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The program alone: it stops what it started.
    Program,
    /// The program and its children, as from a terminal.
    Group,
}

/// Somebody asked xtask to stop, and what it waited for has stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupted(Signal);

impl Interrupted {
    /// The code with which shells report it.
    pub(crate) fn code(self) -> ExitCode {
        ExitCode::from(u8::try_from(128 + self.0 as i32).unwrap_or(1))
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted by {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// How a program ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    status: ExitStatus,
    /// The signal to xtask that was passed on.
    interrupted: Option<Signal>,
    /// It was stopped because its time was over.
    timed_out: bool,
}

impl Ended {
    /// An error if somebody wants all of this to stop.
    pub(crate) fn unless_interrupted(self) -> Result<Self, Interrupted> {
        self.interrupted
            .map_or(Ok(self), |signal| Err(Interrupted(signal)))
    }

    /// It did what was asked, undisturbed.
    pub(crate) fn success(&self) -> bool {
        self.status.success() && self.interrupted.is_none() && !self.timed_out
    }

    /// What a shell would report of it: its own code, or 128 and the signal.
    pub(crate) fn code(&self) -> ExitCode {
        let signal = self
            .interrupted
            .map(|signal| signal as i32)
            .or(self.status.signal());
        let code = signal
            .map(|signal| 128 + signal)
            .or(self.status.code())
            .unwrap_or(1);
        ExitCode::from(u8::try_from(code).unwrap_or(1))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (
            self.interrupted,
            self.timed_out,
            self.status.signal(),
            self.status.code(),
        ) {
            (Some(signal), ..) => write!(f, "was interrupted by {signal}"),
            (None, true, ..) => write!(f, "did not end in time and was stopped"),
            (None, false, Some(signal), _) => match Signal::try_from(signal) {
                Ok(signal) => write!(f, "died of {signal}"),
                Err(_) => write!(f, "died of signal {signal}"),
            },
            (None, false, None, Some(code)) => write!(f, "ended with code {code}"),
            (None, false, None, None) => write!(f, "ended without a code"),
        }
    }
}

/// Makes this process the parent of what its programs leave behind, so that it can wait for the process that cleans
/// up after a demo or a test which died of Ctrl-C.
pub(crate) fn adopt_orphans() -> anyhow::Result<()> {
    set_child_subreaper(true).context("cannot adopt orphans")
}

/// Waits for what an interrupted program left behind: it is on its way out, cleaning up.
fn wait_for_orphans() {
    let started = Instant::now();
    // Without adoption there are no orphans here, only children that somebody else waits for.
    while get_child_subreaper().unwrap_or(false) && started.elapsed() < CLEAN_UP {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(20)),
            Ok(_) => {}
            // ECHILD: nothing is left.
            Err(_) => return,
        }
    }
}

/// Waits for what the program's own children left behind and what has ended meanwhile: as zombies they would look
/// alive to a test that waits for the end of a process.
fn reap_orphans(program: Pid) {
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while get_child_subreaper().unwrap_or(false) {
        match waitid(Id::All, ended).map(|status| status.pid()) {
            Ok(Some(orphan)) if orphan != program => {
                let _ = waitpid(orphan, Some(WaitPidFlag::WNOHANG));
            }
            // Nobody, or the program itself, whose status its owner wants.
            _ => return,
        }
    }
}

/// Runs the program to its end. Signals that ask xtask to stop are passed on as often as they come. After
/// `deadline` the program is told to stop, and killed if it takes longer than [`CLEAN_UP`] for it.
pub(crate) fn run(
    command: &mut Command,
    reach: Reach,
    deadline: Option<Duration>,
) -> anyhow::Result<Ended> {
    let shield = Shield::raise()?;
    run_shielded(command, reach, deadline, &shield.signals)
}

/// As [`run`], with each line of the program's standard output going to `on_line`. The second part of the
/// answer is whether the output is complete: something that outlives the program may still hold it open.
pub(crate) fn run_reading(
    mut command: Command,
    reach: Reach,
    deadline: Option<Duration>,
    mut on_line: impl FnMut(&str) + Send + 'static,
) -> anyhow::Result<(Ended, bool)> {
    // Before the thread starts: it inherits the mask, and a signal must not find it unprotected.
    let _shield = Shield::raise()?;
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    command.stdout(writer);
    let (at_end, ended_output) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _at_end = at_end;
        // Tests may print anything; what is not UTF-8 is no line of theirs that matters.
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            on_line(&String::from_utf8_lossy(&line));
        }
    });
    let ended = run(&mut command, reach, deadline)?;
    // It holds this process's end of the pipe for writing.
    drop(command);
    let complete = ended_output.recv_timeout(DRAIN) == Err(RecvTimeoutError::Disconnected);
    Ok((ended, complete))
}

/// While this lives, signals to this thread and to those it starts wait to be read, by the next program that runs in
/// the foreground or for the end of this.
pub(crate) struct Shield {
    signals: SigSet,
    before: SigSet,
}

impl Shield {
    pub(crate) fn raise() -> anyhow::Result<Self> {
        let status = std::fs::read_to_string("/proc/thread-self/status")
            .context("cannot read which signals are ignored")?;
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGCHLD);
        // Blocked, an ignored one would arrive all the same.
        REQUESTS
            .into_iter()
            .filter(|signal| !is_ignored(*signal, &status))
            .for_each(|signal| signals.add(signal));
        let before = signals
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .context("cannot block signals")?;
        Ok(Self { signals, before })
    }
}

/// Whether a process ignores a signal, by its status file (proc_pid_status(5)).
fn is_ignored(signal: Signal, status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}

impl Drop for Shield {
    fn drop(&mut self) {
        // Fails only for an invalid mask, and this one came from the kernel.
        let _ = self.before.thread_set_mask();
    }
}

fn run_shielded(
    command: &mut Command,
    reach: Reach,
    deadline: Option<Duration>,
    signals: &SigSet,
) -> anyhow::Result<Ended> {
    let inbox = SignalFd::with_flags(signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("cannot listen for signals")?;
    let program = command.get_program().to_string_lossy().into_owned();
    // Not the terminal's foreground group any more: reading from the terminal would stop it for good.
    command.stdin(Stdio::null()).process_group(0);
    let start = || {
        // The mask would be inherited, and the program never hear what is passed on to it.
        SigSet::empty().thread_set_mask()?;
        // SAFETY: the default action is no handler, so nothing of this process's can run in its place.
        unsafe { signal(Signal::SIGTERM, SigHandler::SigDfl) }?;
        // Should this process be killed, the program is asked to clean up.
        Ok(set_pdeathsig(Signal::SIGTERM)?)
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; these are three bare system calls that
    // touch no memory but their own stack.
    unsafe { command.pre_exec(start) };
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let pid =
        Pid::from_raw(i32::try_from(child.id()).context("a process id that is no process id")?);
    let send = |signal| match reach {
        // The child is not reaped before this loop ends, so its id still means it. It may have ended already.
        Reach::Program => drop(kill(pid, signal)),
        Reach::Group => drop(killpg(pid, signal)),
    };
    let mut interrupted = None;
    let mut timed_out = false;
    let mut next_deadline = deadline.map(|deadline| Instant::now() + deadline);
    loop {
        match poll(
            &mut [PollFd::new(inbox.as_fd(), PollFlags::POLLIN)],
            PollTimeout::from(LOOK),
        ) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for signals"),
        }
        while let Some(info) = inbox.read_signal().context("cannot read signals")? {
            let signal = i32::try_from(info.ssi_signo)
                .ok()
                .and_then(|number| Signal::try_from(number).ok());
            match signal {
                Some(Signal::SIGCHLD) | None => {}
                Some(signal) => {
                    interrupted = Some(signal);
                    send(signal);
                }
            }
        }
        reap_orphans(pid);
        if let Some(status) = child
            .try_wait()
            .with_context(|| format!("cannot wait for {program}"))?
        {
            if interrupted.is_some() || timed_out {
                wait_for_orphans();
            }
            return Ok(Ended {
                status,
                interrupted,
                timed_out,
            });
        }
        if next_deadline.is_some_and(|at| at <= Instant::now()) {
            send(if timed_out {
                Signal::SIGKILL
            } else {
                Signal::SIGTERM
            });
            timed_out = true;
            next_deadline = Some(Instant::now() + CLEAN_UP);
        }
    }
}

#[cfg(test)]
mod tests;
