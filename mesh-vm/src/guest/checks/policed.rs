//! What somebody else makes at a container's port with tc(8), right after the port came, as the CNI plugin `bandwidth`
//! does.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use mesh_testbed::{Container, Host, PingOptions, ping, wait_until};

use super::{attach_variable, guards::wait_known, words_on_attaching};
use crate::{
    pair::{PATIENCE, Pair},
    progress::step,
};

pub(super) async fn one_that_just_came(pair: &Pair) -> anyhow::Result<()> {
    let ([host, _], [_, remote]) = (pair.hosts(), pair.containers());
    let logged = words_on_attaching(host).len();
    step("an ingress queueing discipline at a port that just came");
    let policed = host.add_container().await?;
    let port = policed.host_interface();
    tc(host, &format!("qdisc add dev {port} handle ffff: ingress"))?;
    let sibling = host.add_container().await?;
    wait_known(host, &policed).await?;
    wait_answer(&policed, remote).await?;

    step("a filter there that drops all");
    tc(
        host,
        &format!(
            "filter add dev {port} parent ffff: protocol all prio 1 u32 match u32 0 0 action drop"
        ),
    )?;
    wait_left_to_the_kernel(host, &policed, true).await?;
    ensure!(!answers(&policed, remote).await?, "it drops nothing");
    tc(
        host,
        &format!("filter del dev {port} parent ffff: protocol all prio 1"),
    )?;
    wait_left_to_the_kernel(host, &policed, false).await?;
    wait_answer(&policed, remote).await?;

    step("programs at both ports");
    for container in [&policed, &sibling] {
        wait_program(host, container.host_interface()).await?;
    }
    let shown = tc(host, &format!("qdisc show dev {port}"))?;
    ensure!(
        shown.contains("ingress ffff:") && !shown.contains("clsact"),
        "{shown}"
    );
    let shown = tc(
        host,
        &format!("qdisc show dev {}", sibling.host_interface()),
    )?;
    let by_filters = attach_variable()? == "clsact";
    ensure!(shown.contains("clsact") == by_filters, "{shown}");
    wait_answer(&sibling, remote).await?;
    let words = words_on_attaching(host).split_off(logged);
    ensure!(words.is_empty(), "{} says {words:?}", host.name());
    Ok(())
}

pub(super) fn tc(host: &Host, words: &str) -> anyhow::Result<String> {
    let output = host
        .netns()
        .command("tc")
        .args(words.split_whitespace())
        .output()
        .context("cannot run tc")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "tc {words}: {error}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn answers(from: &Container, to: &Container) -> anyhow::Result<bool> {
    let options = PingOptions {
        count: 2,
        timeout: Duration::from_secs(5),
        ..PingOptions::default()
    };
    let report = ping(from.netns(), to.address(), options).await?;
    Ok(report.received() > 0)
}

async fn wait_answer(from: &Container, to: &Container) -> anyhow::Result<()> {
    wait_until("an answer", PATIENCE, async || {
        match answers(from, to).await {
            Ok(true) => Ok(()),
            Ok(false) => Err("none".to_owned()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await?;
    Ok(())
}

/// Waits until a container is listed as left to the kernel path because of tc, or is not.
async fn wait_left_to_the_kernel(
    host: &Host,
    container: &Container,
    left: bool,
) -> anyhow::Result<()> {
    let address = container.address().to_string();
    wait_until("what the status says of it", PATIENCE, async || {
        let status = host.status().await.map_err(|error| error.to_string())?;
        let endpoint = status.endpoints.iter().find(|it| it.address == address);
        match endpoint {
            Some(it) if it.kernel_path.contains("tc") == left => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    Ok(())
}

/// Waits until a container's port has its program.
pub(super) async fn wait_program(host: &Host, port: &str) -> anyhow::Result<()> {
    let program = format!("{port}: encapsulate");
    wait_until("a program at a port", PATIENCE, async || {
        let status = host.status().await.map_err(|error| error.to_string())?;
        let attachments = status.fast_path.unwrap_or_default().attachments;
        match attachments.contains(&program) {
            true => Ok(()),
            false => Err(format!("{attachments:?}")),
        }
    })
    .await?;
    Ok(())
}
