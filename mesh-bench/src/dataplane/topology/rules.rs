//! The netfilter rules of a host with Docker and flannel.

use std::{io::Write as _, process::Stdio};

use anyhow::{Context as _, bail};
use ipnet::Ipv4Net;
use mesh_testbed::{BRIDGE, Host};

/// The rules as `iptables-save` shows them on such a host: Docker 28 with `--ip-masq=false`
/// (as flannel's documentation has it) and its network on the bridge, and flannel 0.26 with
/// `--ip-masq`. NAT chains are walked by the first packet of a connection, filter chains by
/// every packet, and conntrack follows all of them, the outer ones too.
fn script(cluster: Ipv4Net, subnet: Ipv4Net) -> String {
    format!(
        "*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:FLANNEL-POSTRTG - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s {subnet} -d {cluster} -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s {cluster} -d {subnet} -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG ! -s {cluster} -d {subnet} -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s {cluster} ! -d 224.0.0.0/4 -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s {cluster} -d {cluster} -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
:FLANNEL-FWD - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i {BRIDGE} -j ACCEPT
-A DOCKER-CT -o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-BRIDGE -o {BRIDGE} -j DOCKER
-A DOCKER-ISOLATION-STAGE-1 -i {BRIDGE} ! -o {BRIDGE} -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o {BRIDGE} -j DROP
-A FLANNEL-FWD -s {cluster} -m comment --comment \"flanneld forward\" -j ACCEPT
-A FLANNEL-FWD -d {cluster} -m comment --comment \"flanneld forward\" -j ACCEPT
COMMIT
"
    )
}

/// Installs the rules on a host whose containers are in `subnet`.
pub(crate) fn install(host: &Host, cluster: Ipv4Net, subnet: Ipv4Net) -> anyhow::Result<()> {
    let mut child = host
        .netns()
        .command("iptables-restore")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run iptables-restore: install iptables, as `cargo xtask bench` does")?;
    child
        .stdin
        .take()
        .context("iptables-restore has no standard input")?
        .write_all(script(cluster, subnet).as_bytes())?;
    let ended = child.wait_with_output()?;
    if !ended.status.success() {
        bail!(
            "iptables-restore refuses the rules of Docker and flannel ({}): {}",
            ended.status,
            String::from_utf8_lossy(&ended.stderr).trim()
        );
    }
    Ok(())
}
