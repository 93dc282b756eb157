//! Generates the gRPC code with protox, so that no protoc has to be installed.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", proto.display());

    // What a runtime serves, and tells of by reflection.
    let runtime = [
        "quilt.proto",
        "mesh.proto",
        "inspect.proto",
        "maintenance.proto",
    ];
    let descriptors = protox::compile(runtime, [&proto])?;
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let all = runtime.into_iter().chain(["agent.proto"]);
    tonic_prost_build::configure().compile_fds(protox::compile(all, [&proto])?)?;
    Ok(())
}
