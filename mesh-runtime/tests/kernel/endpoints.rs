//! Containers become endpoints without a word, and their entries follow what they do.

use mesh_testbed::NetNs;
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
    inside(&c1, "link set eth0 down");
    become_endpoints(&daemon, &[]).await;
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
