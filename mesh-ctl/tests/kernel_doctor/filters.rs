//! Packet filters and traffic control.

use super::*;

/// What firewalld 1.3 writes for a host whose zone lets VXLAN in, as far as IPv4 is concerned.
const FIREWALLD: &str = r#"table inet firewalld {
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_INPUT_ZONES
        reject with icmpx type admin-prohibited
    }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_FORWARD_ZONES
        reject with icmpx type admin-prohibited
    }
    chain filter_INPUT_ZONES {
        iifname "eth0" goto filter_IN_public
        goto filter_IN_public
    }
    chain filter_FORWARD_ZONES {
        iifname "eth0" goto filter_FWD_public
        goto filter_FWD_public
    }
    chain filter_IN_public {
        jump filter_IN_public_allow
        meta l4proto { icmp, ipv6-icmp } accept
    }
    chain filter_IN_public_allow {
        tcp dport 22 ct state { new, untracked } accept
        udp dport 4789 ct state { new, untracked } accept
    }
    chain filter_FWD_public {
        oifname "eth0" meta mark 0x1 accept
    }
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_traffic_control_in_the_way_are_found_and_dockers_own_are_not() {
    let testbed = mesh().await;
    let [home, away] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    // A way out, as every host has.
    run(
        home,
        &format!("ip route add default via {}", away.address()),
    );
    ails(
        home,
        "iptables -P FORWARD DROP",
        "filter-would-drop",
        "chain FORWARD of table ip filter would drop",
        "iptables -P FORWARD ACCEPT",
    )
    .await;
    // Docker's, with what is to be said beside it, and its raw rules; a firewall of the host itself that knows VXLAN.
    is_harmless(
        home,
        "iptables -P FORWARD DROP
         iptables -N DOCKER-USER
         iptables -A FORWARD -j DOCKER-USER
         iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
         iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
         iptables -t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
         iptables -A DOCKER-USER -i quilt0 -j ACCEPT
         iptables -A DOCKER-USER -o quilt0 -j ACCEPT
         iptables -P INPUT DROP
         iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
         iptables -A INPUT -p icmp -j ACCEPT
         iptables -A INPUT -i lo -j ACCEPT
         iptables -A INPUT -p udp --dport 4789 -j ACCEPT",
        "nft delete table ip filter
         nft delete table ip raw",
    )
    .await;
    // firewalld's, in which our devices are in no zone that forwards.
    let rules = tempfile::NamedTempFile::new().unwrap();
    fs::write(rules.path(), FIREWALLD).unwrap();
    ails(
        home,
        &format!("nft -f {}", rules.path().display()),
        "filter-would-drop",
        "chain filter_FORWARD of table inet firewalld would drop",
        "nft delete table inet firewalld",
    )
    .await;
    // One that drops VXLAN: the runtime sees it by the packets that do not come through.
    ails(
        home,
        "iptables -A INPUT -p udp --dport 4789 -j DROP",
        "foreign-firewall",
        "open its port",
        "nft delete table ip filter",
    )
    .await;

    // Filters that take packets where they come in.
    let ingress = |interface: &str| {
        format!("tc qdisc add dev {interface} clsact\ntc filter add dev {interface} ingress")
    };
    let mend = |interface: &str| format!("tc qdisc delete dev {interface} clsact");
    ails(
        home,
        &format!(
            "{} protocol ip u32 match ip protocol 17 0xff match ip dport 4789 0xffff action mirred egress redirect dev lo",
            ingress("eth0")
        ),
        "packets-taken",
        "a filter of tc on eth0 leads to lo VXLAN where it comes in",
        &mend("eth0"),
    )
    .await;
    ails(
        home,
        &format!(
            "{} protocol ip u32 match u32 0 0 action mirred egress redirect dev lo",
            ingress("vxlan100")
        ),
        "packets-taken",
        "a filter of tc on vxlan100 leads to lo what peers' containers exchange with ours",
        &mend("vxlan100"),
    )
    .await;
    is_harmless(
        home,
        &format!(
            "{} protocol ip u32 match ip protocol 17 0xff match ip dport 53 0xffff action mirred egress redirect dev lo
             tc qdisc add dev eth0 root tbf rate 1gbit burst 1mb latency 50ms",
            ingress("eth0")
        ),
        "tc qdisc delete dev eth0 root
         tc qdisc delete dev eth0 clsact",
    )
    .await;
}
