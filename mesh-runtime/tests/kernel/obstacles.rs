//! What others do beside the mesh that breaks it in silence: it is put right where it is ours, and named with its cure
//! where it is not.

use crate::host::{Daemon, Host};

async fn node(label: &str, fast_path: &str) -> (Host, Daemon) {
    let host = Host::new(&format!("{label}-{fast_path}")).await;
    let daemon = host.start_with(fast_path, &[]).await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let answer = daemon.sync(1, &[("10.42.2.0/24", "192.0.2.2")]).await;
    assert!(answer.success, "{answer:?}");
    (host, daemon)
}

/// Waits until a problem with that cure is there, does what it says, and waits until there is none.
async fn is_cured(host: &Host, daemon: &Daemon, cure: &str) {
    host.eventually_async(&format!("a problem that says {cure:?}"), async || {
        let problems = daemon.status().await.problems();
        problems.iter().any(|problem| problem.contains(cure))
    })
    .await;
    host.ip(cure.strip_prefix("ip ").unwrap());
    host.eventually_async("no problem", async || {
        daemon.status().await.problems().is_empty()
    })
    .await;
}

async fn a_policy_rule_before_our_routes_is_named_with_its_cure(fast_path: &str) {
    let (host, daemon) = node("rule", fast_path).await;
    host.ip("route add default via 192.0.2.9 table 100");
    host.ip("rule add priority 100 lookup 100");
    is_cured(
        &host,
        &daemon,
        "ip rule add priority 99 to 10.42.0.0/16 lookup main",
    )
    .await;
}

async fn a_policy_rule_that_leads_nothing_elsewhere_is_nobodys_business(fast_path: &str) {
    let (host, daemon) = node("harmless", fast_path).await;
    host.ip("route add 203.0.113.0/24 via 192.0.2.9 table 100");
    host.ip("rule add priority 100 lookup 100");
    // It was looked at: what is told later is known.
    host.ip("address add 10.42.9.9/32 dev lo");
    is_cured(&host, &daemon, "ip address delete 10.42.9.9/32 dev lo").await;
}

async fn an_address_of_the_clusters_network_elsewhere_is_named_with_its_cure(fast_path: &str) {
    let (host, daemon) = node("address", fast_path).await;
    host.ip("address add 10.42.7.1/24 dev eth0");
    is_cured(&host, &daemon, "ip address delete 10.42.7.1/24 dev eth0").await;
}

async fn a_route_of_somebody_else_to_a_part_of_a_peers_subnet_is_named_with_its_cure(
    fast_path: &str,
) {
    let (host, daemon) = node("part", fast_path).await;
    host.ip("route add 10.42.2.128/25 via 192.0.2.9");
    is_cured(&host, &daemon, "ip route delete 10.42.2.128/25").await;
}

async fn settings_of_our_devices_that_somebody_changes_are_set_again(fast_path: &str) {
    let (host, _daemon) = node("settings", fast_path).await;
    for (setting, wrong, right) in [
        ("net/ipv4/conf/quilt0/forwarding", "0", "1"),
        ("net/ipv4/conf/vxlan100/forwarding", "0", "1"),
        ("net/ipv4/conf/vxlan100/rp_filter", "1", "2"),
        ("net/ipv4/conf/quilt0/rp_filter", "1", "2"),
    ] {
        host.netns.sysctl(setting, wrong).unwrap();
        host.eventually(setting, |host| {
            let path = format!("/proc/sys/{setting}");
            let value = host.netns.run(|| std::fs::read_to_string(&path));
            value.unwrap().unwrap().trim() == right
        })
        .await;
    }
}

/// A test for either path.
macro_rules! on_both_paths {
    ($($what:ident => [$fast:ident, $kernel:ident];)+) => {$(
        #[tokio::test]
        async fn $fast() {
            $what("required").await;
        }

        #[tokio::test]
        async fn $kernel() {
            $what("off").await;
        }
    )+};
}

on_both_paths! {
    a_policy_rule_before_our_routes_is_named_with_its_cure => [
        a_policy_rule_before_our_routes_is_named_with_its_cure_on_the_fast_path,
        a_policy_rule_before_our_routes_is_named_with_its_cure_on_the_kernel_path
    ];
    a_policy_rule_that_leads_nothing_elsewhere_is_nobodys_business => [
        a_policy_rule_that_leads_nothing_elsewhere_is_nobodys_business_on_the_fast_path,
        a_policy_rule_that_leads_nothing_elsewhere_is_nobodys_business_on_the_kernel_path
    ];
    an_address_of_the_clusters_network_elsewhere_is_named_with_its_cure => [
        an_address_of_the_clusters_network_elsewhere_is_named_with_its_cure_on_the_fast_path,
        an_address_of_the_clusters_network_elsewhere_is_named_with_its_cure_on_the_kernel_path
    ];
    a_route_of_somebody_else_to_a_part_of_a_peers_subnet_is_named_with_its_cure => [
        a_route_of_somebody_else_to_a_part_of_a_peers_subnet_is_named_with_its_cure_on_the_fast_path,
        a_route_of_somebody_else_to_a_part_of_a_peers_subnet_is_named_with_its_cure_on_the_kernel_path
    ];
    settings_of_our_devices_that_somebody_changes_are_set_again => [
        settings_of_our_devices_that_somebody_changes_are_set_again_on_the_fast_path,
        settings_of_our_devices_that_somebody_changes_are_set_again_on_the_kernel_path
    ];
}
