//! What is seen of the endpoint for probes.

use std::{net::Ipv4Addr, process::Command};

use mesh_proto::mesh::GetStatusResponse;
use mesh_testbed::{Daemon, Host, NetNs, wait_until};

use crate::pair::SOON;

pub(crate) const PROBES_A: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 254);
pub(crate) const PROBES_B: Ipv4Addr = Ipv4Addr::new(10, 42, 2, 254);

pub(crate) fn run(namespace: &NetNs, words: &str) -> String {
    let mut words = words.split_whitespace();
    let mut command = namespace.command(words.next().unwrap());
    let output = command.args(words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn index(host: &Host) -> Option<u32> {
    let shown = run(host.netns(), "ip -oneline link show");
    let line = shown
        .lines()
        .find(|line| line.contains(": quilt-probe@"))?
        .to_owned();
    line.split(':').next()?.parse().ok()
}

pub(crate) async fn status_where(
    host: &Host,
    what: &str,
    holds: impl Fn(&GetStatusResponse) -> bool,
) -> GetStatusResponse {
    wait_until(what, SOON, || async {
        let status = host.status().await.map_err(|error| error.to_string())?;
        match holds(&status) {
            true => Ok(status),
            false => Err(format!(
                "{:?} {:?}",
                status.probe_endpoint,
                status.problems()
            )),
        }
    })
    .await
    .unwrap()
}

pub(crate) fn knows(status: &GetStatusResponse, address: Ipv4Addr) -> bool {
    status.probe_endpoint == address.to_string()
}

pub(crate) async fn wait_probes(host: &Host, address: Ipv4Addr) {
    status_where(host, "the endpoint for probes", |status| {
        knows(status, address)
    })
    .await;
}

pub(crate) async fn wait_gone(host: &Host) {
    wait_until("no endpoint for probes", SOON, || async {
        index(host).map_or(Ok(()), |index| Err(format!("interface {index}")))
    })
    .await
    .unwrap();
}

/// Runs something in the namespace of the endpoint for probes, by the runtime's own descriptor.
pub(crate) fn inside(host: &Host, words: &str) -> String {
    try_inside(host, words).expect("the runtime holds a namespace")
}

/// `None` while it holds none.
pub(crate) fn try_inside(host: &Host, words: &str) -> Option<String> {
    let pid = host.pid(Daemon::Runtime).unwrap();
    let own = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut namespaces = paths.filter(|path| {
        std::fs::read_link(path)
            .is_ok_and(|to| to.to_string_lossy().starts_with("net:[") && to != own)
    });
    let namespace = namespaces.next()?;
    let output = Command::new("nsenter")
        .arg(format!("--net={}", namespace.display()))
        .args(words.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{words}: {output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}
