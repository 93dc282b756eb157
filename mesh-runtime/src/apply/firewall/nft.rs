//! Runs the `nft` program.
//!
//! Its own language, not JSON: nft can be built without the latter, and an operator reads the
//! rules the way they are written here.

use std::{
    io::{self, Read as _, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// The rules of 5,000 peers take a tenth of a second.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// Why rules could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NftError {
    #[error("the program nft is not on the path: install the package nftables")]
    Missing,
    #[error("cannot run {}: {source}", program.display())]
    Run {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("nft did not end within {} s", DEADLINE.as_secs())]
    Hangs,
    #[error("nft refuses the rules: {0}")]
    Refused(String),
    /// The kernel's rules could not be read.
    #[error("cannot read the packet filter's rules: {0}")]
    Read(#[source] io::Error),
}

/// Where nft is on the path.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir: PathBuf| dir.join("nft"))
        .find(|program| program.is_file())
}

/// Carries out `input` in one transaction, in the network namespace of this thread.
pub(super) fn run(input: &str) -> Result<(), NftError> {
    let program = program().ok_or(NftError::Missing)?;
    let failed = |source| NftError::Run {
        program: program.clone(),
        source,
    };
    let mut child = Command::new(&program)
        .args(["-f", "-"])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // nft reads everything before it says anything, so neither side waits for the other.
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if started.elapsed() > DEADLINE {
            // What cannot be killed has ended.
            let _ = child.kill();
            let _ = child.wait();
            return Err(NftError::Hangs);
        }
        std::thread::sleep(LOOK);
    };
    if status.success() {
        return written.map_err(failed);
    }
    let mut said = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        // What cannot be read is not said.
        let _ = stderr.read_to_end(&mut said);
    }
    let said = String::from_utf8_lossy(&said);
    // One message is three lines: what is wrong, the line of input, and a mark below it.
    let first: Vec<&str> = said.lines().take(2).map(str::trim).collect();
    Err(NftError::Refused(first.join(": ")))
}
