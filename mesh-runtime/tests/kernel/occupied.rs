//! What somebody else holds already: named, left alone, and taken once it is free.

use std::net::{TcpListener, UdpSocket};

use crate::host::Host;

#[tokio::test]
async fn a_second_runtime_in_one_namespace_is_refused_naming_the_first() {
    let host = Host::new("second").await;
    let daemon = host.start().await;
    for args in [&["--grpc-addr", "127.0.0.1:50052"][..], &["--cleanup"][..]] {
        let (status, text) = host.run_daemon(args).await;
        assert!(!status.success());
        let pid = format!("(pid {})", daemon.child.id());
        assert!(text.contains(&pid), "{text}");
    }
    daemon.configure("10.42.1.0/24").await.unwrap();
    // In another namespace there is room.
    let other = Host::new("third").await;
    let _second = other.start().await;
}

#[tokio::test]
async fn a_grpc_address_in_use_is_refused_before_anything_is_changed() {
    let host = Host::new("address-in-use").await;
    let listener = host
        .netns
        .run(|| TcpListener::bind("127.0.0.1:50051").unwrap())
        .unwrap();
    let before = host.state();
    let (status, text) = host.run_daemon(&[]).await;
    assert!(!status.success());
    assert!(
        text.contains("127.0.0.1:50051") && text.contains("--grpc-addr"),
        "{text}"
    );
    assert_eq!(host.state(), before);
    drop(listener);
}

#[tokio::test]
async fn a_udp_socket_on_the_port_is_named_and_waited_for() {
    let host = Host::new("port-udp").await;
    let socket = host
        .netns
        .run(|| UdpSocket::bind("0.0.0.0:4789").unwrap())
        .unwrap();
    let daemon = host.start().await;
    let error = daemon.configure("10.42.1.0/24").await.unwrap_err();
    let holder = format!("(pid {})", std::process::id());
    assert!(error.contains("4789") && error.contains(&holder), "{error}");
    let error = daemon.inject("10.42.2.0/24", "vxlan100").await.unwrap_err();
    assert!(error.contains("4789"), "{error}");
    assert!(
        daemon
            .status()
            .await
            .problems()
            .iter()
            .any(|it| it.contains("4789"))
    );

    drop(socket);
    host.eventually("the route", |host| host.own_routes().len() == 1)
        .await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    assert!(daemon.status().await.problems().is_empty());
}

#[tokio::test]
async fn a_foreign_vxlan_device_on_the_port_is_named_and_left_alone() {
    let host = Host::new("port-vxlan").await;
    host.ip("link add other type vxlan id 100 dstport 4789 local 192.0.2.1 nolearning");
    host.ip("link set other up");
    let before = host.ip("-details link show other");
    let daemon = host.start().await;
    let error = daemon.configure("10.42.1.0/24").await.unwrap_err();
    assert!(error.contains("4789") && error.contains("other"), "{error}");
    assert_eq!(host.ip("-details link show other"), before);
    host.ip("link del other");
    host.eventually("vxlan100", |host| host.ip("link show").contains("vxlan100"))
        .await;
    daemon.configure("10.42.1.0/24").await.unwrap();
}

#[tokio::test]
async fn another_device_by_one_of_our_names_is_refused_and_left_alone() {
    let host = Host::new("names").await;
    host.ip("link add vxlan100 type bridge");
    host.ip("link add quilt0 type veth peer name q");
    let daemon = host.start().await;
    let error = daemon.configure("10.42.1.0/24").await.unwrap_err();
    assert!(error.contains("vxlan100 exists and is a bridge"), "{error}");
    assert!(
        error.contains("quilt0 exists and is a veth device"),
        "{error}"
    );
    assert!(host.ip("-details link show vxlan100").contains("bridge"));
}
