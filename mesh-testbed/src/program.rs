//! Programs that a test makes and runs.
//!
//! What a process has open for writing cannot be executed (ETXTBSY). A child that another thread forks in that moment
//! has it open as well, until it has become a program of its own. So another process writes it, of whose files no child
//! of this one knows.

use std::{
    ffi::OsStr,
    io::{self, Write as _},
    path::Path,
    process::{Command, Stdio},
};

/// Makes `to` a copy of the program `from` that everybody may run, at once, also where there was another file.
///
/// # Errors
/// What install(1) said.
pub fn copy_program(from: &Path, to: &Path) -> io::Result<()> {
    install(from.as_os_str(), to, b"")
}

/// Makes `path` a shell script of these `lines` that everybody may run, at once, also where there was another file.
///
/// # Errors
/// What install(1) said.
pub fn write_script(path: &Path, lines: &str) -> io::Result<()> {
    let text = format!("#!/bin/sh\n{lines}\n");
    install(OsStr::new("/dev/stdin"), path, text.as_bytes())
}

/// `input` is shorter than what a pipe holds.
fn install(from: &OsStr, to: &Path, input: &[u8]) -> io::Result<()> {
    let mut child = Command::new("install")
        .args(["-m", "755", "--"])
        .args([from, to.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(input));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(said.trim().to_owned()));
    }
    written
}
