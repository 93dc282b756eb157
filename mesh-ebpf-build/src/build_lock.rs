//! One build at a time in one target directory: xtask and a build script may start together, and both may
//! find that the toolchain is missing.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Error, Step};

/// Held while this process builds. The kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct BuildLock {
    _file: File,
}

impl BuildLock {
    pub(crate) fn acquire(
        dir: &Path,
        deadline: Duration,
        progress: &dyn Fn(&Step),
    ) -> Result<Self, Error> {
        let path = dir.join("build.lock");
        std::fs::create_dir_all(dir).map_err(|source| Error::io("create", dir, source))?;
        let file = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| Error::io("open", &path, source))?;
        let started = Instant::now();
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if started.elapsed() >= deadline => {
                    return Err(Error::Locked {
                        lock: path,
                        seconds: deadline.as_secs(),
                    });
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(Error::io("lock", &path, source)),
            }
            if !said {
                progress(&Step::WaitsForOtherBuild { lock: path.clone() });
                said = true;
            }
            sleep(Duration::from_millis(50));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_second_build_waits_says_so_once_and_gives_up_at_its_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let held = BuildLock::acquire(dir.path(), Duration::ZERO, &|_| {}).unwrap();
        let said = Cell::new(0);
        let waited = BuildLock::acquire(dir.path(), Duration::from_millis(200), &|step| {
            assert!(matches!(step, Step::WaitsForOtherBuild { .. }));
            said.set(said.get() + 1);
        });
        assert!(matches!(waited, Err(Error::Locked { .. })));
        assert_eq!(said.get(), 1);
        drop(held);
        BuildLock::acquire(dir.path(), Duration::ZERO, &|_| {
            panic!("a free lock is not waited for")
        })
        .unwrap();
    }
}
