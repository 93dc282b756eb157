//! The file of the authorities' keys: its name, that of before, and what becomes of one that is in the way.
//!
//! It is not called `ca.pem`, as it was once: so do people call the file into which they have the certificates printed, and a
//! shell empties that before anything is printed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mesh_credentials::authority_file;
use mesh_credentials::secret_file;
use time::OffsetDateTime;
use tracing::{info, warn};

/// The file, in the state directory.
pub(crate) const NAME: &str = "authority.key.pem";

/// As it was called before.
const OLD_NAME: &str = "ca.pem";

/// Names that are tried for a file that is kept.
const MOST_NAMES: u32 = 100;

/// The file in this directory. One of before that holds keys gets its name; where it cannot, it goes on with the old one.
pub(crate) fn take_up(directory: &Path) -> PathBuf {
    let (file, old) = (directory.join(NAME), directory.join(OLD_NAME));
    // Nothing but a file: a pipe would be waited for.
    if !old.is_file() {
        return file;
    }
    match secret_file::look(&old) {
        Ok(Some(found)) if authority_file::has_key(&found.text) => {}
        Ok(_) => return file,
        Err(error) => {
            warn!(name: "cannot-tell-whether-file-certificate", %error, "cannot tell whether this is the file of the certificate authority, as it was called before");
            return file;
        }
    }
    if fs::symlink_metadata(&file).is_ok() {
        warn!(name: "key-in-certificate-file",
            file = %old.display(), used = %file.display(),
            "a private key is in this file as well, which is not used: take it with quilt-mesh-control ca import, if it is \
             missed, and remove it"
        );
        return file;
    }
    match fs::rename(&old, &file) {
        Ok(()) => {
            info!(name: "file-certificate-authority-another-name", from = %old.display(), to = %file.display(), "the file of the certificate authority has another name now");
            file
        }
        // Another process of this directory was first.
        Err(error) if error.kind() == io::ErrorKind::NotFound => file,
        Err(error) => {
            warn!(name: "file-certificate-authority-keeps-old", %error, file = %old.display(), "the file of the certificate authority keeps its old name");
            old
        }
    }
}

/// Where a new one lies until it is trusted.
pub(super) fn unfinished(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Gives the file a second name, which says when, and stays when the first is given to another. `None`: there is none.
pub(super) fn keep(file: &Path, now: i64) -> io::Result<Option<PathBuf>> {
    let moment = OffsetDateTime::from_unix_timestamp(now).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, time) = (moment.date(), moment.time());
    let stamp = format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{stamp}"));
    for number in 1..=MOST_NAMES {
        let mut kept = name.clone();
        if number > 1 {
            kept.push(format!("-{number}"));
        }
        // The same file, so that its mode and its owner are what they were.
        match fs::hard_link(file, &kept) {
            Ok(()) => return Ok(Some(kept.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Gives the file another name, as [`keep`] does: its own is free then.
pub(crate) fn set_aside(file: &Path, now: i64) -> io::Result<Option<PathBuf>> {
    let kept = keep(file, now)?;
    if kept.is_some() {
        fs::remove_file(file)?;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use mesh_credentials::authority::Authority;
    use mesh_credentials::name::MeshId;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn authority() -> Authority {
        Authority::make(MeshId::make(), NOW).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_of_before_is_taken_up_if_it_holds_keys_and_left_alone_if_it_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join(OLD_NAME);
        let file = folder.path().join(NAME);
        assert_eq!(take_up(folder.path()), file);
        // What somebody had printed, for whoever checks by it.
        let certificate = authority().trusted().pem();
        fs::write(&old, &certificate).unwrap();
        assert_eq!(take_up(folder.path()), file);
        assert_eq!(names(folder.path()), [OLD_NAME]);
        fs::write(&old, "").unwrap();
        assert_eq!(take_up(folder.path()), file);
        assert_eq!(names(folder.path()), [OLD_NAME]);
        let kept = authority();
        authority_file::replace(
            &old,
            &[authority_file::parse(&kept.pem()).unwrap().remove(0)],
        )
        .unwrap();
        assert_eq!(take_up(folder.path()), file);
        assert_eq!(names(folder.path()), [NAME]);
        assert_eq!(fs::read_to_string(&file).unwrap(), kept.pem());
        // Never in the place of another.
        authority_file::replace(&old, &[authority().into()]).unwrap();
        assert_eq!(take_up(folder.path()), file);
        assert_eq!(names(folder.path()), [NAME, OLD_NAME]);
        assert_eq!(fs::read_to_string(&file).unwrap(), kept.pem());
    }

    #[test]
    fn the_file_that_there_was_stays_under_a_name_that_says_when() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(NAME);
        assert_eq!(keep(&file, NOW).unwrap(), None);
        secret_file::create(&file, "one").unwrap();
        let kept = keep(&file, NOW).unwrap().unwrap();
        let name = |end: &str| folder.path().join(format!("{NAME}.20270115T080000Z{end}"));
        assert_eq!(kept, name(""));
        let again = keep(&file, NOW).unwrap().unwrap();
        assert_eq!(again, name("-2"));
        secret_file::replace(&file, "two").unwrap();
        assert_eq!(fs::read_to_string(&kept).unwrap(), "one");
        let mode = fs::metadata(&kept).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(set_aside(&file, NOW).unwrap(), Some(name("-3")));
        assert!(!file.exists());
        assert_eq!(set_aside(&file, NOW).unwrap(), None);
    }
}
