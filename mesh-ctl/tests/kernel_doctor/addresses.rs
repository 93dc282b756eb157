//! Addresses, forwarding, IPsec.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn addresses_forwarding_and_ipsec_in_the_way_are_found() {
    let testbed = mesh().await;
    let [home, away] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    let subnet = away.status().await.unwrap().subnet;
    let (own, address) = (home.address(), away.address());
    ails(
        home,
        &format!("ip address add {own}/32 dev vxlan100"),
        "host-address-on-overlay",
        &format!("ip address delete {own}/32 dev vxlan100"),
        &format!("ip address delete {own}/32 dev vxlan100"),
    )
    .await;
    ails(
        home,
        "ip link add other0 type bridge
         ip link set other0 up
         ip address add 10.42.77.1/24 dev other0",
        "foreign-address",
        "10.42.77.1/24",
        "ip link delete other0",
    )
    .await;
    ails(
        home,
        "sysctl -qw net.ipv4.conf.eth0.forwarding=0",
        "forwarding-off",
        "sysctl -w net.ipv4.conf.eth0.forwarding=1",
        "sysctl -qw net.ipv4.conf.eth0.forwarding=1",
    )
    .await;
    // For the whole host: the runtime switches it on again.
    run(home, "sysctl -qw net.ipv4.ip_forward=0");
    wait_for(home, &[]).await;
    // A VPN between the hosts, and one between the containers.
    let policy = |direction: &str, from: &str, to: &str| {
        format!(
            "ip xfrm policy add src {from} dst {to} dir {direction} tmpl src {own} dst {address} proto esp mode tunnel"
        )
    };
    ails(
        home,
        &policy("out", &own.to_string(), &address.to_string()),
        "ipsec-policy",
        &address.to_string(),
        "ip xfrm policy flush",
    )
    .await;
    ails(
        home,
        &policy("out", "10.42.0.0/16", &subnet),
        "ipsec-overlay",
        &subnet,
        "ip xfrm policy flush",
    )
    .await;
    is_harmless(
        home,
        &policy("out", &own.to_string(), "198.51.100.0/24"),
        "ip xfrm policy flush",
    )
    .await;
}
