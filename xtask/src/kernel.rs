//! `cargo xtask test --kernel`

use std::process::Command;

use anyhow::bail;

use crate::cargo;
use crate::setup::{self, Tool};
use crate::test::{self, Summary};

/// Boots these kernels one after the other, each a suite of the summary. Needs no root: the machines are emulated.
pub(crate) fn collect(kernels: &[String]) -> anyhow::Result<Summary> {
    setup::ensure(&[Tool::CCompiler, Tool::Emulator, Tool::Depmod])?;
    let checkout = cargo::checkout()?;
    let binaries = cargo::build_release(&checkout)?;
    let mut summary = Summary::default();
    for kernel in kernels {
        let mut command = Command::new(binaries.join("mesh-vm"));
        command
            .args(["--kernel", kernel, "--dir"])
            .arg(checkout.target_dir.join("vm"))
            .env("QUILT_MESH_BIN_DIR", &binaries);
        let suite = format!("Linux {kernel}");
        summary.results.push(test::execute(&suite, command)?);
    }
    Ok(summary)
}

/// Refuses what names no series before anything is built for it.
pub(crate) fn parse_series(text: &str) -> anyhow::Result<String> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('.') {
        Some((major, minor)) if is_number(major) && is_number(minor) => Ok(text.to_owned()),
        _ => bail!("a series of kernels looks like 6.1 or 6.12"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_has_two_numbers() {
        assert_eq!(parse_series("6.12").unwrap(), "6.12");
        for text in ["", "6", "6.", ".1", "6.1.0", "latest", "6.1 "] {
            assert!(parse_series(text).is_err(), "{text}");
        }
    }
}
