//! Nodes on a kernel that loads none of the programs: the kernel path carries and the packet filter
//! guards.

use std::fs;

use anyhow::{Context as _, ensure};
use mesh_proto::mesh::{GetStatusResponse, fast_path_status::State};
use mesh_testbed::wait_until;

use super::{ping_slow, strangers, transfer_both_ways, wait_pings};
use crate::{
    pair::{PATIENCE, Pair},
    progress::step,
};

/// From which kernel on there is a fast path, as a node says it.
const OLDEST: &str = "older than 5.13";

/// Waits until either node has given up the fast path, and packets go between the containers.
pub(super) async fn wait(pair: &Pair) -> anyhow::Result<()> {
    wait_pings(pair).await?;
    step("a fast path that is unavailable");
    for host in pair.hosts() {
        wait_until("a fast path that is unavailable", PATIENCE, async || {
            let status = host.status().await.map_err(|error| error.to_string())?;
            let fast_path = status.fast_path.unwrap_or_default();
            match fast_path.state() {
                State::Unavailable => Ok(()),
                _ => Err(format!("{} shows {fast_path:?}", host.name())),
            }
        })
        .await?;
    }
    Ok(())
}

/// The reason names the kernel that runs and the one that it takes, in the status and as a problem.
pub(super) async fn says_why(pair: &Pair) -> anyhow::Result<()> {
    wait(pair).await?;
    let release = release()?;
    for host in pair.hosts() {
        let status = host.status().await?;
        let fast_path = status.fast_path.clone().unwrap_or_default();
        let reason = &fast_path.reason;
        println!("{} says: {reason}", host.name());
        ensure!(
            reason.contains(OLDEST) && reason.contains(&release),
            "{}'s reason names neither {release} nor what it takes: {reason}",
            host.name()
        );
        ensure!(fast_path.attachments.is_empty(), "{fast_path:?}");
        ensure!(
            status.problems().iter().any(|it| is_of_the_kernel(it)),
            "{} has no problem with it: {:?}",
            host.name(),
            status.problems()
        );
    }
    Ok(())
}

/// What `uname -r` says.
pub(super) fn release() -> anyhow::Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    let release = release.context("cannot read the kernel's release")?;
    Ok(release.trim().to_owned())
}

/// Problems beside that which the kernel's age is.
pub(super) fn others(status: GetStatusResponse) -> Vec<String> {
    let problems = status.problems().into_iter();
    problems.filter(|it| !is_of_the_kernel(it)).collect()
}

fn is_of_the_kernel(problem: &str) -> bool {
    problem.contains(OLDEST)
}

pub(super) async fn carries(pair: &Pair) -> anyhow::Result<()> {
    ping_slow(pair).await?;
    transfer_both_ways(pair).await
}

/// A stranger's VXLAN, while the runtime runs and after it was killed.
pub(super) async fn strangers(pair: &mut Pair) -> anyhow::Result<()> {
    strangers::hold(pair, &[&[]], &[]).await?;
    step("a killed runtime");
    pair.kill_first().await?;
    strangers::hold(pair, &[&[]], &[]).await?;
    pair.start_first_again().await?;
    wait(pair).await
}
