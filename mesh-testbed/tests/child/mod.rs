//! A test that runs itself again in a child, to see what is left when the child is ended.

use std::{
    env,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{SigHandler, Signal, kill, signal},
    unistd::Pid,
};

/// How long a child may take for what it makes, and for its end. Only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(120);

/// The child, which does not outlive this.
pub(crate) struct Again {
    child: Child,
    made: Receiver<String>,
}

impl Again {
    /// Runs `test`, and it alone, with `variable` set, by which it knows that it is the child.
    pub(crate) fn start(test: &str, variable: &str, stderr: Stdio) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args([test, "--exact", "--include-ignored", "--nocapture"])
            .env(variable, "1")
            .stdout(Stdio::piped())
            .stderr(stderr);
        // SAFETY: sigaction is async-signal-safe, and the default action is no handler.
        unsafe {
            command.pre_exec(|| {
                // Whoever started the tests may have had them ignore what the child is to die of.
                for of in [Signal::SIGINT, Signal::SIGTERM] {
                    signal(of, SigHandler::SigDfl)?;
                }
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (tell, made) = channel();
        thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            // Fails when the test has heard enough.
            let mut told = lines.filter_map(|line| line.strip_prefix("made ").map(str::to_owned));
            while told.next().is_some_and(|what| tell.send(what).is_ok()) {}
        });
        Self { child, made }
    }

    /// What the child says it made, in a line that begins with `made`.
    pub(crate) fn made(&self) -> String {
        self.made.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            panic!("the child has not made anything: {error}; is this root?")
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // Not waited for yet, so the process id is still this child's.
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits for the child's end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the child does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        // Both fail only for a child that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
