//! The control plane's name has two addresses, which this host reaches from different ones of its own.

use std::net::Ipv4Addr;

use crate::{
    fake_control_plane::FakeControlPlane,
    host::{Host, addresses, registered},
    resolver::{Names, Resolver},
};

const FIRST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// A host with two NICs, each of which leads to one of the control plane's addresses.
fn two_ways() -> (Host, Host) {
    let (host, other) = (Host::bare("node"), Host::bare("control"));
    for (nic, network, control) in [("eth0", "192.0.2", FIRST), ("eth1", "198.51.100", SECOND)] {
        host.wire(nic, &other, nic);
        host.ip(&format!("address add {network}.7/24 dev {nic}"));
        host.ip(&format!("link set {nic} up"));
        other.ip(&format!("address add {network}.1/24 dev {nic}"));
        other.ip(&format!("address add {control}/32 dev lo"));
        other.ip(&format!("link set {nic} up"));
        // Not on the wire itself: the resolver's client would sort them.
        host.ip(&format!("route add {control} via {network}.1"));
    }
    (host, other)
}

fn by_name(control: &FakeControlPlane) -> String {
    control.url().replace("0.0.0.0", "control.example")
}

#[test]
fn a_name_with_two_addresses_never_makes_the_node_s_address_change() {
    let (host, other) = two_ways();
    let mut control = other.control_plane(Ipv4Addr::UNSPECIFIED);
    let runtime = host.runtime();
    control.add_peer(2);
    let resolver = Resolver::start(&host, Names::Addresses(vec![FIRST, SECOND]));
    let state = tempfile::tempdir().unwrap();
    let agent = host.agent_with_names(&resolver, &by_name(&control), &runtime, state.path());
    agent.until("the route", || runtime.routes() == [2]);
    // Every connection stands.
    agent.until("heartbeats", || control.heartbeats() >= 3);
    // Ten looks and more.
    let (mark, questions) = (runtime.calls(), resolver.questions());
    agent.until("syncs", || runtime.syncs_since(mark, 1) >= 10);
    assert_eq!(addresses(&runtime).len(), 1, "{:#?}", agent.log());
    assert_eq!(
        resolver.questions(),
        questions,
        "nothing is to be connected"
    );

    // Whenever it has to connect, it asks again, and both orders come.
    for round in 0..4 {
        let questions = resolver.questions();
        control.stop();
        agent.until("questions", || resolver.questions() >= questions + 4);
        // In the host's namespace, as before.
        other.0.run(|| control.resume()).unwrap();
        let beats = control.heartbeats();
        agent.until(&format!("heartbeats again, round {round}"), || {
            control.heartbeats() >= beats + 10
        });
    }
    assert_eq!(registered(&control).len(), 1, "{:#?}", agent.log());
    assert_eq!(addresses(&runtime), registered(&control));
}

#[test]
fn an_address_that_the_host_loses_is_followed_to_the_other_way() {
    let (host, other) = two_ways();
    let control = other.control_plane(Ipv4Addr::UNSPECIFIED);
    let runtime = host.runtime();
    control.add_peer(2);
    let resolver = Resolver::start(&host, Names::Addresses(vec![FIRST, SECOND]));
    let state = tempfile::tempdir().unwrap();
    let agent = host.agent_with_names(&resolver, &by_name(&control), &runtime, state.path());
    agent.until("the route", || runtime.routes() == [2]);
    assert_eq!(registered(&control), ["192.0.2.7"]);
    host.ip("address del 192.0.2.7/24 dev eth0");
    agent.until("the other address", || {
        registered(&control) == ["192.0.2.7", "198.51.100.7"]
    });
    // It is back, and the way that was chosen is as good as before.
    host.ip("address add 192.0.2.7/24 dev eth0");
    host.ip(&format!("route add {FIRST} via 192.0.2.1"));
    let mark = runtime.calls();
    agent.until("syncs", || runtime.syncs_since(mark, 1) >= 10);
    assert_eq!(addresses(&runtime), ["192.0.2.7", "198.51.100.7"]);
    assert_eq!(registered(&control).len(), 2, "{:#?}", agent.log());
}
