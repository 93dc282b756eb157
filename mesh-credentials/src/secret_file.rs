//! Files that only their owner may read: whole or not there, also after a crash.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// No file of ours is longer, in bytes.
const LONGEST: u64 = 1 << 20;

/// Why such a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It cannot be read or written.
    #[error("{}: {cause}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Others than its owner may read it, or did.
    #[error(
        "{} may be read by others (mode {mode:o}): chmod 600 it, and replace what is in it if somebody might have", .path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is longer than any such file.
    #[error("{} is longer than {LONGEST} bytes, and none of ours", .0.display())]
    TooLong(PathBuf),
}

fn failed(path: &Path) -> impl Fn(io::Error) -> SecretFileError + '_ {
    move |cause| SecretFileError::File {
        path: path.to_owned(),
        cause,
    }
}

/// Reads the file; `None`: there is none.
///
/// # Errors
///
/// [`SecretFileError`], also when others may read it.
pub fn read(path: &Path) -> Result<Option<String>, SecretFileError> {
    let Some(found) = look(path)? else {
        return Ok(None);
    };
    found.only_its_owners(path).map(Some)
}

/// A file as it is found, whoever may read it.
#[derive(Clone)]
pub struct Found {
    /// What is in it.
    pub text: String,
    /// Its mode.
    pub mode: u32,
}

impl Found {
    /// What is in it.
    ///
    /// # Errors
    ///
    /// [`SecretFileError::Open`].
    pub fn only_its_owners(self, path: &Path) -> Result<String, SecretFileError> {
        let mode = self.mode;
        match mode & 0o077 {
            0 => Ok(self.text),
            _ => Err(SecretFileError::Open {
                path: path.to_owned(),
                mode,
            }),
        }
    }
}

/// Reads the file, also where others may; `None`: there is none.
///
/// # Errors
///
/// [`SecretFileError`].
pub fn look(path: &Path) -> Result<Option<Found>, SecretFileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path)(error)),
    };
    let mode = file.metadata().map_err(failed(path))?.permissions().mode() & 0o7777;
    let mut text = String::new();
    file.take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(failed(path))?;
    if text.len() as u64 > LONGEST {
        return Err(SecretFileError::TooLong(path.to_owned()));
    }
    Ok(Some(Found { text, mode }))
}

/// Writes the file, in the place of one that may be there.
///
/// # Errors
///
/// [`SecretFileError::File`]; the file is then as it was.
pub fn replace(path: &Path, text: &str) -> Result<(), SecretFileError> {
    written(path, text, |temporary| fs::rename(temporary, path)).map_err(failed(path))
}

/// Writes the file if there is none. Whether it did.
///
/// # Errors
///
/// [`SecretFileError::File`].
pub fn create(path: &Path, text: &str) -> Result<bool, SecretFileError> {
    match written(path, text, |temporary| fs::hard_link(temporary, path)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(path)(error)),
    }
}

fn written(path: &Path, text: &str, put: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.{}", uuid::Uuid::new_v4()));
    let done = write_new(&temporary, text).and_then(|()| put(&temporary));
    // After a rename it is no longer there.
    let _ = fs::remove_file(&temporary);
    done?;
    File::open(directory)?.sync_all()
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_owners_alone_and_no_other_stays_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert_eq!(read(&path).unwrap(), None);
        assert!(create(&path, "one").unwrap());
        assert!(!create(&path, "two").unwrap());
        assert_eq!(read(&path).unwrap().as_deref(), Some("one"));
        replace(&path, "three").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("three"));
        let names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["key"]);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        create(&path, "one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.to_string().contains("mode 640"), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}
