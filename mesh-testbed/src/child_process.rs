//! The children of a process that is not ours to wait for.

use std::fs;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    error::{Error, Result},
    reaper::start_time,
};

/// A process that cannot be mistaken for a later one with its id.
#[derive(Debug)]
pub(crate) struct ChildProcess {
    pub(crate) pid: u32,
    started: u64,
}

impl ChildProcess {
    /// Whether it can still do anything. One that died while its parent was dead already stays a zombie until
    /// whoever adopted it looks.
    pub(crate) fn is_there(&self) -> bool {
        start_time(self.pid).is_ok_and(|started| started == self.started)
            && !matches!(
                stat_field(self.pid, STATE).as_deref(),
                None | Some("Z" | "X")
            )
    }

    pub(crate) fn kill(&self) {
        if self.is_there() {
            // Gone in between is what was wanted.
            let _ = kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGKILL);
        }
    }
}

/// The children of a process, in whatever session they are.
pub(crate) fn children(parent: u32) -> Result<Vec<ChildProcess>> {
    let failed = |error| Error::system("list", format!("the children of process {parent}"), error);
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(pid) = entry.file_name().to_str().and_then(|it| it.parse().ok()) else {
            continue;
        };
        // Processes end while the list is walked.
        if parent_of(pid) == Some(parent)
            && let Ok(started) = start_time(pid)
        {
            children.push(ChildProcess { pid, started });
        }
    }
    Ok(children)
}

/// Fields 3 and 4 of proc_pid_stat(5), counted from behind the name.
const STATE: usize = 0;
const PARENT: usize = 1;

fn parent_of(pid: u32) -> Option<u32> {
    stat_field(pid, PARENT)?.parse().ok()
}

fn stat_field(pid: u32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(field).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_and_that_nobody_waited_for_is_not_there_any_more() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = ChildProcess {
            pid: child.id(),
            started: start_time(child.id()).unwrap(),
        };
        assert!(process.is_there());
        process.kill();
        while stat_field(process.pid, STATE).as_deref() != Some("Z") {
            std::thread::yield_now();
        }
        assert!(!process.is_there());
        child.wait().unwrap();
    }
}
