//! A wall clock of a process's own, which a test steps while the process runs.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::process::Setup;

/// What is preloaded; it has no other words than the kernel's for its own clock.
const LIBRARY: &str = include_str!("stepped_clock.c");

/// See the module. The clock is the machine's until it is stepped.
pub(crate) struct SteppedClock {
    folder: TempDir,
    step: File,
}

impl SteppedClock {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let step = File::create_new(folder.path().join("step")).unwrap();
        let clock = Self { folder, step };
        clock.step(0);
        clock.compile();
        clock
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("stepped_clock.so")
    }

    fn compile(&self) {
        let mut compiler = Command::new("cc")
            .args([
                "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-x", "c", "-", "-o",
            ])
            .arg(self.library())
            .stdin(Stdio::piped())
            .spawn()
            .expect("a C compiler steps the clock: install gcc and libc6-dev (cargo xtask setup)");
        let mut source = compiler.stdin.take().unwrap();
        source.write_all(LIBRARY.as_bytes()).unwrap();
        drop(source);
        let status = compiler.wait().unwrap();
        assert!(
            status.success(),
            "cc {status}; are the headers of libc6-dev there?"
        );
    }

    /// Sets the clock to so many seconds from the machine's.
    pub(crate) fn step(&self, seconds: i64) {
        self.step.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// Control planes that have this clock.
    pub(crate) fn of(&self, setup: Setup) -> Setup {
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        setup
            .with_environment("LD_PRELOAD", &path(self.library()))
            .with_environment("STEPPED_CLOCK", &path(self.folder.path().join("step")))
    }
}

/// Unix seconds by the machine's clock.
pub(crate) fn machine_seconds() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since_epoch.as_secs()).unwrap()
}
