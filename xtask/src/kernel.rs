//! `cargo xtask test --kernel`, and the kernels that have to hold before a release

use std::process::Command;

use anyhow::bail;

use crate::cargo;
use crate::setup::{self, Tool};
use crate::test::{self, Summary};

/// The series that continuous integration boots: what Debian 12 ships, and what its backports
/// do, which is Debian 13's.
pub(crate) const IN_CI: [&str; 2] = ["6.1", "6.12"];

/// Every kernel that README says something of: Debian 11's, those of continuous integration, and the newest of
/// Debian's backports. `cargo xtask test --kernel all` boots them, before a release.
pub(crate) const ALL: [&str; 4] = ["5.10", "6.1", "6.12", NEWEST];

/// The newest series that Debian's backports have, whichever that is.
const NEWEST: &str = "newest";

/// Says [`ALL`].
const EVERY: &str = "all";

/// What the emulated machines need beside the binaries.
pub(crate) const TOOLS: [Tool; 6] = [
    Tool::CCompiler,
    Tool::Emulator,
    Tool::Depmod,
    Tool::Iproute,
    Tool::Nftables,
    Tool::CniPlugins,
];

/// Boots these kernels, all at once: one suite of the summary. Needs no root: the machines are emulated.
pub(crate) fn collect(kernels: &[impl AsRef<str>]) -> anyhow::Result<Summary> {
    setup::ensure(&TOOLS)?;
    let checkout = cargo::checkout()?;
    let binaries = cargo::build_ci(&checkout)?;
    let mut kernels: Vec<&str> = kernels.iter().map(AsRef::as_ref).collect();
    if kernels.contains(&EVERY) {
        kernels = ALL.to_vec();
    }
    let mut command = Command::new(binaries.join("mesh-vm"));
    for kernel in &kernels {
        command.args(["--kernel", kernel]);
    }
    command
        .arg("--dir")
        .arg(checkout.target_dir.join("vm"))
        .env("QUILT_MESH_BIN_DIR", &binaries);
    let suite = format!("Linux {}", kernels.join(" and "));
    let mut summary = Summary::default();
    summary.results.push(test::execute(&suite, command)?);
    Ok(summary)
}

/// Refuses what names no series before anything is built for it.
pub(crate) fn parse_series(text: &str) -> anyhow::Result<String> {
    if [NEWEST, EVERY].contains(&text) {
        return Ok(text.to_owned());
    }
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('.') {
        Some((major, minor)) if is_number(major) && is_number(minor) => Ok(text.to_owned()),
        _ => bail!("a series of kernels looks like 6.1 or 6.12; newest and all are words for some"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_has_two_numbers() {
        for text in ["6.12", "newest", "all"] {
            assert_eq!(parse_series(text).unwrap(), text);
        }
        for text in ["", "6", "6.", ".1", "6.1.0", "latest", "6.1 "] {
            assert!(parse_series(text).is_err(), "{text}");
        }
    }
}
