//! bpf-linker, which turns the compiler's LLVM bitcode into a BPF object with BTF.
//!
//! It reads bitcode with the LLVM it was made for, so it has to match the compiler. Version 0.10.3 can borrow
//! the compiler's own LLVM at run time: it compiles without any LLVM installed, in a minute. Later versions
//! need the LLVM development packages of the matching major version.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command::{cargo, is_program, run};
use crate::rustc::Rustc;
use crate::settings::Settings;
use crate::{Checkout, Error, Step};

/// The version that is installed.
pub(crate) const VERSION: &str = "0.10.3";

/// LLVM versions whose bitcode it reads, each with the features that make it do so.
const FEATURES: [(u32, &str); 3] = [
    (20, "llvm-20,rust-llvm-20"),
    (21, "llvm-21,rust-llvm-21"),
    (22, "llvm-22,rust-llvm-22"),
];

const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Whether [`VERSION`] can be made for this LLVM.
pub(crate) fn supports(llvm: u32) -> bool {
    FEATURES.iter().any(|(major, _)| *major == llvm)
}

/// The LLVM versions of [`supports`], for messages.
pub(crate) fn supported() -> String {
    FEATURES.map(|(major, _)| major.to_string()).join(", ")
}

/// The linker to call for bitcode of `rustc`.
pub(crate) fn find_or_install(
    checkout: &Checkout,
    settings: &Settings,
    rustc: &Rustc,
    progress: &dyn Fn(&Step),
) -> Result<PathBuf, Error> {
    if let Some(linker) = &settings.linker {
        return if is_program(linker) {
            Ok(linker.clone())
        } else {
            Err(Error::OverrideUnusable {
                variable: Settings::LINKER,
                path: linker.clone(),
                reason: "it is not a program".to_owned(),
            })
        };
    }
    let root = checkout
        .ebpf_dir()
        .join(format!("bpf-linker-{VERSION}-llvm{}", rustc.llvm));
    if !is_program(&root.join("bin/bpf-linker")) {
        progress(&Step::InstallsLinker {
            version: VERSION,
            llvm: rustc.llvm,
            root: root.clone(),
        });
        install(checkout, rustc.llvm, &root)?;
    }
    let library = rustc.llvm_library().ok_or_else(|| Error::NoLlvmLibrary {
        rustc: rustc.path.clone(),
        llvm: rustc.llvm,
    })?;
    wrap(&root, &library)
}

/// Compiles into a folder beside the final one, so that an interrupted installation is never taken for one.
fn install(checkout: &Checkout, llvm: u32, root: &Path) -> Result<(), Error> {
    let Some((_, features)) = FEATURES.iter().find(|(major, _)| *major == llvm) else {
        return Err(Error::LlvmUnsupported { llvm });
    };
    let unfinished = checkout.ebpf_dir().join("bpf-linker-unfinished");
    remove_dir(&unfinished)?;
    let build_dir = checkout.ebpf_dir().join("bpf-linker-build");
    let mut command = Command::new(cargo());
    crate::environment::detach_from_outer_build(&mut command);
    command
        .args([
            "install",
            "bpf-linker",
            "--locked",
            "--quiet",
            "--no-track",
            "--version",
            VERSION,
        ])
        .args(["--no-default-features", "--features", features])
        .arg("--root")
        .arg(&unfinished)
        .arg("--target-dir")
        .arg(&build_dir)
        // Linking one small object needs no optimized linker; this halves the time of the installation.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .current_dir(&checkout.root);
    if !run(&mut command, DEADLINE)?.success() {
        return Err(Error::LinkerInstall {
            command: crate::command::shown(&command),
        });
    }
    remove_dir(&build_dir)?;
    remove_dir(root)?;
    fs::rename(&unfinished, root).map_err(|source| Error::io("rename", &unfinished, source))
}

/// Writes a script that calls the linker with one LLVM in reach, and returns its path.
///
/// The linker takes the first `libLLVM*` it meets in the folders of `LD_LIBRARY_PATH`, whatever its version,
/// and a distribution's library folder holds several. So the script names a folder with exactly one.
fn wrap(root: &Path, library: &Path) -> Result<PathBuf, Error> {
    let only = root.join("llvm");
    let link = only.join("libLLVM.so");
    if fs::read_link(&link).ok().as_deref() != Some(library) {
        remove_dir(&only)?;
        fs::create_dir_all(&only).map_err(|source| Error::io("create", &only, source))?;
        symlink(library, &link).map_err(|source| Error::io("create", &link, source))?;
    }
    let script = root.join("bpf-linker");
    let text = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH={} exec {} \"$@\"\n",
        quoted(&only),
        quoted(&root.join("bin/bpf-linker"))
    );
    if fs::read_to_string(&script).ok().as_deref() != Some(text.as_str()) {
        fs::write(&script, text).map_err(|source| Error::io("write", &script, source))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
            .map_err(|source| Error::io("make executable", &script, source))?;
    }
    Ok(script)
}

/// Quoted for the shell: nothing is special between single quotes but the quote itself.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

fn remove_dir(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", dir, source))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_offers_the_linker_exactly_one_llvm_and_follows_a_change_of_compiler() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("it's a folder");
        fs::create_dir_all(root.join("bin")).unwrap();
        let program = root.join("bin/bpf-linker");
        fs::write(
            &program,
            "#!/bin/sh\nls \"$LD_LIBRARY_PATH\"; readlink \"$LD_LIBRARY_PATH\"/*\n",
        )
        .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        for library in ["/one/libLLVM.so.22.1", "/two/libLLVM.so.22.1"] {
            let script = wrap(&root, Path::new(library)).unwrap();
            let output = Command::new(script).output().unwrap();
            assert_eq!(
                String::from_utf8(output.stdout).unwrap(),
                format!("libLLVM.so\n{library}\n")
            );
        }
    }

    #[test]
    fn an_llvm_that_the_linker_cannot_read_is_refused_with_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let checkout = Checkout {
            root: dir.path().into(),
            target_dir: dir.path().join("target"),
        };
        let error = install(&checkout, 23, &dir.path().join("root"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("LLVM 23") && error.contains(Settings::LINKER),
            "{error}"
        );
    }
}
