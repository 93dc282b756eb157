//! What is in the linked object.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind};
use sha2::{Digest as _, Sha256};

use crate::Error;

/// A finished object and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EbpfObject {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes in the file.
    pub size: usize,
    /// Of the file.
    pub sha256: Sha256Digest,
    /// Programs and maps.
    pub contents: Contents,
}

/// A digest that prints as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256Digest(pub [u8; 32]);

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Programs and maps of an object, each sorted by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// What can be attached.
    pub programs: Vec<Program>,
    /// Names of the maps.
    pub maps: Vec<String>,
}

/// A program in the object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    /// Name of the function, by which a loader finds it.
    pub name: String,
    /// Name of its section, which tells the kind: `classifier`, `xdp`, …
    pub section: String,
}

/// Reads and checks the object at `path`.
///
/// # Errors
///
/// [`Error::Io`] when it cannot be read, [`Error::Object`] when it could not be loaded.
pub fn read(path: &Path) -> Result<EbpfObject, Error> {
    let bytes = fs::read(path).map_err(|source| Error::io("read", path, source))?;
    describe(path, &bytes)
}

fn describe(path: &Path, bytes: &[u8]) -> Result<EbpfObject, Error> {
    let contents = inspect(bytes).map_err(|reason| Error::Object {
        path: path.to_owned(),
        reason,
    })?;
    let sha256 = Sha256Digest(Sha256::digest(bytes).into());
    Ok(EbpfObject {
        path: path.to_owned(),
        size: bytes.len(),
        sha256,
        contents,
    })
}

/// Checks the object that was linked and puts it where callers look for it. An object with the same bytes is
/// left alone, so that nothing that depends on it is built again.
pub(crate) fn publish(linked: &Path, published: &Path) -> Result<EbpfObject, Error> {
    let bytes = fs::read(linked).map_err(|source| Error::io("read", linked, source))?;
    // Before it is put in place: a broken object never replaces a good one.
    let object = describe(published, &bytes)?;
    if fs::read(published).ok().as_deref() != Some(bytes.as_slice()) {
        let unfinished = published.with_extension("unfinished");
        fs::write(&unfinished, &bytes).map_err(|source| Error::io("write", &unfinished, source))?;
        fs::rename(&unfinished, published)
            .map_err(|source| Error::io("rename", &unfinished, source))?;
    }
    Ok(object)
}

/// Programs and maps in the bytes of an eBPF object.
///
/// # Errors
///
/// A sentence about what is missing: it is not an ELF object for BPF, it has no BTF, no program or no map.
pub fn inspect(bytes: &[u8]) -> Result<Contents, String> {
    let file =
        object::File::parse(bytes).map_err(|error| format!("it is not an ELF object ({error})"))?;
    if file.architecture() != object::Architecture::Bpf {
        return Err(format!(
            "it is made for {:?}, not for BPF",
            file.architecture()
        ));
    }
    if file
        .section_by_name(".BTF")
        .is_none_or(|section| section.size() == 0)
    {
        return Err("it has no section .BTF: bpf-linker was called without --btf, or there is no debug info".into());
    }
    let mut programs = Vec::new();
    let mut maps = Vec::new();
    for symbol in file.symbols() {
        let section = symbol
            .section_index()
            .and_then(|index| file.section_by_index(index).ok());
        let (Some(section), Ok(name)) = (section, symbol.name()) else {
            continue;
        };
        let Ok(section_name) = section.name() else {
            continue;
        };
        match symbol.kind() {
            // Functions in .text are called by programs and are none themselves.
            SymbolKind::Text if section.kind() == SectionKind::Text && section_name != ".text" => {
                programs.push(Program {
                    name: name.to_owned(),
                    section: section_name.to_owned(),
                });
            }
            // .maps holds maps with BTF, maps the older kind, which aya-log still uses.
            SymbolKind::Data if matches!(section_name, ".maps" | "maps") => {
                maps.push(name.to_owned())
            }
            _ => {}
        }
    }
    programs.sort();
    maps.sort();
    if programs.is_empty() {
        return Err("it has no program".into());
    }
    if maps.is_empty() {
        return Err("it has no map".into());
    }
    Ok(Contents { programs, maps })
}
