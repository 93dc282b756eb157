//! Builds the eBPF object, so that the runtime carries it: `cargo build` is all that a checkout needs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mesh_ebpf_build::{Architecture, Checkout, Settings};

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let settings = Settings::from_environment();
    for name in Settings::VARIABLES {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let object = if let Some(prebuilt) = &settings.object {
        println!("cargo::rerun-if-changed={}", prebuilt.display());
        // A packager's object does without the rest of the checkout.
        mesh_ebpf_build::read(prebuilt)
    } else {
        let checkout =
            Checkout::containing(&manifest_dir, &out_dir).map_err(|error| error.to_string())?;
        for input in checkout.inputs() {
            println!("cargo::rerun-if-changed={}", input.display());
        }
        mesh_ebpf_build::build(
            &checkout,
            &Architecture::of_build_script(),
            &settings,
            &|step| {
                if step.installs() {
                    println!("cargo::warning={step}");
                } else {
                    eprintln!("{step}");
                }
            },
        )
    };
    let object = object.map_err(|error| error.to_string())?;
    embed(&object.path, &out_dir)
}

/// Gives the crate a copy that only this build script writes. With the original, a build of the object by
/// someone else (xtask, another profile) between this script and the compiler would go unnoticed.
fn embed(object: &Path, out_dir: &Path) -> Result<(), String> {
    let embedded = out_dir.join("mesh-ebpf.o");
    std::fs::copy(object, &embedded).map_err(|error| {
        format!(
            "cannot copy {} to {}: {error}",
            object.display(),
            embedded.display()
        )
    })?;
    println!(
        "cargo::rustc-env=QUILT_MESH_EBPF_OBJECT_PATH={}",
        embedded.display()
    );
    Ok(())
}

fn variable(name: &str) -> Result<std::ffi::OsString, String> {
    std::env::var_os(name)
        .ok_or_else(|| format!("{name} is not set: cargo runs this script, nobody else"))
}
