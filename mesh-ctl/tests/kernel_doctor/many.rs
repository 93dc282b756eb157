//! A node with many peers.

use super::*;

/// The worst of it: none of the peers answers. What it takes is printed, and not asserted.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_254_peers_of_which_none_answers_is_looked_at_as_any_other() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let home = &testbed.hosts()[0];
    home.start_runtime(&DaemonOptions::new()).await.unwrap();
    let subnet = "10.42.255.0/24".to_owned();
    QuiltRuntimeClient::new(home.runtime_channel().await.unwrap())
        .configure_node_subnet(ConfigureNodeSubnetRequest { subnet })
        .await
        .unwrap();
    let peer = |number: u8| Peer {
        subnet: format!("10.42.{number}.0/24"),
        host_address: format!("198.51.100.{number}"),
        hostname: format!("node{number}"),
        mtu: 1450,
        ..Peer::default()
    };
    let sync = SyncPeersRequest {
        generation: 1,
        host_address: home.address().to_string(),
        peers: (1..=254).map(peer).collect(),
        ..SyncPeersRequest::default()
    };
    run(home, "ip route add 198.51.100.0/24 dev eth0");
    let channel = home.runtime_channel().await.unwrap();
    let answer = MeshDataplaneClient::new(channel).sync_peers(sync).await;
    assert!(answer.unwrap().into_inner().success);
    let begin = Instant::now();
    let (text, exit) = shows(home);
    println!(
        "with 254 silent peers: {:.2} s",
        begin.elapsed().as_secs_f64()
    );
    assert!(text.contains("of 254, the others were not asked"), "{text}");
    assert!(
        text.contains("(peer-host-silent)") && text.contains("(agent-down)"),
        "{text}"
    );
    assert_eq!(exit, 1, "{text}");

    // The quick look, whose goal is a tenth of a second: it asks nobody but the daemons.
    let mut took = Vec::new();
    for _ in 0..11 {
        let begin = Instant::now();
        let output = meshctl(home, "status");
        took.push(begin.elapsed());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("of 254 reachable"), "{text}");
    }
    took.sort();
    println!(
        "meshctl status with 254 peers: {:.1} ms ({:.1} to {:.1})",
        took[5].as_secs_f64() * 1e3,
        took[0].as_secs_f64() * 1e3,
        took[10].as_secs_f64() * 1e3
    );
}
