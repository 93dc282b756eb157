//! Generates the client by which tests ask engines what Kubernetes asks them.

use std::{env, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("tests/distributions");
    println!(
        "cargo::rerun-if-changed={}",
        dir.join("cri.proto").display()
    );
    let descriptors = protox::compile(["cri.proto"], [&dir])?;
    let client = tonic_prost_build::configure().build_server(false);
    client.compile_fds(descriptors)?;
    Ok(())
}
