//! What agents tell on their sockets.

use mesh_testbed::{Daemon, DaemonOptions, Host, Signal, Testbed, wait_until};

use crate::mesh::{DEADLINE, agent_options, control_options};

/// Waits until an agent finds exactly these wrong.
async fn finds(host: &Host, codes: &[&str]) {
    wait_until(&format!("findings {codes:?}"), DEADLINE, async || {
        let status = host.agent_status().await.map_err(|it| it.to_string())?;
        let found = status.findings.iter().map(|it| it.code.as_str());
        match found.eq(codes.iter().copied()) {
            true => Ok(()),
            false => Err(format!("{status:?}")),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn agents_tell_that_all_is_well_and_which_of_their_daemons_is_away() {
    let testbed = Testbed::builder().hosts(2).build().await.unwrap();
    testbed.control().start(&control_options()).await.unwrap();
    for host in testbed.hosts() {
        host.start_runtime(&DaemonOptions::new()).await.unwrap();
        host.start_agent(&agent_options()).await.unwrap();
    }
    testbed.wait_converged(DEADLINE).await.unwrap();
    for host in testbed.hosts() {
        finds(host, &[]).await;
        let status = host.agent_status().await.unwrap();
        assert_eq!(status.hostname, host.name());
        assert_eq!(status.host_address, host.address().to_string());
        assert_eq!(status.certificate.unwrap().source, "mesh");
        assert!(!status.mesh_id.is_empty() && !status.subnet.is_empty());
        assert!(status.control_plane.unwrap().connected);
        let peers = status.peers.unwrap();
        assert_eq!((peers.confirmed, peers.in_doubt), (1, 0));
    }
    let host = &testbed.hosts()[0];
    host.stop(Daemon::Runtime, Signal::SIGKILL, DEADLINE)
        .await
        .unwrap();
    finds(host, &["runtime-lost"]).await;
    host.start_runtime(&DaemonOptions::new()).await.unwrap();
    finds(host, &[]).await;
    let control = testbed.control();
    control.stop(Signal::SIGKILL, DEADLINE).await.unwrap();
    finds(host, &["heartbeat-failed", "no-node-list"]).await;
    control.start(&control_options()).await.unwrap();
    finds(host, &[]).await;
}
