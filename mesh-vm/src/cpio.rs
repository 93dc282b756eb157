//! The archive that the kernel unpacks as its first root: cpio's "newc" format
//! (Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's source).

use crate::error::{Error, Result};

/// Kinds of files, as in `st_mode` (inode(7)).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// An archive in the making. Everything in it belongs to root.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory, which has to come before what is in it.
    ///
    /// # Errors
    ///
    /// None that can happen to a directory.
    pub fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, DIRECTORY | 0o755, &[])
    }

    /// Adds a file that everybody may run.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`].
    pub fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(name, REGULAR | 0o755, content)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`].
    pub fn symlink(&mut self, name: &str, target: &str) -> Result<()> {
        self.entry(name, SYMLINK | 0o777, target.as_bytes())
    }

    /// The finished archive.
    ///
    /// # Errors
    ///
    /// None that can happen to the end mark.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let length = |bytes: usize| {
            u32::try_from(bytes).map_err(|_| Error::TooLarge {
                name: name.to_owned(),
                size: bytes,
            })
        };
        self.entries += 1;
        let (no_owner, one_link, no_time, no_device, no_sum) = (0, 1, 0, 0, 0);
        let header = [
            self.entries,
            mode,
            no_owner,
            no_owner,
            one_link,
            no_time,
            length(content.len())?,
            no_device,
            no_device,
            no_device,
            no_device,
            // With the zero at its end.
            length(name.len() + 1)?,
            no_sum,
        ];
        self.bytes.extend(b"070701");
        for field in header {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    /// Names and contents end on a multiple of four bytes.
    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads an archive as the kernel does (init/initramfs.c): mode, name and content of each.
    fn read(mut bytes: &[u8]) -> Vec<(u32, String, Vec<u8>)> {
        let mut entries = Vec::new();
        let whole = bytes.len();
        loop {
            let field = |index: usize| {
                let digits = &bytes[6 + 8 * index..14 + 8 * index];
                u32::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            assert_eq!(&bytes[..6], b"070701");
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = &bytes[110..110 + name_size];
            assert_eq!(name.last(), Some(&0));
            let name = String::from_utf8(name[..name_size - 1].to_vec()).unwrap();
            if name == "TRAILER!!!" {
                return entries;
            }
            let at = whole - bytes.len();
            let start = (at + 110 + name_size).next_multiple_of(4) - at;
            let end = (at + start + size).next_multiple_of(4) - at;
            entries.push((mode, name, bytes[start..start + size].to_vec()));
            bytes = &bytes[end..];
        }
    }

    proptest! {
        #[test]
        fn what_was_put_in_is_read_back(
            files in prop::collection::vec(("[a-z/]{1,40}", prop::collection::vec(any::<u8>(), 0..50)), 0..8)
        ) {
            let mut archive = Archive::default();
            for (name, content) in &files {
                archive.file(name, content).unwrap();
            }
            let expected: Vec<_> = files
                .into_iter()
                .map(|(name, content)| (0o100_755, name, content))
                .collect();
            prop_assert_eq!(read(&archive.finish().unwrap()), expected);
        }
    }

    #[test]
    fn directories_and_links_say_what_they_are() {
        let mut archive = Archive::default();
        archive.directory("bin").unwrap();
        archive.symlink("bin/sh", "busybox").unwrap();
        assert_eq!(
            read(&archive.finish().unwrap()),
            [
                (0o040_755, "bin".to_owned(), Vec::new()),
                (0o120_777, "bin/sh".to_owned(), b"busybox".to_vec())
            ]
        );
    }
}
