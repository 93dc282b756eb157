//! `meshctl ping` as a person runs it, against real runtimes. What it prints is shown with `--nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{
    process::{Command, Output},
    time::Duration,
};

use mesh_proto::{
    mesh::{Peer, SyncPeersRequest, mesh_dataplane_client::MeshDataplaneClient},
    quilt::{ConfigureNodeSubnetRequest, quilt_runtime_client::QuiltRuntimeClient},
};
use mesh_testbed::{DaemonOptions, Host, Testbed, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// Two nodes that know each other, with their endpoints for probes on the fast path.
async fn nodes() -> Testbed {
    let testbed = Testbed::builder().hosts(2).build().await.unwrap();
    let [a, b] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    for (host, subnet) in [(a, "10.42.1.0/24"), (b, "10.42.2.0/24")] {
        host.start_runtime(&DaemonOptions::new()).await.unwrap();
        let subnet = subnet.to_owned();
        QuiltRuntimeClient::new(host.runtime_channel().await.unwrap())
            .configure_node_subnet(ConfigureNodeSubnetRequest { subnet })
            .await
            .unwrap();
    }
    for (host, peer, subnet) in [(a, b, "10.42.2.0/24"), (b, a, "10.42.1.0/24")] {
        let peer = Peer {
            subnet: subnet.to_owned(),
            host_address: peer.address().to_string(),
            hostname: peer.name().to_owned(),
            mtu: 1450,
            ..Peer::default()
        };
        let sync = SyncPeersRequest {
            generation: 1,
            host_address: host.address().to_string(),
            peers: vec![peer],
            ..SyncPeersRequest::default()
        };
        let channel = host.runtime_channel().await.unwrap();
        let answer = MeshDataplaneClient::new(channel).sync_peers(sync).await;
        assert!(answer.unwrap().into_inner().success);
    }
    for (host, address) in [(a, "10.42.1.254"), (b, "10.42.2.254")] {
        wait_until("the endpoint for probes", SOON, || async {
            let status = host.status().await.map_err(|error| error.to_string())?;
            let attached = status.fast_path.unwrap_or_default().attachments;
            let carries = attached.contains(&"quilt-probe: encapsulate".to_owned());
            match carries && status.probe_endpoint == address {
                true => Ok(()),
                false => Err(format!("{attached:?}")),
            }
        })
        .await
        .unwrap();
    }
    wait_until("the fast path", SOON, || async {
        let output = meshctl(a, "ping host2 --count 1 --json");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{error}: {output:?}"))?;
        match document["path"] == "fast" {
            true => Ok(()),
            false => Err(document.to_string()),
        }
    })
    .await
    .unwrap();
    testbed
}

fn meshctl(host: &Host, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .env_clear()
        .arg("--socket")
        .arg(host.runtime_socket())
        .args(words.split_whitespace())
        .output()
        .unwrap()
}

/// What it prints where it ends like this.
fn prints(host: &Host, words: &str, code: i32) -> String {
    let output = meshctl(host, words);
    let printed = String::from_utf8(output.stdout.clone()).unwrap();
    println!(
        "# meshctl {words}\n{printed}{}# echo $?\n{code}\n",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{words}: {output:?}");
    printed
}

fn nft(testbed: &Testbed, words: &str) {
    let mut command = testbed.switch().command("nft");
    let output = command.args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "nft {words}: {output:?}");
}

fn drop_on_the_way(testbed: &Testbed, what: &str) {
    nft(testbed, "add table bridge hypervisor");
    nft(
        testbed,
        "add chain bridge hypervisor swallows { type filter hook forward priority 0 ; }",
    );
    nft(
        testbed,
        &format!("add rule bridge hypervisor swallows {what} drop"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_answers_is_told_with_its_path_and_the_largest_packets() {
    let testbed = nodes().await;
    let a = &testbed.hosts()[0];
    let printed = prints(a, "ping host2", 0);
    let lines: Vec<&str> = printed.lines().collect();
    for line in &lines[..5] {
        assert!(
            line.starts_with("pong from host2 (10.42.2.254) by the fast path in "),
            "{printed}"
        );
    }
    assert!(
        lines[6].starts_with("5 of 5 answered (0 % lost), min "),
        "{printed}"
    );
    for words in [
        "answers by the fast path in",
        "answers by the kernel path in",
        "up to 1450 bytes pass with DF",
        "over eth0 answers in",
        "up to 1500 bytes pass with DF",
        "1450 here, 1450 there",
    ] {
        assert!(printed.contains(words), "no {words:?} in {printed}");
    }
    let document = prints(
        a,
        "ping 10.42.2.0/24 --count 2 --interval 0.1 --size 1450 --json",
        0,
    );
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["ok"], true);
    assert_eq!(document["path"], "fast");
    assert_eq!(
        (&document["sent"], &document["answered"]),
        (&2.into(), &2.into())
    );
    assert_eq!(document["kernel_path"]["path"], "kernel");
    assert_eq!(document["as_containers"]["largest_with_df"], 1450);
    assert_eq!(document["findings"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_on_which_something_vanishes_is_told_with_what_to_do() {
    let testbed = nodes().await;
    let a = &testbed.hosts()[0];
    drop_on_the_way(&testbed, "udp dport 4789 ip length > 1400");
    let printed = prints(a, "ping host2 --count 1", 1);
    assert!(
        printed.contains("error: packets of more than 1350 bytes do not get there and back"),
        "{printed}"
    );
    nft(&testbed, "delete table bridge hypervisor");
    drop_on_the_way(&testbed, "udp dport 4789");
    let printed = prints(a, "ping host2 --count 2 --timeout 0.5", 1);
    for words in [
        "nothing from host2 (10.42.2.254) within 0.5 s",
        "0 of 2 answered (100 % lost)",
        "error: the host of host2",
        "something swallows UDP port 4789",
    ] {
        assert!(printed.contains(words), "no {words:?} in {printed}");
    }
    testbed.underlay_cut(&testbed.hosts()[1]).await.unwrap();
    let printed = prints(a, "ping host2 --count 2 --timeout 0.5", 1);
    assert!(
        printed.contains("answers neither on the underlay over eth0 nor"),
        "{printed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_has_an_exit_code_of_its_own() {
    let testbed = nodes().await;
    let a = &testbed.hosts()[0];
    for (words, said) in [
        ("ping host9", "no peer is named \"host9\"; peers are host2"),
        (
            "ping 10.42.9.7",
            "10.42.9.7 is of 10.42.9.0/24, which is no peer's subnet",
        ),
        ("ping host2 --size 1451", "the overlay's MTU is 1450"),
        ("ping host2 --interval 0.05", "between 0.1 and 60"),
    ] {
        let output = meshctl(a, words);
        println!(
            "# meshctl {words}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(2), "{words}: {output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(said), "{error}");
    }
    a.kill_all();
    let output = meshctl(a, "ping host2");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
