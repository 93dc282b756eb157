//! The emulated machine.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use nix::sys::{prctl::set_pdeathsig, signal::Signal};

use crate::{
    doing::Doing,
    error::{Error, Result},
    package::{Kernel, file},
    report::Outcome,
    standing::Standing,
};

/// Debian's package with it is qemu-system-x86.
pub const EMULATOR: &str = "qemu-system-x86_64";

/// What to boot.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The kernel.
    pub kernel: Kernel,
    /// The file with the initramfs.
    pub initramfs: PathBuf,
    /// Variables for the guest's init.
    pub environment: Vec<(&'static str, String)>,
}

/// How long a machine may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From its start to its end.
    pub deadline: Duration,
    /// Without a word from the driver. What the kernel prints does not count: one that hangs
    /// says so again and again.
    pub silence: Duration,
}

/// What the guest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// A check is over.
    Outcome(Outcome),
    /// It goes on.
    Doing(Doing),
    /// What a node has there.
    Standing(Standing),
}

impl Word {
    /// Reads a line; `None` if the driver did not write it.
    pub fn from_line(line: &str) -> Option<Self> {
        let doing = || Doing::from_line(line).map(Self::Doing);
        let standing = || Standing::from_line(line).map(Self::Standing);
        Outcome::from_line(line)
            .map(Self::Outcome)
            .or_else(doing)
            .or_else(standing)
    }
}

/// How a machine's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its kernel powered off, or panicked.
    ByItself,
    /// It was still running at its deadline, and was killed.
    AtDeadline,
    /// It said nothing for longer than allowed, and was killed.
    Silent,
    /// The emulator failed.
    Broken(ExitStatus),
}

impl Machine {
    /// Boots, and hands over what the guest says as it comes. The guest's console goes to the
    /// file `console`. The machine is gone when this returns, and should this process die.
    ///
    /// # Errors
    ///
    /// That the emulator cannot be started or waited for.
    pub fn run(
        &self,
        console: &Path,
        limits: Limits,
        mut on_word: impl FnMut(Word),
    ) -> Result<Ended> {
        let until = Instant::now() + limits.deadline;
        // A console of an earlier run must not pass for this one's.
        std::fs::write(console, "").map_err(|source| file("create", console, source))?;
        let mut command = self.command(&format!("file:{}", console.display()));
        command
            .args(["-serial", "stdio"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut emulator = Emulator(command.spawn().map_err(not_started)?);
        let (to_us, lines) = mpsc::channel();
        if let Some(output) = emulator.0.stdout.take() {
            // It ends with the emulator, which ends with this function.
            std::thread::spawn(move || {
                for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                    if to_us.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        let mut heard = Instant::now();
        loop {
            let now = Instant::now();
            let next = until.min(heard + limits.silence);
            match lines.recv_timeout(next.saturating_duration_since(now)) {
                Ok(line) => {
                    if let Some(word) = Word::from_line(&String::from_utf8_lossy(&line)) {
                        heard = Instant::now();
                        on_word(word);
                    }
                }
                Err(RecvTimeoutError::Timeout) if next == until => return Ok(Ended::AtDeadline),
                Err(RecvTimeoutError::Timeout) => return Ok(Ended::Silent),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = emulator.0.wait().map_err(not_started)?;
        match status.success() {
            true => Ok(Ended::ByItself),
            false => Ok(Ended::Broken(status)),
        }
    }

    /// Boots with the console on this terminal and waits for the end.
    ///
    /// # Errors
    ///
    /// That the emulator cannot be started or waited for.
    pub fn run_on_terminal(&self) -> Result<ExitStatus> {
        let mut command = self.command("mon:stdio");
        // The driver's port is there, and nobody listens.
        command.args(["-serial", "null"]);
        Emulator(command.spawn().map_err(not_started)?)
            .0
            .wait()
            .map_err(not_started)
    }

    fn command(&self, console: &str) -> Command {
        let mut command = Command::new(EMULATOR);
        // No devices but those named: above all no network card.
        command.args(["-nodefaults", "-display", "none", "-no-reboot"]);
        // Two processors, so that maps per processor have more than one part; in turns on one
        // thread. With a thread each, qemu 7.2 lets one run the breakpoint of a static key that
        // the other has finished patching (attaching flips such keys), and the guest dies of
        // "Oops: int3" in __netif_receive_skb_core.
        command.args(["-accel", "tcg,thread=single", "-cpu", "max"]);
        command.args(["-smp", "2", "-m", "1024"]);
        command.arg("-kernel").arg(&self.kernel.image);
        command.arg("-initrd").arg(&self.initramfs);
        command.args(["-append", &kernel_parameters(&self.environment)]);
        command.args(["-serial", console]);
        // SAFETY: between fork and exec only this bare system call is made, which touches no
        // memory but its own stack.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        command
    }
}

/// A panic ends the machine at once, which `-no-reboot` makes the end of the emulator.
fn kernel_parameters(environment: &[(&str, String)]) -> String {
    environment.iter().fold(
        "console=ttyS0 quiet panic=-1".to_owned(),
        |line, (name, value)| format!("{line} {name}={value}"),
    )
}

fn not_started(source: std::io::Error) -> Error {
    Error::Start {
        program: EMULATOR,
        package: "qemu-system-x86",
        source,
    }
}

/// Never left behind.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_for_init_stand_on_the_kernels_command_line() {
        assert_eq!(
            kernel_parameters(&[("QUILT_MESH_VM_ATTACH", "tcx".to_owned())]),
            "console=ttyS0 quiet panic=-1 QUILT_MESH_VM_ATTACH=tcx"
        );
    }
}
