//! How long InjectRoute takes, as its caller sees it.

use std::time::Instant;

use anyhow::bail;
use mesh_proto::quilt::{
    InjectRouteRequest, RemoveRouteRequest, quilt_runtime_client::QuiltRuntimeClient,
};

use crate::{
    figure::{Figure, microseconds, quantile},
    node::{Node, PEERS, subnet},
};

/// Calls that make a new route each: it is removed again before its turn comes round.
pub(crate) async fn measure(calls: u16) -> anyhow::Result<Vec<Figure>> {
    let node = Node::start().await?;
    node.sync(1, Vec::new()).await?;
    let mut client = QuiltRuntimeClient::new(node.channel());
    let mut samples = Vec::with_capacity(calls.into());
    for number in (1..=PEERS).cycle().take(calls.into()) {
        let destination = subnet(number).to_string();
        let request = InjectRouteRequest {
            destination: destination.clone(),
            via_interface: "vxlan100".into(),
        };
        let started = Instant::now();
        let answer = client.inject_route(request).await?.into_inner();
        samples.push(microseconds(started.elapsed()));
        if !answer.success {
            bail!("InjectRoute {destination} is refused: {}", answer.error);
        }
        if samples.len() == 1 && !node.host().has_route(subnet(number)).await? {
            bail!("InjectRoute {destination} is answered with success and there is no route");
        }
        let answer = client
            .remove_route(RemoveRouteRequest { destination })
            .await?
            .into_inner();
        if !answer.success {
            bail!("RemoveRoute is refused: {}", answer.error);
        }
    }
    Ok(vec![
        quantile(
            "InjectRoute, a new route, p50",
            "µs",
            Some(300.0),
            &samples,
            50,
        )?,
        quantile("InjectRoute, a new route, p99", "µs", None, &samples, 99)?,
    ])
}
