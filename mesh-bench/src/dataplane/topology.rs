//! The networks that are compared.

pub(crate) mod bed;
mod cable;
mod flannel;
mod quilt;
mod redirects;
mod rules;

use serde::Serialize;

/// A way for packets to get from one host to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Topology {
    BareUnderlay,
    BareRedirects,
    PlainRouting,
    KernelVxlan,
    KernelVxlanWithRules,
    QuiltMesh,
    QuiltMeshWithRules,
    QuiltMeshBefore,
}

impl Topology {
    /// Every topology, from the least work to the product.
    pub(crate) const ALL: [Self; 7] = [
        Self::BareUnderlay,
        Self::BareRedirects,
        Self::PlainRouting,
        Self::KernelVxlan,
        Self::KernelVxlanWithRules,
        Self::QuiltMesh,
        Self::QuiltMeshWithRules,
    ];

    /// Those of a comparison with an earlier build.
    pub(crate) const BESIDE_BEFORE: [Self; 4] = [
        Self::BareRedirects,
        Self::KernelVxlan,
        Self::QuiltMeshBefore,
        Self::QuiltMesh,
    ];

    /// What the others are compared with.
    pub(crate) const REFERENCE: Self = Self::KernelVxlan;

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BareUnderlay => "bare underlay",
            Self::BareRedirects => "bare redirects",
            Self::PlainRouting => "plain routing",
            Self::KernelVxlan => "kernel VXLAN",
            Self::KernelVxlanWithRules => "kernel VXLAN + rules",
            Self::QuiltMesh => "Quilt Mesh",
            Self::QuiltMeshWithRules => "Quilt Mesh + rules",
            Self::QuiltMeshBefore => "Quilt Mesh before",
        }
    }

    /// What it consists of, for people who read the figures.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::BareUnderlay => "host to host, no containers: the limit",
            Self::BareRedirects => {
                "container veth and underlay joined by one bpf_redirect each way: no encapsulation, no map"
            }
            Self::PlainRouting => {
                "container veth on a bridge, a static route to the other host's subnet"
            }
            Self::KernelVxlan => {
                "the same with a VXLAN device as flannel makes it (VNI 1, port 8472, nolearning, \
                 one forwarding entry, neighbour and onlink route per peer)"
            }
            Self::KernelVxlanWithRules => {
                "the same with the NAT and FORWARD rules of Docker and flannel"
            }
            Self::QuiltMesh => "quilt-runtime on both hosts",
            Self::QuiltMeshWithRules => "the same with the same rules",
            Self::QuiltMeshBefore => "an earlier build's quilt-runtime on both hosts",
        }
    }

    /// Whether Docker's and flannel's rules are in force on its hosts.
    pub(crate) fn has_rules(self) -> bool {
        matches!(self, Self::KernelVxlanWithRules | Self::QuiltMeshWithRules)
    }

    /// Whether quilt-runtime makes it.
    pub(crate) fn is_ours(self) -> bool {
        matches!(
            self,
            Self::QuiltMesh | Self::QuiltMeshWithRules | Self::QuiltMeshBefore
        )
    }

    /// Bytes that encapsulation takes from the underlay's MTU.
    fn overhead(self) -> u32 {
        match self {
            Self::BareUnderlay | Self::BareRedirects | Self::PlainRouting => 0,
            _ => mesh_layout::ENCAPSULATION_LEN as u32,
        }
    }
}
