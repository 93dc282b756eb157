//! Why a guard dropped a packet.

macro_rules! reasons {
    (
        $(#[$enum_doc:meta])* enum $reason:ident;
        $(#[$struct_doc:meta])* struct $counts:ident;
        $($(#[$doc:meta])* $variant:ident => $field:ident,)+
    ) => {
        $(#[$enum_doc])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $reason {
            $($(#[$doc])* $variant,)+
        }

        impl $reason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The reason's name, which is also the name of its counter in `bpftool`'s output.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($field),)+
                }
            }
        }

        $(#[$struct_doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $counts {
            $($(#[$doc])* pub $field: u64,)+
        }

        impl $counts {
            /// The counter of `reason`.
            pub const fn get(&self, reason: $reason) -> u64 {
                match reason {
                    $($reason::$variant => self.$field,)+
                }
            }

            /// The counter of `reason`, to change it.
            #[inline(always)]
            pub const fn get_mut(&mut self, reason: $reason) -> &mut u64 {
                match reason {
                    $($reason::$variant => &mut self.$field,)+
                }
            }
        }
    };
}
pub(crate) use reasons;

reasons! {
    /// Why a guard dropped a packet.
    enum DropReason;
    /// The only entry of the `drops` map, one per CPU: dropped packets by reason.
    struct Drops;

    /// VXLAN of our VNI from an address that is no peer's.
    UnknownVtep => unknown_vtep,
    /// From a peer, but its inner source lies outside that peer's subnet.
    ForeignSource => foreign_source,
    /// From a peer, but its inner destination is not in this node's subnet.
    ForeignTarget => foreign_target,
    /// VXLAN header without the VNI flag, cut short before the inner headers, or behind IPv4
    /// options; or inner headers that cannot be.
    Malformed => malformed,
    /// The inner packet is not IPv4; nothing else crosses the overlay.
    NotIpv4 => not_ipv4,
    /// The headers just added, or left, are out of reach: does not happen.
    RewriteFailed => rewrite_failed,
    /// From a container: the source address, or an ARP message's sender, is another container's
    /// or none of this node's subnet.
    SpoofedAddress => spoofed_address,
    /// From a container: the source MAC address is another container's.
    SpoofedMac => spoofed_mac,
    /// From a container: it speaks with the gateway's address or MAC address.
    GatewayClaimed => gateway_claimed,
    /// From a container: VXLAN of our VNI to anything but another container.
    ContainerVxlan => container_vxlan,
    /// From a container: an IPv6 router advertisement, or a redirect.
    RouterAdvert => router_advert,
    /// From a container: the answer of a DHCP server.
    DhcpAnswer => dhcp_answer,
    /// From a peer: a router on the underlay met congestion, and the sender takes no part in being told
    /// of it (RFC 6040, section 4.2), so that the loss has to tell it.
    CongestionUntold => congestion_untold,
}
