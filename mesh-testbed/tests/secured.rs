//! A mesh whose nodes have no credentials is secured under traffic: the real daemons, over a real network.
#![allow(
    clippy::unwrap_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::time::Duration;

use mesh_testbed::{
    Container, Daemon, DaemonOptions, Host, Signal, Testbed, UdpFlow, UdpFlowOptions, wait_until,
};

const DEADLINE: Duration = Duration::from_secs(60);

fn flows(containers: &[Container]) -> Vec<UdpFlow> {
    let options = UdpFlowOptions {
        rate: 200,
        max_packets: u64::MAX,
        ..UdpFlowOptions::default()
    };
    let mut flows = Vec::new();
    for from in containers {
        for to in containers.iter().filter(|to| to.name() != from.name()) {
            let flow = UdpFlow::start(from.netns(), to.netns(), to.address(), options);
            flows.push(flow.unwrap());
        }
    }
    flows
}

/// Starts a host's agent with these options in the place of the one that runs, and waits until it has registered.
async fn replace(host: &Host, options: &DaemonOptions) {
    host.stop(Daemon::Agent, Signal::SIGTERM, DEADLINE)
        .await
        .unwrap();
    let before = std::fs::read_to_string(host.log(Daemon::Agent)).unwrap();
    host.spawn(Daemon::Agent, options).unwrap();
    registered(host, before.len()).await;
}

/// Waits until a host's agent has logged that it registered, and told the runtime, after so many bytes of its log.
async fn registered(host: &Host, after: usize) {
    wait_until("its registration", DEADLINE, async || {
        let log = std::fs::read_to_string(host.log(Daemon::Agent)).unwrap();
        let new = log.get(after..).unwrap_or_default();
        match new.contains("registered") && new.contains("runtime configured") {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_mesh_from_before_is_secured_node_by_node_without_losing_a_packet() {
    let testbed = Testbed::builder().hosts(3).build().await.unwrap();
    testbed.start().await.unwrap();
    testbed.wait_converged(DEADLINE).await.unwrap();
    let control = testbed.control();
    control.told(&["secure", "--undo"]).unwrap();
    let mut containers = Vec::new();
    for host in testbed.hosts() {
        containers.push(host.add_container().await.unwrap());
    }
    let flows = flows(&containers);
    wait_until("traffic between all", DEADLINE, async || {
        let arrived: Vec<u64> = flows.iter().map(UdpFlow::arrived).collect();
        match arrived.iter().all(|count| *count > 100) {
            true => Ok(()),
            false => Err(format!("{arrived:?}")),
        }
    })
    .await
    .unwrap();
    let subnets = |nodes: Vec<mesh_rest::node::NodeEntry<'static>>| {
        let mut subnets: Vec<_> = nodes
            .iter()
            .map(|node| (node.hostname.to_string(), node.subnet.to_string()))
            .collect();
        subnets.sort();
        subnets
    };
    let before = subnets(control.nodes().await.unwrap());

    control.told(&["secure"]).unwrap();
    for host in testbed.hosts() {
        let said = control.told(&["secure", "--finish"]).unwrap_err();
        assert!(said.to_string().contains(host.name()), "{said}");
        let token = control.told(&["token", "create"]).unwrap();
        let options = DaemonOptions::new()
            .over_tls()
            .env("QUILT_MESH_JOIN", token.trim());
        replace(host, &options).await;
    }
    assert_eq!(subnets(control.nodes().await.unwrap()), before);
    let said = control.told(&["secure", "--finish"]).unwrap();
    assert!(said.contains("secured"), "{said}");
    // And from then on nothing but TLS.
    control.stop(Signal::SIGTERM, DEADLINE).await.unwrap();
    control.spawn(&DaemonOptions::new().over_tls()).unwrap();
    let refused = wait_until(
        "a control plane that refuses",
        DEADLINE,
        async || match control.nodes().await {
            Err(error) if error.to_string().contains("426") => Ok(error),
            other => Err(format!("{other:?}")),
        },
    );
    refused.await.unwrap();
    // Their certificates are enough: without the token, each comes back.
    for host in testbed.hosts() {
        replace(host, &DaemonOptions::new().over_tls()).await;
    }
    for flow in flows {
        let report = flow.stop().await.unwrap();
        // Those that were waited for at the beginning, and what followed.
        assert!(report.sent > 100, "{report:?}");
        assert_eq!(report.sent, report.received, "{report:?}");
    }
}
