//! The agent is started before the network, or the names, are there.

use std::net::Ipv4Addr;

use crate::{
    host::{Host, addresses, registered},
    resolver::{Names, Resolver},
};

const WAITING: &str = "waiting for this node's address";

/// A host whose NIC is down, and one with the control plane at 192.0.2.1.
fn unplugged() -> (Host, Host) {
    let (host, other) = (Host::bare("node"), Host::bare("control"));
    host.wire("eth0", &other, "eth0");
    host.ip("address add 192.0.2.7/24 dev eth0");
    other.ip("address add 192.0.2.1/24 dev eth0");
    other.ip("link set eth0 up");
    (host, other)
}

#[test]
fn an_agent_that_starts_while_the_nic_is_down_waits_and_goes_on_when_it_is_up() {
    let (host, other) = unplugged();
    let control = other.control_plane(Ipv4Addr::new(192, 0, 2, 1));
    let runtime = host.runtime();
    control.add_peer(2);
    let state = tempfile::tempdir().unwrap();
    let agent = host.agent(&control.url(), &runtime, state.path(), &[]);
    agent.until_logged(WAITING);
    // The NIC is there, and still nothing leads anywhere: several looks, one line.
    agent.until_logged("Network is unreachable");
    host.ip("link set eth0 up");
    agent.until("the route", || runtime.routes() == [2]);
    assert_eq!(agent.logged(WAITING), 1, "{:#?}", agent.log());
    assert_eq!(agent.logged(" WARN "), 1, "{:#?}", agent.log());
    assert_eq!(registered(&control), ["192.0.2.7"]);
    assert_eq!(addresses(&runtime), ["192.0.2.7"]);
}

#[test]
fn a_wrong_option_ends_the_agent_at_once_whatever_is_missing() {
    let host = Host::bare("node");
    let runtime = host.runtime();
    let state = tempfile::tempdir().unwrap();
    for wrong in [
        ["--control-plane", "192.0.2.1:8080"],
        ["--host-ip", "node1"],
    ] {
        let mut agent = host.agent("http://192.0.2.1:8080", &runtime, state.path(), &wrong);
        assert_eq!(agent.wait().code(), Some(2), "{:#?}", agent.log());
        assert_eq!(agent.logged(WAITING), 0);
    }
}

#[test]
fn an_agent_that_waits_for_the_network_ends_on_sigterm() {
    let (host, _other) = unplugged();
    let runtime = host.runtime();
    let state = tempfile::tempdir().unwrap();
    let mut agent = host.agent("http://192.0.2.1:8080", &runtime, state.path(), &[]);
    agent.until_logged(WAITING);
    assert!(agent.terminate().success(), "{:#?}", agent.log());
}

#[test]
fn a_name_that_resolves_later_is_waited_for_with_one_line() {
    let (host, other) = unplugged();
    host.ip("link set eth0 up");
    let control = other.control_plane(Ipv4Addr::new(192, 0, 2, 1));
    let runtime = host.runtime();
    control.add_peer(2);
    let resolver = Resolver::start(&host, Names::None);
    let state = tempfile::tempdir().unwrap();
    let url = control.url().replace("192.0.2.1", "control.example");
    let agent = host.agent_with_names(&resolver, &url, &runtime, state.path());
    agent.until_logged(WAITING);
    agent.until("further questions", || resolver.questions() >= 4);
    assert_eq!(agent.logged("control.example"), 2, "{:#?}", agent.log());
    resolver.say(Names::Addresses(vec![Ipv4Addr::new(192, 0, 2, 1)]));
    agent.until("the route", || runtime.routes() == [2]);
    assert_eq!(agent.logged(WAITING), 1, "{:#?}", agent.log());
    assert_eq!(registered(&control), ["192.0.2.7"]);
}

#[test]
fn an_agent_whose_resolver_does_not_answer_says_so_and_ends_on_sigterm() {
    let (host, _other) = unplugged();
    let runtime = host.runtime();
    let resolver = Resolver::start(&host, Names::Silent);
    let state = tempfile::tempdir().unwrap();
    let url = "http://control.example:8080";
    let mut agent = host.agent_with_names(&resolver, url, &runtime, state.path());
    agent.until_logged("control.example:8080 does not resolve: no answer within");
    // The question that is under way would be for minutes.
    assert!(agent.terminate().success(), "{:#?}", agent.log());
    assert_eq!(agent.logged(WAITING), 1, "{:#?}", agent.log());
}
