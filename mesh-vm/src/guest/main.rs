//! The driver inside the guest: runs the checks in their order and reports each on the port
//! that the host listens on. Its own output goes to the console, with the daemons' logs when
//! something failed.

mod checks;
mod counters;
mod pair;
mod progress;
mod stacks;

use anyhow::Context as _;
use mesh_vm::Check;
use tokio::runtime::Runtime;

use crate::pair::Pair;

fn main() -> anyhow::Result<()> {
    let checks = Check::with(checks::has_fast_path()?);
    progress::begin(checks[0])?;
    Runtime::new()
        .context("cannot start the asynchronous runtime")?
        .block_on(run(checks))
}

async fn run(checks: &[Check]) -> anyhow::Result<()> {
    let mut pair = match Pair::start().await {
        Ok(pair) => pair,
        Err(error) => {
            let failure = format!("two hosts with a container each do not come up: {error:#}");
            return checks
                .iter()
                .try_for_each(|&check| progress::tell(check, Some(failure.clone())));
        }
    };
    let mut all_held = true;
    for &check in checks {
        progress::check(check);
        let failure = checks::run(check, &mut pair).await.err();
        all_held &= failure.is_none();
        progress::tell(check, failure.map(|error| format!("{error:#}")))?;
    }
    if !all_held {
        println!("{}", pair.logs());
    }
    Ok(())
}
