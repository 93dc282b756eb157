use mesh_client::mesh::{CertificateStatus, ControlPlaneStatus, Endpoint, FastPathStatus, Peer};
use mesh_problems::catalog::dataplane::FOREIGN_ROUTE;

use super::*;
use crate::output::held;

fn told() -> Runtime {
    let status = GetStatusResponse {
        version: "0.1.0".to_owned(),
        subnet: "10.42.1.0/24".to_owned(),
        host_address: "192.0.2.11".to_owned(),
        underlay_interface: "eth0".to_owned(),
        overlay_mtu: 1450,
        vxlan_port: 4789,
        vni: 100,
        generation: 7,
        peers: 2,
        routes: 2,
        fast_path: Some(FastPathStatus {
            state: FastPathState::Active.into(),
            attach_mode: "tcx".to_owned(),
            ..FastPathStatus::default()
        }),
        endpoints: vec![Endpoint::default(); 3],
        drops: [("foreign_source".to_owned(), 3), ("mtu".to_owned(), 20)].into(),
        leased_addresses: 3,
        address_capacity: 253,
        grpc_address: "127.0.0.1:50051".to_owned(),
        ..GetStatusResponse::default()
    };
    let peer = |suspect, ready| PeerStatus {
        peer: Some(Peer {
            suspect,
            ..Peer::default()
        }),
        kernel_path_ready: ready,
        fast_path_ready: ready,
        ..PeerStatus::default()
    };
    let peers = ListPeersResponse {
        generation: 7,
        peers: vec![peer(false, true), peer(true, false)],
    };
    runtime(status, &peers)
}

fn told_by_agent() -> Agent {
    agent(AgentStatus {
        version: "0.1.0".to_owned(),
        hostname: "host1".to_owned(),
        node_id: "f3b1".to_owned(),
        control_plane: Some(ControlPlaneStatus {
            urls: vec!["https://192.0.2.10:8080".to_owned()],
            connected: true,
            heard_ms_ago: Some(2100),
            ..ControlPlaneStatus::default()
        }),
        certificate: Some(CertificateStatus {
            source: "mesh".to_owned(),
            not_after: 1000 + 6 * 86_400 + 7,
            ..CertificateStatus::default()
        }),
        ..AgentStatus::default()
    })
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[test]
fn a_node_that_is_fine_is_a_screen_of_few_lines() {
    let status = status(Some(told()), Some(told_by_agent()), Vec::new());
    assert!(status.healthy);
    let expected = "\
Node        10.42.1.0/24, 192.0.2.11 on eth0
Runtime     0.1.0
Fast path   active (tcx)
Overlay     MTU 1450, UDP port 4789, VNI 100
Peers       1 of 2 reachable, 1 by the fast path, 1 suspect
Containers  3; addresses: 3 of 253 leased
Dropped     20 mtu, 3 foreign_source
Agent       0.1.0, as host1
Control     https://192.0.2.10:8080, heard 2 s ago
Certificate mesh, for 6 d more
Findings    none";
    assert_eq!(plain(&text(&status, 1000)), expected);
    assert_eq!(
        plain(&brief(&status)),
        "ok: 10.42.1.0/24, 1 of 2 peers, fast path active, findings: none"
    );
}

#[test]
fn what_is_wrong_stands_below_with_what_to_do_and_no_runtime_is_wrong() {
    let finding = Finding::of(&Problem::new(&FOREIGN_ROUTE, "to 10.42.2.0/24"), 100);
    let wrong = status(Some(told()), Some(told_by_agent()), vec![finding]);
    assert!(!wrong.healthy);
    let shown = plain(&text(&wrong, 160));
    assert!(shown.contains("Findings    1 error\n\nerror  "), "{shown}");
    let down = status(None, Some(told_by_agent()), Vec::new());
    assert!(!down.healthy);
    let agent_down = status(Some(told()), None, Vec::new());
    assert!(!agent_down.healthy);
    let shown = plain(&text(&agent_down, 0));
    assert!(shown.contains("Agent       down\n"), "{shown}");
    assert_eq!(plain(&brief(&down)), "not ok: the runtime is down");
}

#[test]
fn the_document_for_machines_is_as_it_was() {
    let finding = Finding::of(&Problem::new(&FOREIGN_ROUTE, "to 10.42.2.0/24"), 100);
    let status = status(Some(told()), Some(told_by_agent()), vec![finding]);
    held::is_as_it_was("status", &status);
}
