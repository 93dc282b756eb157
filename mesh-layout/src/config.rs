//! What the node is, and how the packet filter speaks to the programs.

/// The only entry of the `config` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Generation of the peer set that the maps show, as the agent numbered it.
    pub generation: u64,
    /// Network address of this node's subnet.
    pub subnet: [u8; 4],
    /// Mask of every node's subnet, e.g. `[255,255,255,0]`.
    pub mask: [u8; 4],
    /// This node's underlay address: outer source and expected outer destination.
    pub host_address: [u8; 4],
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port of VXLAN.
    pub port: u32,
    /// Index of the overlay device.
    pub overlay_link: u32,
    /// MAC address of this node's overlay device: inner source of what we send.
    pub overlay_mac: [u8; 6],
    /// MAC address of the bridge: the gateway of the containers.
    pub bridge_mac: [u8; 6],
    /// MTU of the overlay device, the largest inner packet; 0 if the program is to ask the
    /// kernel, as in entries of builds that knew no MTU and had zeros here.
    pub overlay_mtu: u32,
    /// [`CONFIG_GUARD_ONLY`] and [`CONFIG_GUARD_TAGGED`], or 0.
    pub flags: u32,
    /// Zero.
    pub pad: [u8; 4],
}

/// Flag of the [`Config`]: the programs guard and count, and leave all forwarding to the kernel
/// path.
pub const CONFIG_GUARD_ONLY: u32 = 1;

/// Flag of the [`Config`]: frames of a VLAN are judged like those of none. A bridge that filters VLANs
/// takes the tag off where a port or the bridge itself has that VLAN untagged.
pub const CONFIG_GUARD_TAGGED: u32 = 2;

/// Priority (`SO_PRIORITY`, socket(7)) of a frame on its way up to the bridge with which the packet
/// filter tells the program there that it came by another port than the one whose address or MAC
/// address it claims. The kernel sets the priority of what a container sends to zero, and that
/// program sets this one back to zero: nobody else sees it. Its low bits are zero, so that a queue
/// would treat it as it treats none.
pub const PRIORITY_ANOTHERS_CLAIM: u32 = 0x514d_0000;
/// Priority with which the packet filter remembers of a frame between ports that it was a fragment when it
/// came, by a port that it does not know, or knows to be without a program.
pub const PRIORITY_UNKNOWN_FRAGMENT: u32 = 0x514d_0010;
/// Priority with which the packet filter tells the bridge's program that a packet's destination is a
/// translated one, where the host's filter sees what its bridges carry: its source is still to be translated,
/// by the kernel, which therefore has to forward it.
pub const PRIORITY_TRANSLATED: u32 = 0x514d_0020;
