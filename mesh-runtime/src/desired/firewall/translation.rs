//! The rules of the way out of the mesh, and of the way in by published ports: whose address a
//! packet carries.

use mesh_layout::{PRIORITY_TRANSLATED, PRIORITY_UNKNOWN_FRAGMENT};

use super::{Frame, text::class};
use crate::wanted::subnet::gateway;

/// Name of the counter of what somebody else's rule has masqueraded inside the mesh.
pub(crate) const MASQUERADED: &str = "masqueraded";

/// A priority before that of anybody else's chain of this kind, and behind what the kernel demands of
/// one (-200). All of them are called in the place of the first, one after the other, until one of them has
/// decided about a connection.
const BEFORE_OTHERS: &str = "srcnat - 200";

/// The ports under which containers go out: those that the kernel itself gives to whoever asks for none
/// (`ip_local_port_range`). By any other a container could have what others send to a service of the host, or
/// to a published port.
const FIRST_PORT: u16 = 32768;
const LAST_PORT: u16 = 60999;

/// Leaves alone what is from or to loopback.
const LOOPBACK: &str = "\t\tip daddr 127.0.0.0/8 return\n\t\tip saddr 127.0.0.0/8 return\n";

impl Frame {
    /// The chains that translate addresses.
    ///
    /// **Inside the mesh a container keeps its address**: a node is believed only for its own subnet. So what
    /// goes to a container is "translated" to the address that it has, before anybody else's chain is
    /// asked: a connection is decided about once, and an engine's masquerading rule that forgot the
    /// other nodes has nothing to say any more. This is what the kernel does itself with a connection that
    /// nobody translates (`nf_nat_alloc_null_binding`). What takes the place of a client is the gateway's address
    /// alone. Of one inside the mesh, where whoever translates its destination: by a published port, ours or an
    /// engine's, or by a virtual address. The answers would find a shorter way past the translation otherwise, over
    /// the bridge or by the programs; to the gateway they come by this host's connection tracking, which has the
    /// state, its lifetime and its bounds. And of one outside the mesh that speaks to another node's container, as
    /// from another bridge of this host or by a socket of its own address: a node is believed for its own subnet.
    ///
    /// Where the host's filter sees what its bridges carry, destinations are translated before the bridge hands
    /// a packet up, and the program there would take one for another node's container for one that it may carry
    /// past all this: it is told. So it is of what is for loopback by then, which is an answer: it was for another
    /// address when it came, or it would have been dropped.
    ///
    /// **By 127.0.0.1** a port is reached from its own host alone, as the gateway. What another host or a container
    /// sends there is asked about nothing here, and dropped by the guards: the kernel takes it from our bridge
    /// once that routes loopback (`route_localnet`). Where it does not, what is led away from loopback would get
    /// nowhere, and so is left alone.
    ///
    /// **The way out** comes behind all others' chains: who has a rule of their own for it has their way. Another
    /// node's own address is no router's, also where its network is let in: a peer takes from this node's address
    /// alone what does not come from this node's subnet. What is of no connection that the kernel knows, nobody
    /// translates: it would leave under the container's own address, to which no answer comes.
    pub(super) fn translation(&self) -> String {
        let Self {
            bridge,
            overlay,
            cluster,
            subnet,
            ..
        } = self;
        let gateway = gateway(*subnet);
        // None else of loopback is meant by a port of all addresses: see `is_of_all`.
        let (unless_loopback, from) = match self.routes_loopback {
            true => ("", format!("{{ {cluster}, 127.0.0.0/8 }}")),
            false => (LOOPBACK, cluster.to_string()),
        };
        let translated = class(PRIORITY_TRANSLATED);
        let fragment = class(PRIORITY_UNKNOWN_FRAGMENT);
        let ours = format!("{{ \"{bridge}\", \"{overlay}\" }}");
        // Whatever does not go out under the host's address. IPv6, too: this is a table of both.
        let unless_out = format!(
            "\t\tmeta nfproto != ipv4 return\n\
             \t\tiifname != \"{bridge}\" return\n\
             \t\toifname {ours} return\n\
             \t\tip saddr != {subnet} return\n\
             \t\tip daddr {{ {cluster}, 224.0.0.0/4 }} return\n\
             \t\tip daddr != @peers ip daddr @routed_from return\n"
        );
        let masquerade = match self.masquerade {
            false => String::new(),
            true => format!(
                "\tchain untranslatable {{\n\
                 \t\ttype filter hook forward priority filter - 10;\n\
                 {unless_out}\
                 \t\tct state invalid,untracked counter drop\n\
                 \t}}\n\
                 \tchain way_out {{\n\
                 \t\ttype nat hook postrouting priority srcnat + 5;\n\
                 {unless_out}\
                 \t\tmeta l4proto {{ tcp, udp }} masquerade to :{FIRST_PORT}-{LAST_PORT} fully-random\n\
                 \t\tmasquerade fully-random\n\
                 \t}}\n"
            ),
        };
        format!(
            "\tchain way_in {{\n\
             \t\tfib daddr type != local return\n\
             \t\tmeta l4proto {{ tcp, udp }} dnat ip to ip daddr . meta l4proto . th dport map @published_at\n\
             \t\tip daddr 127.0.0.0/8 ip daddr != 127.0.0.1 return\n\
             \t\tmeta l4proto {{ tcp, udp }} dnat ip to meta l4proto . th dport map @published\n\
             \t}}\n\
             \tchain in_from_elsewhere {{\n\
             \t\ttype nat hook prerouting priority dstnat + 5;\n\
             {LOOPBACK}\
             \t\tjump way_in\n\
             \t}}\n\
             \tchain in_from_this_host {{\n\
             \t\ttype nat hook output priority -95;\n\
             {unless_loopback}\
             \t\tjump way_in\n\
             \t}}\n\
             \tchain translated {{\n\
             \t\ttype filter hook prerouting priority dstnat + 10;\n\
             \t\tiifname \"{bridge}\" ct status dnat meta priority != {fragment} meta priority set {translated}\n\
             \t\tiifname \"{bridge}\" ip daddr 127.0.0.0/8 meta priority != {fragment} meta priority set {translated}\n\
             \t}}\n\
             \tchain inside {{\n\
             \t\ttype nat hook postrouting priority {BEFORE_OTHERS};\n\
             \t\toifname {ours} ct status dnat ip saddr {from} snat ip to {gateway}\n\
             \t\toifname \"{overlay}\" ip saddr != {cluster} ip daddr {cluster} snat ip to {gateway}\n\
             \t\tct status dnat return\n\
             \t\toifname {ours} ip saddr {cluster} ip daddr {cluster} \
             snat ip prefix to ip saddr map {{ {cluster} : {cluster} }}\n\
             \t}}\n\
             {masquerade}"
        )
    }

    /// The rule that counts what leaves for other nodes under another address all the same, in a chain
    /// behind all that translate.
    pub(super) fn masqueraded(&self) -> String {
        let Self {
            overlay, subnet, ..
        } = self;
        format!(
            "\t\toifname \"{overlay}\" ct status snat ct original ip saddr {subnet} ip saddr != {subnet} \
             counter name \"{MASQUERADED}\"\n"
        )
    }
}
