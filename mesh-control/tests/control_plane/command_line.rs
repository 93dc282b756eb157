//! Options, their environment variables, and what is refused at the start.

use nix::sys::signal::Signal;

use crate::answer::{Api, node};
use crate::process::Setup;

#[test]
fn a_cluster_cidr_that_cannot_work_is_refused() {
    for (cidr, words) in [
        ("banana", "is not a CIDR"),
        ("10.42.0.0", "is not a CIDR"),
        ("10.42.0.0/33", "is not a CIDR"),
        ("10.42.7.0/16", "host bits set"),
        ("fd00::/48", "must be IPv4"),
        ("224.0.0.0/16", "unicast"),
        ("0.0.0.0/0", "too large"),
    ] {
        let setup = Setup::new().with("--cluster-cidr", cidr);
        let said = setup.start_refused();
        assert!(said.contains(words) && said.contains(cidr), "{said}");
        assert!(!setup.db_path().exists());
    }
}

#[test]
fn a_node_prefix_that_leaves_no_subnet_is_refused() {
    for prefix in ["16", "8", "0", "31", "33", "300", "x"] {
        let setup = Setup::new().with("--node-prefix", prefix);
        let said = setup.start_refused();
        assert!(
            said.contains("node-prefix") && said.contains(prefix),
            "{said}"
        );
        assert!(!setup.db_path().exists());
    }
}

#[test]
fn other_options_that_cannot_work_are_refused() {
    for (option, value) in [
        ("--bind", "nowhere"),
        ("--bind", "192.0.2.1"),
        ("--node-timeout", "0"),
        ("--node-timeout", "1ms"),
        ("--node-timeout", "soon"),
        ("--log-level", "verbose"),
        ("--shutdown-timeout", "1d"),
    ] {
        let said = Setup::new().with(option, value).start_refused();
        assert!(said.contains(option) && said.contains(value), "{said}");
    }
}

#[tokio::test]
async fn another_plan_divides_the_cluster_as_told() {
    let setup = Setup::new()
        .with("--cluster-cidr", "172.20.0.0/22")
        .with("--node-prefix", "24");
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    for n in 1..=3 {
        let answer = api
            .register(node(&format!("host-{n}"), &format!("192.0.2.{n}")))
            .await;
        assert_eq!(answer.admitted().1, format!("172.20.{n}.0/24"));
    }
    let answer = api.register(node("host-4", "192.0.2.4")).await;
    assert!(
        answer
            .problem(503, "subnets-exhausted")
            .contains("all 3 subnets of 172.20.0.0/22")
    );
}

#[tokio::test]
async fn a_plan_that_contradicts_the_leases_is_refused() {
    let mut setup = Setup::new();
    let control_plane = setup.start();
    assert!(control_plane.stop().success());
    // Nothing is leased yet: it may still change.
    setup.set("--node-prefix", "25");
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let lease = api.register(node("a", "192.0.2.1")).await.admitted();
    assert_eq!(lease.1, "10.42.0.128/25");
    assert!(control_plane.stop().success());

    let before = std::fs::read(setup.db_path()).unwrap();
    for (option, value, then) in [
        ("--node-prefix", "24", "25"),
        ("--cluster-cidr", "10.43.0.0/16", "10.42.0.0/16"),
    ] {
        setup.set(option, value);
        let said = setup.start_refused();
        assert!(
            said.contains("holds leases or reservations of 10.42.0.0/16 divided into /25"),
            "{said}"
        );
        setup.set(option, then);
    }
    assert!(std::fs::read(setup.db_path()).unwrap() == before);
    let control_plane = setup.start();
    assert_eq!(
        Api::of(&control_plane)
            .register(node("a", "192.0.2.1"))
            .await
            .admitted(),
        lease
    );
}

#[tokio::test]
async fn listen_is_another_name_of_bind() {
    let control_plane = Setup::new().with("--listen", "127.0.0.1:0").start();
    assert_eq!(Api::of(&control_plane).nodes().await.len(), 0);
}

#[tokio::test]
async fn options_are_read_from_the_environment() {
    let setup = Setup::new()
        .with_environment("QUILT_MESH_BIND", "127.0.0.1:0")
        .with_environment("QUILT_MESH_CLUSTER_CIDR", "10.99.0.0/16")
        .with_environment("QUILT_MESH_NODE_PREFIX", "20")
        .with_environment("QUILT_MESH_LOG_LEVEL", "debug");
    let control_plane = setup.start();
    let answer = Api::of(&control_plane)
        .register(node("a", "192.0.2.1"))
        .await;
    assert_eq!(answer.admitted().1, "10.99.16.0/20");
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = Setup::new().with("--bind", &address).start_refused();
    assert!(said.contains(&address) && said.contains("in use"), "{said}");
}

#[test]
fn sigterm_and_sigint_stop_it_in_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let setup = Setup::new();
        let control_plane = setup.start();
        control_plane.signal(signal);
        assert!(control_plane.stop().success());
        let left: std::collections::BTreeSet<_> = std::fs::read_dir(setup.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let kept = ["authority.key.pem", "control.db"].map(str::to_owned);
        assert_eq!(left, kept.into(), "the log is in the file");
    }
}

#[test]
fn an_idle_connection_does_not_delay_a_stop() {
    let control_plane = Setup::new().with("--shutdown-timeout", "60s").start();
    let _idle = std::net::TcpStream::connect(control_plane.address()).unwrap();
    // The test's patience is the shutdown timeout: waiting for the connection would exceed it.
    assert!(control_plane.stop().success());
}
