//! What commands print, which may not be possible: a disk is full, or who reads has enough.

use std::io::{self, Write as _};

use anyhow::Context as _;

/// Prints a line.
///
/// # Errors
///
/// As [`print_all`].
pub fn print_line(line: &str) -> anyhow::Result<()> {
    print_all(&format!("{line}\n"))
}

/// Prints a document for a machine.
///
/// # Errors
///
/// As [`print_all`].
pub fn print_json(document: &impl serde::Serialize) -> anyhow::Result<()> {
    print_line(&serde_json::to_string_pretty(document).context("cannot write it as JSON")?)
}

/// Prints all of it.
///
/// # Errors
///
/// It cannot be: what is printed may be a token, or a backup.
pub fn print_all(text: &str) -> anyhow::Result<()> {
    write(text).context("cannot print it")
}

/// Prints what somebody may not read to the end.
///
/// # Errors
///
/// It cannot be, for another reason.
pub fn print_list(text: &str) -> anyhow::Result<()> {
    match write(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("cannot print it"),
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
