//! The driver inside the guest: runs the checks in their order and reports each on the port
//! that the host listens on. Its own output goes to the console, with the daemons' logs when
//! something failed.

mod checks;
mod counters;
mod pair;

use std::{fs, io::Write as _};

use anyhow::Context as _;
use mesh_vm::{Check, GUEST_PORT, Outcome};
use tokio::runtime::Runtime;

use crate::pair::Pair;

fn main() -> anyhow::Result<()> {
    let mut port = fs::OpenOptions::new()
        .write(true)
        .open(GUEST_PORT)
        .with_context(|| format!("cannot open {GUEST_PORT}, which only a guest has"))?;
    Runtime::new()
        .context("cannot start the asynchronous runtime")?
        .block_on(run(&mut port))
}

async fn run(port: &mut fs::File) -> anyhow::Result<()> {
    let mut tell = |check: Check, result: &anyhow::Result<()>| {
        let failure = result.as_ref().err().map(|error| format!("{error:#}"));
        println!("{} {}", check.name(), failure.as_deref().unwrap_or("ok"));
        let line = Outcome { check, failure }.to_line()?;
        writeln!(port, "{line}").with_context(|| format!("cannot write to {GUEST_PORT}"))
    };
    let mut pair = match Pair::start().await {
        Ok(pair) => pair,
        Err(error) => {
            let result = Err(error.context("two hosts with a container each do not come up"));
            return Check::ALL
                .into_iter()
                .try_for_each(|check| tell(check, &result));
        }
    };
    let mut all_held = true;
    for check in Check::ALL {
        let result = checks::run(check, &mut pair).await;
        tell(check, &result)?;
        all_held &= result.is_ok();
    }
    if !all_held {
        println!("{}", pair.logs());
    }
    Ok(())
}
