//! What our own rules make of a packet, by what their sets hold in the kernel. Pure.
//!
//! It follows `desired/firewall/text.rs` and `translation.rs`, chain by chain; the packet is the first of its connection, and
//! whole. A rule is named as [`crate::desired::firewall::Ruleset::rule`] names it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use mesh_layout::PRIORITY_ANOTHERS_CLAIM;

use super::{Facts, Protocol, party::Party};
use crate::{ebpf::Mac, wanted::subnet::gateway};

/// A rule that drops: its table and chain, and what it says.
pub(super) type Refused = (&'static str, String);

impl Facts {
    fn is_udp_to(&self, ports: &[u16]) -> bool {
        self.question.protocol == Protocol::Udp && ports.contains(&self.question.port)
    }

    fn is_vxlan(&self) -> bool {
        self.is_udp_to(&[self.ground.vxlan_port])
    }

    /// Whether our tables are there.
    pub(super) fn has_tables(&self) -> bool {
        self.tables.rules != 0
    }

    fn everybody(&self) -> [Ipv4Addr; 2] {
        [self.ground.subnet.network(), self.ground.subnet.broadcast()]
    }

    /// Of whom nobody speaks.
    fn speaks_from_nowhere(&self) -> Option<String> {
        let (source, subnet) = (self.question.source, self.ground.subnet);
        if source == gateway(subnet) || self.everybody().contains(&source) {
            return Some(format!("ip saddr {source}"));
        }
        (!source.is_unspecified() && !subnet.contains(&source))
            .then(|| format!("ip saddr != {subnet}"))
    }

    /// Chain `frames`: what no container may send.
    fn frames(&self) -> Result<(), Refused> {
        const CHAIN: &str = "bridge quilt_mesh frames";
        if let Some(rule) = self.speaks_from_nowhere() {
            return Err((CHAIN, rule));
        }
        match self.is_udp_to(&[68, 546]) {
            true => Err((CHAIN, "udp dport { 68, 546 }".to_owned())),
            false => Ok(()),
        }
    }

    /// Chain `strict_port`: a registered container speaks from what is registered.
    fn strict_port(&self, port: u32, mac: Mac) -> Result<(), Refused> {
        const CHAIN: &str = "bridge quilt_mesh strict_port";
        if !self.in_set("strict", &port.to_ne_bytes()) {
            return Ok(());
        }
        let source = self.question.source;
        if !self.in_set("mac_holders", &mac_holder(port, mac)) {
            return Err((CHAIN, "iif . ether saddr != @mac_holders".to_owned()));
        }
        match source.is_unspecified() || self.in_set("holders", &holder(port, source)) {
            true => Ok(()),
            false => Err((CHAIN, "iif . ip saddr != @holders".to_owned())),
        }
    }

    /// Chain `claims`: whether it claims what is another's.
    fn claims(&self, port: u32, mac: Mac) -> bool {
        let source = self.question.source;
        self.in_set("macs", &mac) && !self.in_set("mac_holders", &mac_holder(port, mac))
            || self.in_set("held", &source.octets())
                && !self.in_set("holders", &holder(port, source))
    }

    /// When a frame comes by a port of the bridge.
    pub(super) fn at_port(&self, port: u32, mac: Mac) -> Result<(), Refused> {
        self.strict_port(port, mac)?;
        match self.in_set("ports", &port.to_ne_bytes()) {
            true => self.frames(),
            false => Ok(()),
        }
    }

    /// Between two ports.
    pub(super) fn between(&self, port: u32, mac: Mac, to: u32) -> Result<(), Refused> {
        if !self.in_set("ports", &to.to_ne_bytes()) {
            return Ok(());
        }
        if self.claims(port, mac) {
            let rule = "it claims an address or MAC address that is another port's".to_owned();
            return Err(("bridge quilt_mesh between", rule));
        }
        match self.in_set("ports", &port.to_ne_bytes()) {
            true => Ok(()),
            false => self.frames(),
        }
    }

    /// Up to the host; whether the program there is told that it claims what is another's.
    pub(super) fn up(&self, port: u32, mac: Mac) -> Result<bool, Refused> {
        self.strict_port(port, mac)?;
        if !self.claims(port, mac) {
            return Ok(false);
        }
        match self.in_set("refused", &PRIORITY_ANOTHERS_CLAIM.to_ne_bytes()) {
            true => Err(("bridge quilt_mesh up", "meta priority @refused".to_owned())),
            false => Ok(true),
        }
    }

    /// Chain `early` of what comes from the bridge.
    pub(super) fn early_from_bridge(&self) -> Result<(), Refused> {
        const CHAIN: &str = "inet quilt_mesh from_containers";
        if !self.has_tables() {
            return Ok(());
        }
        if self.question.destination.is_loopback() {
            return Err((CHAIN, "ip daddr 127.0.0.0/8".to_owned()));
        }
        if let Some(rule) = self.speaks_from_nowhere() {
            return Err((CHAIN, rule));
        }
        if self.is_udp_to(&[68, 546]) {
            return Err((CHAIN, "udp dport { 68, 546 }".to_owned()));
        }
        match self.is_vxlan() && self.destination == Party::Host {
            true => Err((
                "inet quilt_mesh vxlan_in",
                format!("iifname {{ \"lo\", \"{}\", … }}", self.ground.bridge),
            )),
            false => Ok(()),
        }
    }

    /// Chain `early` of what comes from outside, by an interface with that name.
    pub(super) fn early_from_outside(&self, interface: &str) -> Result<(), Refused> {
        const CHAIN: &str = "inet quilt_mesh early";
        if !self.has_tables() {
            return Ok(());
        }
        let (source, destination) = (self.question.source, self.question.destination);
        let (cluster, subnet) = (self.ground.cluster, self.ground.subnet);
        let on = |set| self.in_set(set, &interface_key(interface));
        if cluster.contains(&source) && destination == gateway(subnet) {
            return Err((CHAIN, format!("ip saddr {cluster} ip daddr {destination}")));
        }
        if on("bridges") && destination.is_loopback() {
            return Err((CHAIN, "iifname @bridges ip daddr 127.0.0.0/8".to_owned()));
        }
        if on("bridges") && cluster.contains(&source) {
            return Err((CHAIN, format!("iifname @bridges ip saddr {cluster}")));
        }
        if on("uplinks") && subnet.contains(&source) {
            return Err((CHAIN, format!("iifname @uplinks ip saddr {subnet}")));
        }
        match self.is_vxlan() && self.destination == Party::Host {
            true => self.takes_vxlan(source, interface),
            false => Ok(()),
        }
    }

    /// Chain `vxlan_in`: whether VXLAN of our network from an address is taken at an interface.
    pub(super) fn takes_vxlan(
        &self,
        outer_source: Ipv4Addr,
        interface: &str,
    ) -> Result<(), Refused> {
        const CHAIN: &str = "inet quilt_mesh vxlan_in";
        if !self.has_tables() {
            return Ok(());
        }
        if self.in_set("bridges", &interface_key(interface)) {
            return Err((CHAIN, "iifname @bridges".to_owned()));
        }
        match self.in_set("peers", &outer_source.octets()) {
            true => Ok(()),
            false => Err((CHAIN, "ip saddr != @peers".to_owned())),
        }
    }

    /// Chain `inner`: what was inside VXLAN.
    pub(super) fn inner(&self) -> Result<(), Refused> {
        const CHAIN: &str = "inet quilt_mesh inner";
        if !self.has_tables() {
            return Ok(());
        }
        let subnet = self.ground.subnet;
        let of = Ipv4Net::new(self.question.source, subnet.prefix_len());
        let network = of.map_or(Ipv4Addr::UNSPECIFIED, |net| net.network());
        if !self.in_set("subnets", &network.octets()) {
            return Err((
                CHAIN,
                format!("ip saddr & {} != @subnets", subnet.netmask()),
            ));
        }
        match subnet.contains(&self.question.destination) {
            true => Ok(()),
            false => Err((CHAIN, format!("ip daddr != {subnet}"))),
        }
    }

    /// Chain `forward` of what comes from the mesh: VXLAN of a container's to another host.
    pub(super) fn forward_out(&self) -> Result<(), Refused> {
        let ours = matches!(self.destination, Party::Container | Party::Peer(_));
        let peers = || self.in_set("peers", &self.question.destination.octets());
        match self.has_tables() && self.is_vxlan() && !ours && peers() {
            true => Err((
                "inet quilt_mesh vxlan_through",
                "ip daddr @peers".to_owned(),
            )),
            false => Ok(()),
        }
    }

    /// Chain `routed` of what comes from outside to a container, here or elsewhere; says by which rule it is let in.
    pub(super) fn forward_in(&self, interface: &str, to_peer: bool) -> Result<String, Refused> {
        const CHAIN: &str = "inet quilt_mesh routed";
        if !self.has_tables() {
            return Ok("our tables are not there".to_owned());
        }
        let (source, cluster) = (self.question.source, self.ground.cluster);
        if cluster.contains(&source) {
            return Err((CHAIN, format!("ip saddr {cluster}")));
        }
        if self.published.is_some() {
            return Ok("ct status dnat: a published port".to_owned());
        }
        if let Some(net) = self
            .ground
            .routed_from
            .iter()
            .find(|net| net.contains(&source))
        {
            return Ok(format!("--routed-from {net}"));
        }
        if to_peer && self.in_set("guests", &interface_key(interface)) {
            return Ok("a guest of this host".to_owned());
        }
        Err((CHAIN, "everything else".to_owned()))
    }
}

fn holder(port: u32, address: Ipv4Addr) -> Vec<u8> {
    [port.to_ne_bytes(), address.octets()].concat()
}

fn mac_holder(port: u32, mac: Mac) -> Vec<u8> {
    [&port.to_ne_bytes()[..], &mac, &[0; 2]].concat()
}

fn interface_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    // IFNAMSIZ
    key.resize(16, 0);
    key
}
