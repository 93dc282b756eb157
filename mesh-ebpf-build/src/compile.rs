//! The nested cargo.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command::{cargo, is_program, run, shown};
use crate::toolchain::Toolchain;
use crate::{Architecture, Checkout, Error, Step};

const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Runs cargo, which compiles what changed, and returns the path of the linked object.
pub(crate) fn compile(
    checkout: &Checkout,
    architecture: &Architecture,
    toolchain: &Toolchain,
    linker: &Path,
    progress: &dyn Fn(&Step),
) -> Result<PathBuf, Error> {
    let rustc = &toolchain.rustc;
    progress(&Step::Compiles {
        rustc: rustc.path.clone(),
        release: rustc.release.to_string(),
    });
    let target = architecture.bpf_target();
    let target_dir = checkout.ebpf_dir();
    let mut command = Command::new(cargo_for(toolchain));
    crate::environment::detach_from_outer_build(&mut command);
    command
        .args([
            "build",
            "--package",
            "mesh-ebpf",
            "--target",
            target,
            "--profile",
            "ebpf",
            "--locked",
        ])
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(&checkout.root)
        .env("RUSTC", &rustc.path)
        // aya-ebpf and build-std use unstable features; this allows them in a compiler of the stable channel.
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            encoded_rustflags(checkout, architecture, toolchain),
        )
        // Not among the flags: they are part of every symbol's hash, and this path is the checkout's own.
        .env(
            format!(
                "CARGO_TARGET_{}_LINKER",
                target.to_uppercase().replace('-', "_")
            ),
            linker,
        );
    if toolchain.build_core {
        command.arg("-Zbuild-std=core");
    }
    if !run(&mut command, DEADLINE)?.success() {
        return Err(Error::Compile {
            command: shown(&command),
            rustc: rustc.path.clone(),
        });
    }
    Ok(target_dir.join(target).join("ebpf/mesh-ebpf"))
}

/// The flags of the object, joined as `CARGO_ENCODED_RUSTFLAGS` wants them, so that paths may hold spaces.
fn encoded_rustflags(
    checkout: &Checkout,
    architecture: &Architecture,
    toolchain: &Toolchain,
) -> OsString {
    let mut flags: Vec<OsString> = vec![
        format!("--cfg=bpf_target_arch=\"{}\"", architecture.name).into(),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
    ];
    // The last match wins, so the folders go from the widest to the narrowest.
    flags.extend(cargo_home().map(|home| remap(&home, "/cargo")));
    flags.push(remap(
        &toolchain.rustc.sysroot.join("lib/rustlib/src/rust"),
        "/rust",
    ));
    flags.push(remap(&checkout.target_dir, "/quilt-mesh/target"));
    flags.push(remap(&checkout.root, "/quilt-mesh"));
    flags.join(std::ffi::OsStr::new("\u{1f}"))
}

fn remap(from: &Path, to: &str) -> OsString {
    let mut flag = OsString::from("--remap-path-prefix=");
    flag.push(from);
    flag.push("=");
    flag.push(to);
    flag
}

fn cargo_home() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))
}

/// build-std reads the standard library's own workspace, which only the cargo of the same toolchain is sure
/// to understand.
fn cargo_for(toolchain: &Toolchain) -> PathBuf {
    let own = toolchain.rustc.sysroot.join("bin/cargo");
    if toolchain.build_core && is_program(&own) {
        own
    } else {
        cargo()
    }
}
