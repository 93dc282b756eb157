//! What a killed server leaves behind for good: its shared memory.

use std::{fs, io, path::Path};

use nix::errno::Errno;

use crate::error::{Error, Result};

/// In the data directory: process id, data directory, start time, port, socket directory, listen
/// address, key and id of the shared memory, and status; a line each.
pub(crate) const LOCK_FILE: &str = "postmaster.pid";

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
    fn the_shared_memory_is_named_in_the_seventh_line() {
        let lock = "123\n/tmp/data\n1763800000\n15432\n\n127.128.0.1\n   4721  98310\nready   \n";
        assert_eq!(shared_memory_id(lock), Some(98310));
        assert_eq!(shared_memory_id("123\n/tmp/data\n"), None);
    }
}
