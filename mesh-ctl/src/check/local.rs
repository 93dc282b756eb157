//! This node to all its peers.

use std::collections::HashMap;

use anyhow::Context as _;
use mesh_client::{Pinger, mesh::ProbePathRequest};
use mesh_proto::way::checked;

use super::{Options, report::Report, way::rows};
use crate::{
    Verdict,
    place::{NoRuntime, Place},
};

/// By when all have to be asked.
const DEADLINE_MS: u32 = 60_000;

/// Asks along the ways to all peers, and prints what came of it.
pub(super) async fn run(place: &Place, options: &Options) -> anyhow::Result<Verdict> {
    let mut inspector = place.runtime().await.map_err(NoRuntime::into_error)?;
    let status = inspector.status().await?;
    let mut pinger = Pinger::connect(&place.socket)
        .await
        .context("peers are asked by the runtime's socket alone")?;
    let request = ProbePathRequest {
        deadline_ms: DEADLINE_MS,
        timeout_ms: options.timeout * 1000,
        ..ProbePathRequest::default()
    };
    let results = pinger.probe_path(request).await?;
    let peers = inspector.peers().await?;
    let names: HashMap<String, String> = peers
        .peers
        .into_iter()
        .filter_map(|status| status.peer)
        .map(|peer| (peer.subnet, peer.hostname))
        .filter(|(_, hostname)| !hostname.is_empty())
        .collect();
    // The agent alone knows what the node is called.
    let told = place.agent().await.ok().map(|agent| agent.hostname);
    let this = [told.unwrap_or_default(), status.subnet]
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "this node".to_owned());
    let ways = results.iter().filter_map(checked);
    let all = ways.flat_map(|way| {
        let subnet = way.subnet.to_string();
        rows(&this, names.get(&subnet).unwrap_or(&subnet), &way)
    });
    let report = Report::of(all.collect());
    report.print(options.json, true)?;
    Ok(report.verdict())
}
