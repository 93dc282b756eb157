//! Containers become endpoints without a word, and their entries follow what they do.

use mesh_testbed::{NetNs, Signal};
use tokio::time::Instant;

use crate::{
    containers::container,
    host::{DEADLINE, Daemon, Host},
};

/// A host whose daemon knows its subnet.
async fn node(label: &str) -> (Host, Daemon) {
    let host = Host::new(label).await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    (host, daemon)
}

fn inside(container: &NetNs, words: &str) -> String {
    let output = container
        .command("ip")
        .args(words.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {words}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Puts a container on the bridge that has no address yet and does not say a word by itself.
async fn silent(host: &Host, name: &str) -> NetNs {
    let netns = NetNs::new(name).await.expect("these tests need root");
    host.ip(&format!(
        "link add {name} type veth peer name eth0 netns {}",
        netns.name()
    ));
    host.ip(&format!("link set {name} master quilt0 up"));
    inside(&netns, "link set eth0 arp off up");
    netns
}

/// Makes a container send something to its gateway, which makes it known.
fn speak(container: &NetNs) {
    container
        .run(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"x", "10.42.1.1:9").unwrap();
        })
        .unwrap();
}

/// The endpoints: address, MAC address, interface.
async fn endpoints(daemon: &Daemon) -> Vec<(String, String, String)> {
    let mut list: Vec<_> = daemon
        .status()
        .await
        .endpoints
        .into_iter()
        .map(|it| (it.address, it.mac, it.interface))
        .collect();
    list.sort();
    list
}

/// Waits until the endpoints are at these addresses and interfaces.
async fn become_endpoints(daemon: &Daemon, expected: &[(&str, &str)]) {
    let until = Instant::now() + DEADLINE;
    loop {
        let list = endpoints(daemon).await;
        let short: Vec<_> = list
            .iter()
            .map(|(a, _, i)| (a.as_str(), i.as_str()))
            .collect();
        if short == expected {
            return;
        }
        assert!(
            Instant::now() < until,
            "{list:?} instead of {expected:?}\n{}",
            daemon.log()
        );
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_container_that_never_sends_a_packet_is_an_endpoint_until_its_interface_goes() {
    let (host, daemon) = node("silent").await;
    let c1 = silent(&host, "c1").await;
    inside(&c1, "address add 10.42.1.9/24 dev eth0");
    become_endpoints(&daemon, &[("10.42.1.9", "c1")]).await;
    assert_eq!(
        host.ip("neighbour show dev quilt0"),
        "",
        "nothing was learnt"
    );
    host.ip("link del c1");
    assert_eq!(endpoints(&daemon).await, []);
}

#[tokio::test]
async fn endpoints_follow_the_addresses_and_the_mac_that_a_container_gives_itself() {
    let (host, daemon) = node("follow").await;
    let c1 = silent(&host, "c1").await;
    for address in [
        "10.42.1.9/24",
        "10.42.1.20/32",
        "192.0.2.77/24",
        "10.42.1.1/24",
    ] {
        inside(&c1, &format!("address add {address} dev eth0"));
    }
    become_endpoints(&daemon, &[("10.42.1.20", "c1"), ("10.42.1.9", "c1")]).await;
    inside(&c1, "address del 10.42.1.9/24 dev eth0");
    become_endpoints(&daemon, &[("10.42.1.20", "c1")]).await;
    inside(&c1, "link set eth0 address 02:00:00:00:00:77");
    host.eventually_async("the new MAC address", async || {
        endpoints(&daemon).await[0].1 == "02:00:00:00:00:77"
    })
    .await;
    // What it holds stays its own while it is down, and nobody else's.
    inside(&c1, "link set eth0 down");
    inside(&c1, "address add 10.42.1.21/32 dev eth0");
    become_endpoints(&daemon, &[("10.42.1.20", "c1"), ("10.42.1.21", "c1")]).await;
    inside(&c1, "address del 10.42.1.21/32 dev eth0");
    inside(&c1, "link set eth0 up");
    become_endpoints(&daemon, &[("10.42.1.20", "c1")]).await;
    host.ip("link set c1 nomaster");
    become_endpoints(&daemon, &[]).await;
}

#[tokio::test]
async fn a_container_made_again_with_the_same_address_is_delivered_to_at_its_new_mac() {
    let (host, daemon) = node("again").await;
    let mut macs = Vec::new();
    for _ in 0..3 {
        // The old one speaks, so that host and bridge remember it.
        let c1 = container(&host, "c1", "10.42.1.9").await;
        speak(&c1);
        host.eventually("the host learns the container", |host| {
            host.ip("neighbour show dev quilt0")
                .contains("10.42.1.9 lladdr")
        })
        .await;
        become_endpoints(&daemon, &[("10.42.1.9", "c1")]).await;
        let mac = endpoints(&daemon).await[0].1.clone();
        assert!(inside(&c1, "link show eth0").contains(&mac), "{mac}");
        assert!(!macs.contains(&mac));
        macs.push(mac);
        host.ip("link del c1");
    }
}

#[tokio::test]
async fn a_veth_pair_within_the_host_and_other_kinds_of_ports_are_no_endpoints() {
    let (host, daemon) = node("kinds").await;
    host.ip("link add pair type veth peer name pair-far");
    host.ip("tuntap add mode tap name tap0");
    for port in ["pair", "tap0"] {
        host.ip(&format!("link set {port} master quilt0 up"));
    }
    host.ip("address add 10.42.1.30/24 dev pair-far");
    host.ip("link set pair-far up");
    // A container that comes later shows that the others had their chance.
    let c1 = silent(&host, "c1").await;
    inside(&c1, "address add 10.42.1.9/24 dev eth0");
    become_endpoints(&daemon, &[("10.42.1.9", "c1")]).await;
}

#[tokio::test]
async fn without_the_right_to_hear_containers_they_are_looked_at_until_they_have_an_address() {
    // linux/capability.h
    const CAP_NET_BROADCAST: libc::c_ulong = 11;
    let host = Host::new("deaf").await;
    let daemon = host.start_without("off", &[CAP_NET_BROADCAST]).await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    assert!(
        daemon.log().contains("CAP_NET_BROADCAST"),
        "{}",
        daemon.log()
    );
    let c1 = silent(&host, "c1").await;
    inside(&c1, "address add 10.42.1.9/24 dev eth0");
    become_endpoints(&daemon, &[("10.42.1.9", "c1")]).await;
}

#[tokio::test]
async fn a_call_decides_what_is_known_of_a_container_until_it_is_taken_back() {
    let (host, daemon) = node("by-call").await;
    let c1 = silent(&host, "c1").await;
    let error = daemon.attach("c1", "", "").await.unwrap_err();
    assert!(error.contains("none of 10.42.1.0/24 yet"), "{error}");
    let endpoint = daemon
        .attach("c1", "10.42.1.9", "02:42:0A:2a:01:09")
        .await
        .unwrap();
    assert_eq!(endpoint.mac, "02:42:0a:2a:01:09");
    assert_eq!(
        (endpoint.address.as_str(), endpoint.interface.as_str()),
        ("10.42.1.9", "c1")
    );
    // Another address and another MAC inside change nothing of it.
    inside(&c1, "address add 10.42.1.20/24 dev eth0");
    become_endpoints(&daemon, &[("10.42.1.20", "c1"), ("10.42.1.9", "c1")]).await;
    let by_call = (
        "10.42.1.9".to_owned(),
        "02:42:0a:2a:01:09".to_owned(),
        "c1".to_owned(),
    );
    assert!(endpoints(&daemon).await.contains(&by_call));

    // Without address and MAC it is what is found, and follows it.
    let endpoint = daemon.attach("c1", "", "").await.unwrap();
    assert_eq!(endpoint.address, "10.42.1.20");
    assert!(
        inside(&c1, "link show eth0").contains(&endpoint.mac),
        "{endpoint:?}"
    );
    inside(&c1, "address flush dev eth0");
    become_endpoints(&daemon, &[("10.42.1.20", "c1"), ("10.42.1.9", "c1")]).await;

    daemon.detach("", "10.42.1.20").await.unwrap();
    become_endpoints(&daemon, &[("10.42.1.9", "c1")]).await;
    daemon.detach("c1", "10.42.1.9").await.unwrap();
    assert_eq!(endpoints(&daemon).await, []);
    daemon
        .detach("c1", "")
        .await
        .expect("one that is not known is success");

    // What is still there is found like any other; what is gone is forgotten for good.
    daemon.attach("c1", "10.42.1.30", "").await.unwrap();
    host.ip("link del c1");
    assert_eq!(endpoints(&daemon).await, []);
    let _c1 = silent(&host, "c1").await;
    assert_eq!(endpoints(&daemon).await, []);
}

#[tokio::test]
async fn what_a_call_may_not_say_of_a_container_is_refused_with_the_value_and_the_rule() {
    let (host, daemon) = node("refuse").await;
    let c1 = silent(&host, "c1").await;
    let c2 = silent(&host, "c2").await;
    inside(&c2, "address add 10.42.1.22/24 dev eth0");
    host.ip("link add pair type veth peer name pair-far");
    host.ip("link set pair master quilt0");
    host.ip("tuntap add mode tap name tap0");
    host.ip("link set tap0 master quilt0");
    let cases = [
        ("", "", "", "empty"),
        ("no/name", "", "", "not a name"),
        ("nothing", "10.42.1.9", "", "\"nothing\" is not there"),
        (
            "eth0",
            "10.42.1.9",
            "",
            "eth0 is no port of the bridge quilt0",
        ),
        (
            "pair",
            "10.42.1.9",
            "",
            "pair is in the host's own namespace",
        ),
        ("tap0", "10.42.1.9", "", "tap0 is a device of kind tun"),
        ("c1", "10.42.1", "", "\"10.42.1\" is not an IPv4 address"),
        (
            "c1",
            "10.42.2.9",
            "",
            "10.42.2.9 lies outside this node's subnet 10.42.1.0/24",
        ),
        (
            "c1",
            "10.42.1.1",
            "",
            "10.42.1.1 is the gateway of 10.42.1.0/24",
        ),
        ("c1", "10.42.1.255", "", "10.42.1.255 names the subnet"),
        (
            "c1",
            "10.42.1.22",
            "",
            "10.42.1.22 is held by the container behind c2",
        ),
        ("c1", "10.42.1.9", "02:42", "\"02:42\" is not six bytes"),
        (
            "c1",
            "10.42.1.9",
            "ff:ff:ff:ff:ff:ff",
            "ff:ff:ff:ff:ff:ff is not that of one interface",
        ),
    ];
    for (interface, address, mac, reason) in cases {
        let error = daemon.attach(interface, address, mac).await.unwrap_err();
        assert!(
            error.contains(reason),
            "{interface} {address} {mac}: {error}"
        );
    }
    become_endpoints(&daemon, &[("10.42.1.22", "c2")]).await;
    daemon.attach("c1", "10.42.1.9", "").await.unwrap();
    let mac = &daemon.attach("c1", "10.42.1.9", "").await.unwrap().mac;
    let error = daemon.attach("c2", "10.42.1.11", mac).await.unwrap_err();
    assert!(
        error.contains(mac.as_str()) && error.contains("c1"),
        "{error}"
    );
    let error = daemon.attach("c2", "10.42.1.9", "").await.unwrap_err();
    assert!(
        error.contains("10.42.1.9 is held by the container behind c1"),
        "{error}"
    );
    daemon
        .attach("c1", "10.42.1.9", "")
        .await
        .expect("repeating it is success");
    inside(&c1, "address add 10.42.1.50/24 dev eth0");
    inside(&c1, "address add 10.42.1.51/24 dev eth0");
    let error = daemon.attach("c1", "", "").await.unwrap_err();
    assert!(error.contains("10.42.1.50, 10.42.1.51"), "{error}");
}

#[tokio::test]
async fn a_node_without_a_subnet_has_no_endpoints() {
    let host = Host::new("early").await;
    let daemon = host.start().await;
    let error = daemon.attach("c1", "10.42.1.9", "").await.unwrap_err();
    assert!(error.contains("call ConfigureNodeSubnet first"), "{error}");
}

#[tokio::test]
async fn what_a_call_said_outlives_the_daemon() {
    let (host, mut daemon) = node("kept").await;
    let _c1 = silent(&host, "c1").await;
    let _c2 = silent(&host, "c2").await;
    for (interface, address, mac) in [
        ("c1", "10.42.1.9", "02:42:0a:2a:01:09"),
        ("c2", "10.42.1.10", "02:42:0a:2a:01:0a"),
    ] {
        daemon.attach(interface, address, mac).await.unwrap();
    }
    daemon.end(Signal::SIGTERM).await;
    host.ip("link del c2");
    let daemon = host.start().await;
    become_endpoints(&daemon, &[("10.42.1.9", "c1")]).await;
    assert_eq!(endpoints(&daemon).await[0].1, "02:42:0a:2a:01:09");
}
