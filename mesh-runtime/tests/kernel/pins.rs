//! The bridge looks for a container's MAC address behind its own port alone.

use mesh_testbed::{NetNs, Signal};

use crate::{containers::container, host::Host};

/// What the bridge knows of a MAC address, a line for each place.
fn known(host: &Host, mac: &str) -> Vec<String> {
    let shown = host.bridge("fdb show br quilt0");
    let of_it = shown.lines().filter(|line| line.starts_with(mac));
    of_it.map(str::to_owned).collect()
}

async fn pinned(host: &Host, mac: &str, port: &str) {
    let place = format!(" dev {port} ");
    host.eventually(&format!("{mac} pinned to {port}"), |host| {
        // A line for each VLAN, where the kernel knows those.
        let known = known(host, mac);
        let pinned = |line: &String| {
            [place.as_str(), " sticky ", " static"]
                .into_iter()
                .all(|words: &str| line.contains(words))
        };
        !known.is_empty() && known.iter().all(pinned)
    })
    .await;
}

async fn forgotten(host: &Host, mac: &str) {
    host.eventually(&format!("{mac} pinned nowhere"), |host| {
        !known(host, mac).iter().any(|line| line.contains("sticky"))
    })
    .await;
}

fn set_mac(inside: &NetNs, mac: &str) {
    let words = ["link", "set", "eth0", "address", mac];
    assert!(inside.command("ip").args(words).status().unwrap().success());
}

const MAC: &str = "02:00:00:00:00:09";
const OTHER_MAC: &str = "02:00:00:00:00:0a";

#[tokio::test]
async fn a_containers_mac_address_is_pinned_to_its_port_and_follows_it() {
    let host = Host::new("pins").await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let first = container(&host, "first", "10.42.1.9").await;
    let second = container(&host, "second", "10.42.1.10").await;
    set_mac(&first, MAC);
    pinned(&host, MAC, "first").await;
    // It moves with the container that has it.
    set_mac(&first, OTHER_MAC);
    forgotten(&host, MAC).await;
    pinned(&host, OTHER_MAC, "first").await;
    set_mac(&second, MAC);
    pinned(&host, MAC, "second").await;
    // Who had it first keeps it.
    set_mac(&first, MAC);
    forgotten(&host, OTHER_MAC).await;
    pinned(&host, MAC, "second").await;
    // The kernel forgets it with its port.
    drop(second);
    pinned(&host, MAC, "first").await;
    assert_eq!(daemon.status().await.problems(), [""; 0]);
}

/// Somebody who removes it, or has the bridge learn it elsewhere, has it back where it was.
#[tokio::test]
async fn a_pin_that_somebody_removed_comes_back_and_the_hosts_own_addresses_are_no_containers() {
    let host = Host::new("pinback").await;
    let daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let inside = container(&host, "first", "10.42.1.9").await;
    set_mac(&inside, MAC);
    pinned(&host, MAC, "first").await;
    host.bridge(&format!("fdb delete {MAC} dev first master"));
    pinned(&host, MAC, "first").await;

    let shown = host.ip("-brief link show quilt0");
    let bridge = shown.split_whitespace().nth(2).unwrap().to_owned();
    let before = known(&host, &bridge);
    assert!(!before.is_empty());
    set_mac(&inside, &bridge);
    forgotten(&host, MAC).await;
    assert_eq!(known(&host, &bridge), before);
    assert!(
        before.iter().all(|line| line.contains("permanent")),
        "{before:?}"
    );
}

#[tokio::test]
async fn cleaning_up_unpins_what_stays_on_the_bridge() {
    let host = Host::new("unpin").await;
    host.ip("link add quilt0 type bridge");
    host.ip("link set quilt0 up");
    let mut daemon = host.start().await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    let inside = container(&host, "first", "10.42.1.9").await;
    set_mac(&inside, MAC);
    pinned(&host, MAC, "first").await;
    daemon.end(Signal::SIGTERM).await;
    // Without a daemon it stays.
    pinned(&host, MAC, "first").await;
    let (status, text) = host.run_daemon(&["--cleanup"]).await;
    assert!(status.success(), "{text}");
    forgotten(&host, MAC).await;
}
