//! Podman's part, and the network that an operator makes.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use mesh_testbed::{Host, Netavark, NetavarkContainer, NetavarkError};
use serde_json::{Value, json};

pub(crate) fn engine(host: &Host) -> Netavark {
    Netavark::on(host, env!("CARGO_BIN_EXE_quilt-netavark"))
}

/// What Podman asks for.
pub(crate) fn wish(host: &Host, name: &str) -> Value {
    Netavark::wish(name, json!({ "socket": host.runtime_socket() }))
}

/// A network of this name.
pub(crate) async fn network(host: &Host, name: &str) -> Value {
    engine(host).create(&wish(host, name)).await.unwrap()
}

/// The address of a container that was set up.
pub(crate) fn address(status: &Value, interface: &str) -> Ipv4Addr {
    let subnets = &status["interfaces"][interface]["subnets"];
    let address = subnets[0]["ipnet"].as_str();
    let address = address.unwrap_or_else(|| panic!("{status}"));
    address.parse::<Ipv4Net>().unwrap().addr()
}

/// Sets a container up, and returns its address.
pub(crate) async fn set_up(host: &Host, container: &NetavarkContainer) -> Ipv4Addr {
    let status = engine(host).setup(container).await.unwrap();
    address(&status, "eth0")
}

/// What the plugin said, which has to have failed.
pub(crate) fn said<T: std::fmt::Debug>(result: Result<T, NetavarkError>) -> String {
    match result.unwrap_err() {
        NetavarkError::Failed { error } => error,
        other => panic!("{other}"),
    }
}

/// Sees that the plugin failed with a sentence that has these words.
pub(crate) fn assert_says<T: std::fmt::Debug>(result: Result<T, NetavarkError>, words: &[&str]) {
    let said = said(result);
    for word in words {
        assert!(said.contains(word), "{word:?} in {said}");
    }
}
