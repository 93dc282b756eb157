//! Engines that know the plugin, and the lists that an operator writes for them.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;
use mesh_testbed::{Cni, CniError, CniFailure, Host, cni_plugins};
use serde_json::{Value, json};

use crate::mesh::needed;

pub(crate) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The plugin's file.
pub(crate) fn plugin() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_quilt-cni"))
}

/// Where the plugin is, and those of Debian's.
pub(crate) fn dirs() -> Vec<PathBuf> {
    vec![plugin().parent().unwrap().to_owned(), needed(cni_plugins())]
}

pub(crate) fn engine(host: &Host) -> Cni {
    Cni::on(host, dirs())
}

/// An engine on the same host that remembers nothing of what the first one did.
pub(crate) fn forgetful(host: &Host) -> Cni {
    Cni::inside(host.netns(), host.dir().join("forgetful"), dirs())
}

/// The plugin's own part of a list, for an engine of this name.
pub(crate) fn quilt(host: &Host, engine: &str) -> Value {
    json!({
        "type": "quilt-cni",
        "engine": engine,
        "socket": host.runtime_socket(),
        "capabilities": {"ips": true, "mac": true, "aliases": true},
    })
}

/// A list of these plugins.
pub(crate) fn list(network: &str, version: &str, plugins: impl Into<Vec<Value>>) -> Value {
    json!({"cniVersion": version, "name": network, "plugins": plugins.into()})
}

/// The plugin alone, in the newest version, as Podman's.
pub(crate) fn alone(host: &Host) -> Value {
    list("quilt", "1.1.0", [quilt(host, "podman")])
}

/// An address of a result, the first one being 0.
pub(crate) fn address(result: &Value, index: usize) -> Ipv4Addr {
    let address = &result["ips"][index]["address"];
    let address = address.as_str().unwrap_or_else(|| panic!("{result}"));
    address.parse::<Ipv4Net>().unwrap().addr()
}

/// The names of a result's interfaces.
pub(crate) fn interfaces(result: &Value) -> Vec<&str> {
    let interfaces = result["interfaces"].as_array();
    let interfaces = interfaces.unwrap_or_else(|| panic!("{result}"));
    interfaces
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect()
}

/// The host's end of a result.
pub(crate) fn port(result: &Value) -> &str {
    let names = interfaces(result).into_iter();
    let mut ports = names.filter(|name| name.starts_with("qm"));
    ports.next().unwrap_or_else(|| panic!("{result}"))
}

/// What a plugin said, which has to have failed.
pub(crate) fn failure<T: std::fmt::Debug>(result: Result<T, CniError>) -> CniFailure {
    let error = result.unwrap_err();
    match error.failure() {
        Some(failure) => failure.clone(),
        None => panic!("{error}"),
    }
}

/// Sees that a plugin failed with a code and a sentence that has these words.
pub(crate) fn assert_says(failure: &CniFailure, code: u64, words: &[&str]) {
    assert_eq!(failure.code, code, "{failure}");
    for word in words {
        assert!(failure.msg.contains(word), "{word:?} in {failure}");
    }
}
