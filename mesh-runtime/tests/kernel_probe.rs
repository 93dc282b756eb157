//! A probe on the real kernel tells the living from the dead, by what the data plane carries.
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mesh_proto::mesh::{
    PeerProbe, ProbePeersRequest, fast_path_status::State,
    mesh_dataplane_client::MeshDataplaneClient,
};
use mesh_testbed::{Daemon, DaemonOptions, Host, Signal, Testbed, wait_until, write_script};

mod pair;
use pair::{SOON, configure, introduce, peer_of, start_runtimes, sync_peers};

const SUBNET_B: &str = "10.42.2.0/24";

/// Long enough for a busy machine; a probe ends as soon as all have answered.
const PATIENT_MS: u32 = 10_000;

/// Two nodes that have told each other nothing so far: whatever arrives is the probe's.
async fn quiet_pair(options: &DaemonOptions) -> Testbed {
    let testbed = start_runtimes(options, options).await;
    introduce(&testbed, 1).await;
    testbed
}

async fn probe(host: &Host, request: ProbePeersRequest) -> Vec<PeerProbe> {
    let channel = host.runtime_channel().await.unwrap();
    let answer = MeshDataplaneClient::new(channel).probe_peers(request).await;
    answer.unwrap().into_inner().peers
}

/// Asks the first host for its only peer, whenever that was heard last.
async fn probe_b(testbed: &Testbed, timeout_ms: u32) -> PeerProbe {
    let request = ProbePeersRequest {
        timeout_ms,
        ..ProbePeersRequest::default()
    };
    let mut peers = probe(&testbed.hosts()[0], request).await;
    assert_eq!(peers.len(), 1, "{peers:?}");
    assert_eq!(peers[0].subnet, SUBNET_B);
    peers.remove(0)
}

fn without_fast_path() -> DaemonOptions {
    DaemonOptions::new().args(["--fast-path", "off"])
}

/// Takes the second host off the underlay.
async fn kill_b(testbed: &Testbed) {
    testbed.underlay_cut(&testbed.hosts()[1]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_peer_answers_the_very_first_packet() {
    let testbed = quiet_pair(&DaemonOptions::new()).await;
    let found = probe_b(&testbed, PATIENT_MS).await;
    assert!(found.alive, "{found:?}");
    assert_eq!(found.error, "");
    assert!(found.last_packet_age_ms.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_fast_path_the_answer_itself_tells() {
    let testbed = quiet_pair(&without_fast_path()).await;
    let found = probe_b(&testbed, PATIENT_MS).await;
    assert!(found.alive, "{found:?}");
    assert!(found.last_packet_age_ms.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_answers_no_ping_refuses_a_datagram() {
    let testbed = quiet_pair(&without_fast_path()).await;
    let b = testbed.hosts()[1].netns();
    b.sysctl("net/ipv4/icmp_echo_ignore_all", "1").unwrap();
    let found = probe_b(&testbed, PATIENT_MS).await;
    assert!(found.alive, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_refuses_no_datagram_answers_a_ping() {
    let testbed = quiet_pair(&without_fast_path()).await;
    let b = testbed.hosts()[1].netns();
    let taken = b.run(|| std::net::UdpSocket::bind("10.42.2.1:9")).unwrap();
    let taken = taken.unwrap();
    let found = probe_b(&testbed, PATIENT_MS).await;
    assert!(found.alive, "{found:?}");
    drop(taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_may_not_ping_asks_with_datagrams() {
    let dir = tempfile::TempDir::new().unwrap();
    let wrapper = dir.path().join("quilt-runtime");
    let text = format!(
        "exec setpriv --bounding-set=-net_raw {} \"$@\"",
        env!("CARGO_BIN_EXE_quilt-runtime")
    );
    write_script(&wrapper, &text).unwrap();
    let testbed = Testbed::builder().hosts(2).build().await.unwrap();
    let options = without_fast_path().binary(&wrapper);
    for (host, subnet) in testbed.hosts().iter().zip(["10.42.1.0/24", SUBNET_B]) {
        host.start_runtime(&options).await.unwrap();
        configure(host, subnet).await;
    }
    introduce(&testbed, 1).await;
    let found = probe_b(&testbed, PATIENT_MS).await;
    assert!(found.alive, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_whose_runtime_is_stopped_is_alive() {
    let testbed = quiet_pair(&DaemonOptions::new()).await;
    let b = &testbed.hosts()[1];
    b.kill(Daemon::Runtime, Signal::SIGSTOP).unwrap();
    let found = probe_b(&testbed, PATIENT_MS).await;
    b.kill(Daemon::Runtime, Signal::SIGCONT).unwrap();
    assert!(found.alive, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_off_the_network_is_not_alive() {
    for options in [DaemonOptions::new(), without_fast_path()] {
        let testbed = quiet_pair(&options).await;
        kill_b(&testbed).await;
        let found = probe_b(&testbed, 500).await;
        assert!(!found.alive, "{found:?}");
        assert_eq!(found.error, "", "it was asked");
        assert_eq!(found.last_packet_age_ms, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_heard_recently_is_not_asked() {
    let testbed = quiet_pair(&DaemonOptions::new()).await;
    // What is heard before the programs are loaded is not counted.
    wait_until("the fast path", SOON, || async {
        let status = testbed.hosts()[0].status().await.unwrap();
        let state = status.fast_path.unwrap_or_default().state();
        (state == State::Active)
            .then_some(())
            .ok_or(format!("{state:?}"))
    })
    .await
    .unwrap();
    assert!(probe_b(&testbed, PATIENT_MS).await.alive);
    kill_b(&testbed).await;
    let request = ProbePeersRequest {
        recent_ms: 600_000,
        timeout_ms: 500,
        ..ProbePeersRequest::default()
    };
    let found = probe(&testbed.hosts()[0], request).await;
    assert!(found[0].alive, "{found:?}");
    // Asked, it does not answer.
    let found = probe_b(&testbed, 500).await;
    assert!(!found.alive, "{found:?}");
    assert!(found.last_packet_age_ms.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_peer_is_named_and_the_others_are_asked() {
    let testbed = quiet_pair(&DaemonOptions::new()).await;
    let subnets = ["10.42.9.0/24", SUBNET_B, "here", SUBNET_B];
    let request = ProbePeersRequest {
        subnets: subnets.iter().map(ToString::to_string).collect(),
        timeout_ms: PATIENT_MS,
        ..ProbePeersRequest::default()
    };
    let found = probe(&testbed.hosts()[0], request).await;
    let named: Vec<&str> = found.iter().map(|peer| peer.subnet.as_str()).collect();
    assert_eq!(named, ["10.42.9.0/24", SUBNET_B, "here"]);
    assert_eq!(found[0].error, "10.42.9.0/24 is no peer's subnet");
    assert!(found[1].alive, "{found:?}");
    assert!(found[2].error.contains("CIDR notation"), "{found:?}");
    assert!(!found[0].alive && !found[2].alive);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_holds_up_no_other_call() {
    let testbed = quiet_pair(&DaemonOptions::new()).await;
    kill_b(&testbed).await;
    let a = &testbed.hosts()[0];
    let long = probe_b(&testbed, PATIENT_MS);
    tokio::select! {
        found = long => panic!("the other calls took longer than the probe: {found:?}"),
        () = async {
            for generation in 2..20 {
                let peers = vec![peer_of(&testbed.hosts()[1], SUBNET_B)];
                assert!(sync_peers(a, generation, peers).await.success);
            }
        } => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_out_of_bounds_is_refused_with_the_bound() {
    let testbed = quiet_pair(&without_fast_path()).await;
    let channel = testbed.hosts()[0].runtime_channel().await.unwrap();
    let request = ProbePeersRequest {
        timeout_ms: 10_001,
        ..ProbePeersRequest::default()
    };
    let refusal = MeshDataplaneClient::new(channel).probe_peers(request).await;
    let refusal = refusal.unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::InvalidArgument);
    assert!(refusal.message().contains("10000"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn suspects_are_shown_and_counted() {
    let testbed = quiet_pair(&without_fast_path()).await;
    let [a, b, ..] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    assert_eq!(a.status().await.unwrap().suspect_peers, 0);
    let mut peer = peer_of(b, SUBNET_B);
    peer.suspect = true;
    let answer = sync_peers(a, 2, vec![peer.clone()]).await;
    // It is no change: nothing in the kernel depends on it.
    assert_eq!((answer.changed, answer.unchanged), (0, 1));
    assert_eq!(a.status().await.unwrap().suspect_peers, 1);
    assert_eq!(a.peers().await.unwrap().peers[0].peer, Some(peer));
}
