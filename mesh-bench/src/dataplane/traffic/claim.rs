//! A stronger claim on the CPUs than the machine's other work has.
//!
//! The scheduler shares the CPUs out among sessions first (sched(7), autogroup) and only then
//! among the threads of each, so a thread's own nice value says nothing to a compiler in
//! another session: the session's does.

use std::{fs, io};

const AUTOGROUP: &str = "/proc/self/autogroup";
/// All but the strongest claim.
const NICE: &str = "-19";

/// The claim, held as long as this value.
#[derive(Debug)]
pub(crate) struct Claim {
    previous: Option<String>,
}

impl Claim {
    /// Raises the nice value of this session. On a kernel that does not group by session there
    /// is nothing to raise.
    pub(crate) fn raise() -> io::Result<Self> {
        let shown = match fs::read_to_string(AUTOGROUP) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { previous: None });
            }
            other => other?,
        };
        fs::write(AUTOGROUP, NICE)?;
        // "/autogroup-4711 nice 0"
        let previous = shown.split_whitespace().last().map(str::to_owned);
        Ok(Self { previous })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(previous) = &self.previous {
            // The session's shell merely keeps the claim if this fails.
            let _ = fs::write(AUTOGROUP, previous);
        }
    }
}
