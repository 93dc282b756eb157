//! Runs other programs, each with a deadline.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Error;

/// Runs `command` with its messages going to this process's standard error, so that standard output stays for
/// results (a build script's instructions to cargo, JSON).
///
/// # Errors
///
/// [`Error::CannotRun`] when it does not start, [`Error::TookTooLong`] when it had to be ended.
pub(crate) fn run(command: &mut Command, deadline: Duration) -> Result<ExitStatus, Error> {
    wait(command.stdout(std::io::stderr()), deadline)
}

/// As [`run`], with the output going where the caller directed it.
pub(crate) fn wait(command: &mut Command, deadline: Duration) -> Result<ExitStatus, Error> {
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .map_err(|source| Error::CannotRun {
            command: shown(command),
            source,
        })?;
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if started.elapsed() < deadline => sleep(Duration::from_millis(20)),
            Ok(None) => {
                // Both fail only if the child has ended by itself meanwhile, which is what is wanted.
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::TookTooLong {
                    command: shown(command),
                    seconds: deadline.as_secs(),
                });
            }
            Err(source) => {
                return Err(Error::CannotRun {
                    command: shown(command),
                    source,
                });
            }
        }
    }
}

/// Standard output of a program that only answers a question, or nothing when it cannot.
pub(crate) fn answer(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The program of this name on `PATH`.
pub(crate) fn on_path(name: &str) -> Option<std::path::PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| is_program(path))
}

/// Whether the path leads to a file that may be executed.
pub(crate) fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Cargo of the outer build when there is one (always a real binary, not rustup's proxy), else the one on `PATH`.
pub(crate) fn cargo() -> std::path::PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), Into::into)
}

/// Whether this process may install packages.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // The owner of /proc/self is the effective user, which saves a dependency for one call of geteuid.
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
