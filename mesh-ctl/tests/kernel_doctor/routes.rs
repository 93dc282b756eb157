//! Routes and policy rules.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_rules_that_lead_elsewhere_are_found_and_others_are_not() {
    let testbed = mesh().await;
    let [home, away] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    let subnet = away.status().await.unwrap().subnet;
    let address = away.address();
    shows(home);
    let vpn = "ip link add wg0 type veth peer name wg1
        ip address add 198.51.100.1/24 dev wg0
        ip link set wg1 up
        ip link set wg0 up";
    run(home, vpn);

    // A route in the place of ours, as a VPN brings.
    ails(
        home,
        &format!("ip route replace {subnet} dev wg0 proto static"),
        "foreign-route",
        &format!("ip route delete {subnet}"),
        &format!("ip route delete {subnet} dev wg0"),
    )
    .await;
    let part = subnet.replace("/24", "/25");
    ails(
        home,
        &format!("ip route add {part} dev wg0"),
        "foreign-route-to-part",
        &part,
        &format!("ip route delete {part} dev wg0"),
    )
    .await;
    // What is for a container of this node.
    let container = home.add_container().await.unwrap();
    let address_of_it = container.address();
    ails(
        home,
        &format!("ip route add {address_of_it}/32 dev wg0"),
        "own-subnet-diverted",
        &format!("what is for {address_of_it} goes over wg0, and not over quilt0"),
        &format!("ip route delete {address_of_it}/32 dev wg0"),
    )
    .await;
    // A policy rule before our routes.
    ails(
        home,
        "ip route add default dev wg0 table 51820
         ip rule add priority 100 to 10.42.0.0/16 lookup 51820",
        "policy-rule",
        "lookup main",
        "ip rule delete priority 100
         ip route flush table 51820",
    )
    .await;
    // One that takes VXLAN itself.
    ails(
        home,
        &format!(
            "ip route add default dev wg0 table 51820
             ip rule add priority 100 to {address} ipproto udp dport 4789 lookup 51820"
        ),
        "underlay-diverted",
        &format!("VXLAN to {address} leaves over wg0, by a route of table 51820"),
        "ip rule delete priority 100
         ip route flush table 51820",
    )
    .await;
    // The way to the peer's host over the overlay device itself.
    ails(
        home,
        &format!("ip route add {address}/32 dev vxlan100"),
        "underlay-over-overlay",
        &format!("VXLAN to {address} leaves over vxlan100"),
        &format!("ip route delete {address}/32 dev vxlan100"),
    )
    .await;

    // With a way out, as every host has.
    run(home, &format!("ip route add default via {address}"));
    wait_for(home, &[]).await;

    // What VPNs and other container networks do without being in the way.
    is_harmless(
        home,
        "ip route add 10.0.0.0/8 dev wg0
         ip route add 10.42.0.0/16 dev wg0
         ip route add default dev wg0 table 52
         ip rule add priority 5270 lookup 52 suppress_prefixlength 32
         ip rule add priority 5280 fwmark 0x80000 lookup 52
         ip rule add priority 5290 from 198.51.100.1 lookup 52",
        "ip rule delete priority 5270
         ip rule delete priority 5280
         ip rule delete priority 5290
         ip route flush table 52
         ip route delete 10.42.0.0/16 dev wg0
         ip route delete 10.0.0.0/8 dev wg0",
    )
    .await;
}
