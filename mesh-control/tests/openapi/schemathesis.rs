//! Schemathesis, which makes requests from a description: installed once under the target directory.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

const REQUIREMENTS: &str = include_str!("requirements.txt");

/// How long pip may take. Only a failing test waits for it.
const INSTALL_DEADLINE: Duration = Duration::from_secs(300);

/// The program, installed if it is not yet.
pub(crate) fn program() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    let program = folder.join("bin/schemathesis");
    // Two runs of the tests do not install into one folder at a time; closing the file unlocks it.
    let lock = File::create(folder.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let installed = folder.join("installed.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|text| text == REQUIREMENTS) {
        return program;
    }
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(&folder);
    check(
        "make a Python environment; python3 and python3-venv are needed, which `cargo xtask setup` installs",
        venv,
    );
    let requirements = folder.join("requirements.txt");
    std::fs::write(&requirements, REQUIREMENTS).unwrap();
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args([
        "install",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--requirement",
    ])
    .arg(&requirements);
    check("install schemathesis from PyPI", pip);
    std::fs::rename(requirements, installed).unwrap();
    program
}

fn check(task: &str, command: Command) {
    let folder = tempfile::tempdir().unwrap();
    let (status, said) = finish(command, folder.path(), INSTALL_DEADLINE);
    assert!(status.success(), "cannot {task}: {status}\n{said}");
}

/// Runs a command to its end, and ends it and all it started at the deadline. Returns what it said.
pub(crate) fn finish(mut command: Command, folder: &Path, limit: Duration) -> (ExitStatus, String) {
    let said = folder.join("output");
    let output = File::create(&said).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .process_group(0);
    // SAFETY: prctl is async-signal-safe, and the closure does nothing else: no allocation, no lock.
    unsafe {
        command.pre_exec(|| {
            // The test process may be killed as well; the child must not stay.
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into)
        });
    }
    let shown = format!("{command:?}");
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => panic!("cannot run {shown}: {error}"),
    };
    let text = || String::from_utf8_lossy(&std::fs::read(&said).unwrap_or_default()).into_owned();
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status, text());
        }
        if Instant::now() > deadline {
            // Fails only when all of them have ended by themselves.
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
            let _ = child.wait();
            panic!("{shown} did not end within {limit:?}; it said:\n{}", text());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
