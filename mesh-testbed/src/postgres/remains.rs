//! What a killed server leaves behind: its children for a moment, and its shared memory for good.

use std::{fs, io, path::Path};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    error::{Error, Result},
    reaper::start_time,
};

/// In the data directory: process id, data directory, start time, port, socket directory, listen
/// address, key and id of the shared memory, and status; a line each.
pub(crate) const LOCK_FILE: &str = "postmaster.pid";

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

/// The children of a process. Each backend is one, in a session of its own.
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

/// Removes the System V shared memory segment by which a server keeps a second one off its data:
/// only a server that ends by itself removes it.
pub(crate) fn remove_shared_memory(data: &Path) -> Result<()> {
    let Some(id) = shared_memory_id(&fs::read_to_string(data.join(LOCK_FILE)).unwrap_or_default())
    else {
        return Ok(());
    };
    // SAFETY: IPC_RMID reads no buffer.
    if unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(()),
        error => Err(Error::system("remove", "PostgreSQL's shared memory", error)),
    }
}

fn shared_memory_id(lock_file: &str) -> Option<i32> {
    lock_file
        .lines()
        .nth(6)?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
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

    #[test]
    fn the_shared_memory_is_named_in_the_seventh_line() {
        let lock = "123\n/tmp/data\n1763800000\n15432\n\n127.128.0.1\n   4721  98310\nready   \n";
        assert_eq!(shared_memory_id(lock), Some(98310));
        assert_eq!(shared_memory_id("123\n/tmp/data\n"), None);
    }
}
