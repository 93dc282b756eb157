//! One machine of a series at a time: a second would boot the initramfs that the first is
//! reading, and write to its console.

use std::{
    fs::{self, File, TryLockError},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    package::file,
    series::Series,
};

/// Held while the files of a series belong to this process. The kernel releases it when the
/// process ends, however it ends.
#[derive(Debug)]
pub struct Turn {
    _file: File,
}

impl Turn {
    /// Waits for the machine that another process boots from `dir` to end.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when it does not within `deadline`.
    pub fn wait(dir: &Path, series: Series, deadline: Duration) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|source| file("create", dir, source))?;
        let path = dir.join(format!("lock-{series}"));
        let lock = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| file("open", &path, source))?;
        let started = Instant::now();
        let mut said = false;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { _file: lock }),
                Err(TryLockError::WouldBlock) if started.elapsed() >= deadline => {
                    return Err(Error::Busy {
                        lock: path,
                        seconds: deadline.as_secs(),
                    });
                }
                Err(TryLockError::WouldBlock) if !said => {
                    eprintln!("waiting for the process that holds {}", path.display());
                    said = true;
                }
                Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(50)),
                Err(TryLockError::Error(source)) => return Err(file("lock", &path, source)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_one_machines_at_a_time_and_another_series_does_not_wait() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other]: [Series; 2] = ["6.1", "6.12"].map(|text| text.parse().unwrap());
        let held = Turn::wait(dir.path(), one, Duration::ZERO).unwrap();
        Turn::wait(dir.path(), other, Duration::ZERO).unwrap();
        let refused = Turn::wait(dir.path(), one, Duration::from_millis(120));
        assert!(matches!(refused, Err(Error::Busy { .. })));
        drop(held);
        Turn::wait(dir.path(), one, Duration::ZERO).unwrap();
    }
}
