//! Faults that need what not every machine's kernel has, done by `mesh-faults` itself: to a
//! whole mesh of its own, with control plane and agents.

use std::{fs, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use crate::progress;

/// How much slower than a machine its emulation is, beside another one.
const SLOWER: &str = "20";
/// How long the mesh may take to come up and the fault to happen.
const PATIENCE: Duration = Duration::from_secs(360);
/// What mesh-faults prints.
const OUTPUT: &str = "/tmp/mesh-faults.log";

/// Does the fault of this name. One that mesh-faults leaves out has not been done.
pub(super) async fn one(name: &str) -> anyhow::Result<()> {
    progress::step(format!("mesh-faults --only {name}"));
    let output = fs::File::create(OUTPUT).context("cannot create the output's file")?;
    let mut faults = Command::new("mesh-faults")
        .args(["faults", "--only", name, "--slower", SLOWER])
        .stdin(Stdio::null())
        .stderr(
            output
                .try_clone()
                .context("cannot share the output's file")?,
        )
        .stdout(output)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start mesh-faults")?;
    let ended = tokio::time::timeout(PATIENCE, faults.wait()).await;
    let said = fs::read_to_string(OUTPUT).context("cannot read what mesh-faults says")?;
    println!("{said}");
    let status = ended
        .with_context(|| format!("mesh-faults does not end in {} s", PATIENCE.as_secs()))?
        .context("cannot wait for mesh-faults")?;
    ensure!(
        status.success() && said.contains(&format!("test {name} ... ok")),
        "mesh-faults ends with {status}: {said}"
    );
    Ok(())
}
