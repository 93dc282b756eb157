//! `cargo xtask build-ebpf`

use std::process::ExitCode;

use mesh_ebpf_build::{Architecture, EbpfObject, Settings};
use serde_json::json;

/// Build the eBPF object, and print what is in it
///
/// Finds a compiler with a core library for BPF: the one named in QUILT_MESH_EBPF_RUSTC; a rustup toolchain with
/// the component rust-src; any compiler on the machine that has the library. As root on a machine with apt it
/// installs one when there is none. bpf-linker goes under target/.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Print one JSON object instead of text
    #[arg(long, env = "QUILT_MESH_JSON")]
    json: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let object = build()?;
    println!(
        "{}",
        if options.json {
            as_json(&object)
        } else {
            as_text(&object)
        }
    );
    Ok(ExitCode::SUCCESS)
}

/// Builds with progress on standard error.
pub(crate) fn build() -> anyhow::Result<EbpfObject> {
    let checkout = crate::cargo::checkout()?;
    let say = |step: &mesh_ebpf_build::Step| eprintln!("{step}");
    Ok(mesh_ebpf_build::build(
        &checkout,
        &Architecture::host(),
        &Settings::from_environment(),
        &say,
    )?)
}

fn as_text(object: &EbpfObject) -> String {
    let programs = object.contents.programs.iter();
    let programs: Vec<_> = programs
        .map(|program| format!("{} ({})", program.name, program.section))
        .collect();
    format!(
        "object    {}\nsize      {} bytes\nsha256    {}\nprograms  {}\nmaps      {}",
        object.path.display(),
        object.size,
        object.sha256,
        programs.join(", "),
        object.contents.maps.join(", ")
    )
}

fn as_json(object: &EbpfObject) -> String {
    let programs = object.contents.programs.iter();
    let programs: Vec<_> = programs
        .map(|program| json!({"name": program.name, "section": program.section}))
        .collect();
    json!({
        "path": object.path,
        "size": object.size,
        "sha256": object.sha256.to_string(),
        "programs": programs,
        "maps": object.contents.maps,
    })
    .to_string()
}
