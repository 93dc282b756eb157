//! The file of leases on a disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::sys::statvfs::{Statvfs, statvfs};

/// Name of the file.
pub(super) const LEASES: &str = "leases";
/// Name of the one that is about to replace it.
const NEW: &str = "leases.new";
/// The size to which a journal grows without being written anew, and by which it grows before that is
/// tried again if it failed.
pub(super) const SPARE: u64 = 1 << 20;
/// The part of its file system that it does not grow beyond, as there has to be room for a new one.
const PART: u64 = 16;
/// How many files that were damaged are kept; the last makes room for the next.
const MAX_DAMAGED: u32 = 4;

/// What a journal does with its file.
pub(super) trait Storage: Send {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Brings what was written to the disk, with the length.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file to this length.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Replaces the file, so that whatever happens there is either the old one or the new one.
    fn replace(&mut self, bytes: &[u8]) -> Result<(), Replaced>;
    /// How much larger than what it tells the file may grow before it is written anew.
    fn spare(&self) -> u64 {
        SPARE
    }
}

/// Whether a file was replaced when replacing it failed.
pub(super) enum Replaced {
    /// The old one is there as it was.
    No(io::Error),
    /// Either may be found after a crash.
    Perhaps(io::Error),
}

/// The file in its directory.
pub(super) struct LeaseFile {
    directory: PathBuf,
    /// `None` until it is written for the first time.
    file: Option<File>,
}

impl LeaseFile {
    /// Opens the file of a directory, which is made if there is none. What was left of replacing the
    /// file is removed: it may be what fills the disk.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        match fs::remove_file(directory.join(NEW)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = open_existing(directory, options.read(true).write(true))?;
        Ok(Self {
            directory: directory.to_owned(),
            file,
        })
    }

    /// Opens the file of a directory to read it. Nothing is made or changed.
    pub(super) fn open_to_read(directory: &Path) -> io::Result<Option<File>> {
        open_existing(directory, OpenOptions::new().read(true))
    }

    /// Where the file is.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(LEASES)
    }

    /// The file, if there is one.
    pub(super) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Keeps the file under another name as well, and returns that. It is not changed afterwards, if
    /// the journal is written anew before anything else.
    pub(super) fn keep_aside(&self) -> io::Result<PathBuf> {
        let name = |number| self.directory.join(format!("{LEASES}.damaged-{number}"));
        let free = (1..MAX_DAMAGED).find(|&number| !name(number).exists());
        let aside = name(free.unwrap_or(MAX_DAMAGED));
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // A second name takes no room. Not all file systems have them.
        fs::hard_link(self.path(), &aside)
            .or_else(|_| fs::copy(self.path(), &aside).map(drop))
            .map(|()| aside)
    }

    fn existing(&self) -> io::Result<&File> {
        self.file
            .as_ref()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Storage for LeaseFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.existing()?.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.existing()?.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.existing()?.set_len(len)
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<(), Replaced> {
        let new = self.directory.join(NEW);
        let write = || {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            Ok(file)
        };
        let failed = |error| {
            // On a full disk it would take the room that others make.
            let _ = fs::remove_file(&new);
            Replaced::No(error)
        };
        let file = write().map_err(failed)?;
        fs::rename(&new, self.path()).map_err(failed)?;
        self.file = Some(file);
        // The new name has to reach the disk as well.
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(Replaced::Perhaps)
    }

    fn spare(&self) -> u64 {
        let of = |it: Statvfs| it.blocks().saturating_mul(it.fragment_size()) / PART;
        statvfs(&self.directory).map_or(SPARE, |it| SPARE.min(of(it)))
    }
}

/// Opens the file of a directory, if there is one.
fn open_existing(directory: &Path, options: &OpenOptions) -> io::Result<Option<File>> {
    let path = directory.join(LEASES);
    // What has the name is no matter of course, and a pipe would be waited for.
    let found = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if !found.is_file() {
        return Err(io::Error::other(format!(
            "{LEASES} is no regular file: put back what was there, or remove it"
        )));
    }
    options.open(path).map(Some)
}

/// A file that was opened to read it, and why.
pub(super) struct ReadOnly(pub(super) io::ErrorKind, pub(super) String);

impl ReadOnly {
    fn refusal<T>(&self) -> io::Result<T> {
        Err(io::Error::new(self.0, self.1.clone()))
    }
}

impl Storage for ReadOnly {
    fn write_at(&mut self, _: &[u8], _: u64) -> io::Result<()> {
        self.refusal()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.refusal()
    }

    fn truncate(&mut self, _: u64) -> io::Result<()> {
        self.refusal()
    }

    fn replace(&mut self, _: &[u8]) -> Result<(), Replaced> {
        self.refusal().map_err(Replaced::No)
    }
}
