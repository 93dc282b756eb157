//! A wall clock of a process's own, which a test steps while the process runs.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use tempfile::TempDir;

use crate::process::DaemonOptions;

/// Names the file that says how far the clock is from the machine's.
const STEP: &str = "STEPPED_CLOCK";

/// What is preloaded; it has no other words than the kernel's for its own clock.
const LIBRARY: &str = include_str!("stepped_clock.c");

/// See the module. The clock is the machine's until it is stepped.
#[derive(Debug)]
pub struct SteppedClock {
    folder: TempDir,
    step: File,
}

impl SteppedClock {
    /// One that shows what the machine's does.
    ///
    /// # Errors
    ///
    /// There is no C compiler, or it fails.
    pub fn new() -> io::Result<Self> {
        let folder = TempDir::new()?;
        let step = File::create_new(folder.path().join("step"))?;
        let clock = Self { folder, step };
        clock.step(0)?;
        clock.compile()?;
        Ok(clock)
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("stepped_clock.so")
    }

    fn compile(&self) -> io::Result<()> {
        let failed = |why: String| {
            io::Error::other(format!(
                "a C compiler steps the clock: install gcc and libc6-dev (cargo xtask setup); {why}"
            ))
        };
        let mut compiler = Command::new("cc")
            .args([
                "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-x", "c", "-", "-o",
            ])
            .arg(self.library())
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let written = match compiler.stdin.take() {
            Some(mut source) => source.write_all(LIBRARY.as_bytes()),
            None => Ok(()),
        };
        let status = compiler.wait()?;
        if !status.success() {
            return Err(failed(format!("cc: {status}")));
        }
        written
    }

    /// Sets the clock to so many seconds from the machine's.
    ///
    /// # Errors
    ///
    /// The file that says so cannot be written.
    pub fn step(&self, seconds: i64) -> io::Result<()> {
        self.step.write_all_at(&seconds.to_ne_bytes(), 0)
    }

    /// The environment of processes that have this clock.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("LD_PRELOAD", self.library()),
            (STEP, self.folder.path().join("step")),
        ]
    }
}

/// The clock of a process that was started with these variables, for who checks what it shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClockOf(Option<PathBuf>);

impl ClockOf {
    pub(crate) fn process_with(options: &DaemonOptions) -> Self {
        Self(options.variable(STEP).map(PathBuf::from))
    }
}

impl TimeProvider for ClockOf {
    fn current_time(&self) -> Option<UnixTime> {
        let step = match &self.0 {
            Some(file) => i64::from_ne_bytes(fs::read(file).ok()?.try_into().ok()?),
            None => 0,
        };
        let now = u64::try_from(machine_seconds().saturating_add(step)).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now)))
    }
}

/// Unix seconds by the machine's clock.
#[must_use]
pub fn machine_seconds() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}
