//! Why a program left a packet to the kernel path.

use crate::drop_reason::reasons;

reasons! {
    /// Why a program left a packet to the kernel path.
    enum PassReason;
    /// The only entry of the `passes` map, one per CPU: packets left to the kernel by reason.
    struct Passes;

    /// Not IPv4, or not to the gateway: the bridge's business.
    NotRouted => not_routed,
    /// IPv4 to a destination that is no peer's: another container here, the host, the Internet.
    NotPeer => not_peer,
    /// Source outside this node's subnet, which the peer would refuse.
    SourceNotOurs => source_not_ours,
    /// The time to live ends here: the kernel answers with ICMP time exceeded.
    TtlExpired => ttl_expired,
    /// Larger than the overlay's MTU, or than the way to the peer takes: the kernel answers with
    /// fragmentation needed, or cuts it up.
    TooBig => too_big,
    /// The kernel would send to the peer's underlay address in no way that the fast path can take: there
    /// is no route, it forbids or encapsulates, or leads to an interface that is none of the underlay's.
    NoNextHop => no_next_hop,
    /// On the underlay and not VXLAN to this host.
    NotVxlan => not_vxlan,
    /// VXLAN of another VNI, which may belong to another overlay on this host.
    OtherVni => other_vni,
    /// A fragment of an outer packet: the kernel reassembles it.
    OuterFragment => outer_fragment,
    /// For this node, but not for a container whose interface is known.
    NoEndpoint => no_endpoint,
    /// The outer UDP checksum is in use, which the kernel verifies (RFC 7348 says it may be
    /// sent), or the outer IPv4 header's is wrong, for which the kernel drops the packet.
    OuterChecksum => outer_checksum,
    /// Its peer, container or port is one of those whose packets are left to the kernel path
    /// ([`PEER_KERNEL`](crate::PEER_KERNEL), [`ENDPOINT_KERNEL`](crate::ENDPOINT_KERNEL),
    /// [`PORT_KERNEL`](crate::PORT_KERNEL)).
    LeftToKernel => left_to_kernel,
    /// What this program does not handle: IPv4 options, a VLAN tag, outer length fields that
    /// do not say what arrived, a packet whose segments the kernel cannot cut inside a tunnel.
    Unreadable => unreadable,
    /// The guards let it through, and the programs are to do no more than that
    /// ([`CONFIG_GUARD_ONLY`](crate::CONFIG_GUARD_ONLY)).
    ForwardingOff => forwarding_off,
}
