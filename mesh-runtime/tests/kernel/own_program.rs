//! A port gets its own program a moment after its container was attached.

use std::fs;

use mesh_testbed::Signal;

use crate::{attach, host::Host};

/// Whether the program of a port is pinned.
fn has_program(host: &Host, port: &str) -> bool {
    let link: serde_json::Value =
        serde_json::from_str(&host.ip(&format!("-json link show {port}"))).unwrap();
    let end = format!("-{}-encapsulate", link[0]["ifindex"]);
    let pins = fs::read_dir(host.bpffs().join("quilt-mesh/links")).unwrap();
    let mut names = pins.map(|pin| pin.unwrap().file_name().into_string().unwrap());
    names.any(|name| name.ends_with(&end))
}

#[tokio::test]
async fn a_port_gets_its_program_a_moment_after_its_container_is_attached() {
    let (host, daemon, mut client) = attach::node("own-program").await;
    let (_web, attached) = attach::attach(&mut client, "web").await;
    let port = attached.endpoint.interface;
    host.eventually("the program", |host| has_program(host, &port))
        .await;
    let status = daemon.status().await.fast_path.unwrap();
    assert_eq!(status.attach_mode, "tcx", "{status:?}");
}

/// Nobody knows for how long it has to do without the daemon.
#[tokio::test]
async fn a_daemon_that_ends_leaves_no_port_without_its_program() {
    let (host, mut daemon, mut client) = attach::node("last-program").await;
    // Once programs and rules stand.
    daemon.status().await;
    let (_web, attached) = attach::attach(&mut client, "web").await;
    let (_db, other) = attach::attach(&mut client, "db").await;
    daemon.end(Signal::SIGTERM).await;
    for port in [attached, other].map(|it| it.endpoint.interface) {
        assert!(has_program(&host, &port), "{port}: {}", daemon.log());
    }
}
