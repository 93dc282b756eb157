//! The client of `mesh-rest` against the process: what the one writes, the other reads.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_rest::client::{CallError, Client, Connections, Tokens};
use mesh_rest::feed_query::FeedQuery;
use mesh_rest::health;
use mesh_rest::heartbeat::{DataPlane, Heartbeat, PeerTraffic};
use mesh_rest::heartbeat_token::HeartbeatToken;
use mesh_rest::leave::Leave;
use mesh_rest::overlay::Overlay;
use mesh_rest::problem_kind::Kind;
use mesh_rest::registration::Registration;
use mesh_rest::release::{Release, ReleaseDeparted};
use mesh_rest::reservation::{Reserve, Unreserve};
use mesh_rest::status::Status;
use mesh_rest::subnets::SubnetState;

use crate::process::{ControlPlane, Setup};

const DEADLINE: Duration = Duration::from_secs(20);

fn client(control_plane: &ControlPlane) -> Client {
    let base = format!("http://{}", control_plane.address());
    let connections = Connections::new(DEADLINE, "test").unwrap();
    Client::new(connections, base.parse().unwrap(), DEADLINE)
}

fn host(number: u8) -> Registration {
    Registration {
        node_key: Some(format!("key-{number}")),
        cpu_cores: Some(4),
        overlay_mtu: Some(1450),
        ..Registration::new(
            format!("host-{number}"),
            Ipv4Addr::new(192, 0, 2, 10 + number),
        )
    }
}

#[derive(Debug, Default)]
struct Kept(Mutex<Option<HeartbeatToken>>);

impl Tokens for Kept {
    fn token(&self) -> Option<HeartbeatToken> {
        *self.0.lock().unwrap()
    }

    fn keep(&self, token: HeartbeatToken) {
        *self.0.lock().unwrap() = Some(token);
    }
}

#[tokio::test]
async fn a_node_is_told_who_there_is_and_shows_the_token_that_it_was_answered() {
    let control_plane = Setup::new().start();
    let kept = Arc::new(Kept::default());
    let node = client(&control_plane).showing(Arc::<Kept>::clone(&kept));
    let admitted = node.register(&host(1)).await.unwrap();
    assert_eq!(admitted.overlay(), Ok(Overlay::default()));
    assert_eq!(admitted.heartbeat_interval(), Some(Duration::from_secs(10)));
    let node_id = admitted.node_id.as_str();
    let mut before = kept.token();
    assert!(before.is_some());

    let list = node.nodes(None).await.unwrap();
    assert_eq!((list.full, &list.removed), (None, &None));
    let [entry] = list.nodes.as_slice() else {
        panic!("{list:?}")
    };
    assert_eq!((&*entry.node_id, &*entry.hostname), (node_id, "host-1"));
    assert_eq!(entry.host_ip(), Some(Ipv4Addr::new(192, 0, 2, 11)));
    assert_eq!(entry.subnet(), admitted.subnet.parse().ok());
    assert_eq!(entry.status(), Some(Status::Up));
    assert_eq!((entry.cpu_cores, entry.overlay_mtu), (Some(4), Some(1450)));
    assert!(entry.etag.is_some() && entry.last_heartbeat.is_some());

    let news = FeedQuery {
        since: list.revision,
        wait: Duration::ZERO,
        database: Some(list.database.to_string()),
        node: Some(node_id.to_owned()),
    };
    let changes = node.nodes(Some(&news)).await.unwrap();
    assert_eq!((changes.full, changes.removed), (Some(false), Some(vec![])));
    assert_eq!((changes.proof, changes.digest), (list.proof, list.digest));
    assert_ne!(kept.token(), std::mem::replace(&mut before, kept.token()));

    node.heartbeat(node_id, None).await.unwrap();
    assert_ne!(kept.token(), before);
    node.deregister(node_id).await.unwrap();
    let gone = node.heartbeat(node_id, None).await.unwrap_err();
    assert!(matches!(gone, CallError::UnknownNode { .. }), "{gone}");
}

#[tokio::test]
async fn operators_read_what_they_ask_for_and_why_they_are_refused() {
    let control_plane = Setup::new().start();
    let operator = client(&control_plane);
    for answer in [
        operator.health().await,
        operator.livez().await,
        operator.readyz().await,
    ] {
        assert_eq!(answer.unwrap(), health::OK);
    }
    let admitted = operator.register(&host(1)).await.unwrap();
    let subnet = admitted.subnet.parse().unwrap();
    let node_id = admitted.node_id.as_str();
    let report = Heartbeat {
        data_plane: Some(DataPlane {
            version: "1".to_owned(),
            ..DataPlane::default()
        }),
        peers: vec![PeerTraffic {
            subnet: "10.42.9.0/24".to_owned(),
            tx_packets: 7,
            ..PeerTraffic::default()
        }],
        overlay_mtu: None,
        check: None,
    };
    operator.heartbeat(node_id, Some(&report)).await.unwrap();
    let traffic = operator.traffic().await.unwrap();
    assert_eq!(
        traffic.nodes[0].data_plane.as_deref(),
        report.data_plane.as_ref()
    );
    assert_eq!(*traffic.flows[0].from, admitted.node_id);
    assert_eq!(traffic.flows[0].counters.tx_packets, 7);
    assert_eq!((traffic.flows.len(), traffic.flows_left_out), (1, 0));

    let refused = operator.release(&Release { subnet }).await.unwrap_err();
    let CallError::Status {
        status,
        problem: Some(problem),
        ..
    } = refused
    else {
        panic!("{refused}")
    };
    assert_eq!((status.as_u16(), problem.kind()), (409, Some(Kind::InUse)));
    assert_eq!(problem.holder.unwrap().node_id, admitted.node_id);

    let mut wrong = host(2);
    wrong.hostname = String::new();
    wrong.cpu_cores = Some(u32::MAX);
    let refused = operator.register(&wrong).await.unwrap_err();
    let CallError::Status {
        problem: Some(problem),
        ..
    } = refused
    else {
        panic!("{refused}")
    };
    let pointers: Vec<_> = problem
        .errors
        .iter()
        .map(|error| error.pointer.as_str())
        .collect();
    assert_eq!(pointers, ["#/hostname", "#/cpu_cores"]);

    let cidr = "10.42.128.0/17".parse().unwrap();
    let reason = Some("for later".to_owned());
    operator.reserve(&Reserve { cidr, reason }).await.unwrap();
    let subnets = operator.subnets().await.unwrap();
    assert_eq!((subnets.leased, subnets.reserved), (1, 128));
    let states: Vec<_> = subnets.subnets.iter().map(|entry| entry.state).collect();
    assert_eq!(states, [SubnetState::Leased, SubnetState::Reserved]);
    operator.unreserve(&Unreserve { cidr }).await.unwrap();

    let leave = |key: &str| Leave {
        node_key: key.to_owned(),
    };
    let refused = operator.leave(node_id, &leave("other")).await.unwrap_err();
    assert!(refused.is_refusal(), "{refused}");
    operator.leave(node_id, &leave("key-1")).await.unwrap();
    let all = ReleaseDeparted::default();
    let released = operator.release_departed(&all).await.unwrap().released;
    assert_eq!((released.len(), released[0].subnet), (1, subnet));
    assert_eq!(released[0].node_id, Some(admitted.node_id));
    let again = operator.release(&Release { subnet }).await.unwrap();
    assert_eq!((again.node_id, again.hostname), (None, None));
}
