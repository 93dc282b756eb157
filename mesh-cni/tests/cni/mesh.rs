//! Hosts, and what they show of containers.

use std::{net::Ipv4Addr, time::Duration};

use mesh_client::{
    Client,
    mesh::{AddressLease, Endpoint, ListAddressesRequest},
};
use mesh_proto::mesh::{PeerStatus, TrafficCounters, fast_path_status::State};
use mesh_testbed::{DaemonOptions, Host, NetNs, PingOptions, Testbed, ping, wait_until};

/// How long a test waits for what should take milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What a test needs; where it is missing, the panic says what to install.
pub(crate) fn needed<T>(result: mesh_testbed::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// A mesh of so many hosts, all of which know each other and carry traffic on the fast path.
pub(crate) async fn mesh_of(hosts: usize) -> Testbed {
    mesh_with(hosts, &DaemonOptions::new()).await
}

/// The same with options for the runtimes.
pub(crate) async fn mesh_with(hosts: usize, runtime: &DaemonOptions) -> Testbed {
    let testbed = needed(Testbed::builder().hosts(hosts).build().await);
    let none = DaemonOptions::new();
    needed(testbed.start_with(&none, runtime, &none).await);
    for host in testbed.hosts() {
        wait_active(host).await;
    }
    testbed
}

/// Waits until the node is as it stays: its programs are there, and its rules know none of an earlier run's.
pub(crate) async fn wait_active(host: &Host) {
    wait_until("an active fast path", SOON, async || {
        let status = host.status().await.map_err(|error| error.to_string())?;
        let fast_path = status.fast_path.unwrap_or_default();
        match fast_path.state() == State::Active {
            true => Ok(()),
            false => Err(format!("{fast_path:?}")),
        }
    })
    .await
    .unwrap();
}

pub(crate) async fn namespace(label: &str) -> NetNs {
    needed(NetNs::new(label).await)
}

pub(crate) async fn client(host: &Host) -> Client {
    Client::connect(&host.runtime_socket()).await.unwrap()
}

/// All leases of a node.
pub(crate) async fn leases(host: &Host) -> Vec<AddressLease> {
    let mut runtime = client(host).await;
    let all = runtime.addresses(ListAddressesRequest::default()).await;
    all.unwrap().leases
}

/// The only lease of a node.
pub(crate) async fn only_lease(host: &Host) -> AddressLease {
    let mut leases = leases(host).await;
    assert_eq!(leases.len(), 1, "{leases:?}");
    leases.remove(0)
}

/// What an owner's parts are, with slashes between.
pub(crate) fn owner_of(lease: &AddressLease) -> String {
    let owner = lease.owner.clone().unwrap();
    [
        owner.engine,
        owner.network,
        owner.container,
        owner.interface,
    ]
    .join("/")
}

/// The endpoint of an address, if the runtime shows one.
pub(crate) async fn endpoint(host: &Host, address: Ipv4Addr) -> Option<Endpoint> {
    let address = address.to_string();
    let endpoints = host.status().await.unwrap().endpoints.into_iter();
    let mut of_it = endpoints.filter(|it| it.address == address);
    of_it.next()
}

/// What a host of two counted of the other one.
pub(crate) async fn counters(host: &Host) -> PeerStatus {
    let mut peers = host.peers().await.unwrap().peers;
    assert_eq!(peers.len(), 1, "{peers:?}");
    peers.remove(0)
}

/// Packets to the peer on the fast path, and those from it.
pub(crate) fn fast(before: &PeerStatus, after: &PeerStatus) -> (u64, u64) {
    carried(before.fast_path, after.fast_path)
}

/// The same on the kernel path, where runtimes ask each other every half a minute whether VXLAN gets through.
pub(crate) fn kernel(before: &PeerStatus, after: &PeerStatus) -> (u64, u64) {
    carried(before.kernel_path, after.kernel_path)
}

fn carried(before: Option<TrafficCounters>, after: Option<TrafficCounters>) -> (u64, u64) {
    let [before, after] = [before, after].map(Option::unwrap_or_default);
    (
        after.tx_packets - before.tx_packets,
        after.rx_packets - before.rx_packets,
    )
}

/// Sees that one container hears from another one, five times of five.
pub(crate) async fn five_of_five(from: &NetNs, to: Ipv4Addr) {
    needed(mesh_testbed::wait_reachable(from, to, SOON).await);
    let options = PingOptions {
        count: 5,
        ..PingOptions::default()
    };
    let report = needed(ping(from, to, options).await);
    assert!(report.is_complete(), "{report:?}");
}

/// What a program prints inside a namespace.
pub(crate) fn run(namespace: &NetNs, program: &str, words: &str) -> String {
    let mut command = namespace.command(program);
    let output = command.args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {words}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn ip(namespace: &NetNs, words: &str) -> String {
    run(namespace, "ip", words)
}

/// Names of the interfaces of a host or a container.
pub(crate) fn links(namespace: &NetNs) -> Vec<String> {
    let all = ip(namespace, "-oneline link show");
    let name = |line: &str| line.split([':', '@']).nth(1).unwrap().trim().to_owned();
    let mut names: Vec<String> = all.lines().map(name).collect();
    names.sort();
    names
}

/// Waits until a node has exactly so many leases.
pub(crate) async fn wait_leases(host: &Host, count: usize) -> Vec<AddressLease> {
    wait_until("so many leases", SOON, async || {
        let leases = leases(host).await;
        match leases.len() == count {
            true => Ok(leases),
            false => Err(format!("{leases:?}")),
        }
    })
    .await
    .unwrap()
}
