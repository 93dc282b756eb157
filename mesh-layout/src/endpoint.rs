//! Containers of this node, by address, MAC address and port of the bridge.

/// Key of the `endpoints` map: the address of a container on this node.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey {
    /// The container's address.
    pub address: [u8; 4],
}

/// Value of the `endpoints` map: where packets for a container are delivered.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Index of the host's end of the container's veth pair.
    pub link: u32,
    /// MAC address of the container's end.
    pub mac: [u8; 6],
    /// [`ENDPOINT_HELD`], [`ENDPOINT_KERNEL`] and [`ENDPOINT_PORT_KERNEL`], or 0.
    pub flags: u16,
    /// Whom the container is, for policy; 0 for nobody known.
    pub identity: u32,
}

/// Flag of an [`Endpoint`]: its container is known to hold the address, because a container
/// runtime said so or it was seen on the interface inside. While its port exists, no other port
/// may send from the address. Without the flag the entry was learnt from packets, and only says
/// where to deliver.
pub const ENDPOINT_HELD: u16 = 1;

/// Flag of an [`Endpoint`]: the kernel path delivers its packets, because something of the host's at its
/// port, such as shaping, is to see them.
pub const ENDPOINT_KERNEL: u16 = 2;

/// Flag of an [`Endpoint`]: its port's entry has [`PORT_KERNEL`]. Said here as well, so that a packet from
/// an address that is bound to its port needs no second entry.
pub const ENDPOINT_PORT_KERNEL: u16 = 4;

/// Key of the `macs` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacKey {
    /// The MAC address of a container's interface.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: [u8; 2],
}

/// Value of the `macs` map: the port behind which a MAC address is. While the port exists, no
/// other may send from the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacHolder {
    /// Index of the host's end of the container's veth pair.
    pub link: u32,
}

/// Key of the `strict_ports` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey {
    /// Index of the host's end of the container's veth pair.
    pub link: u32,
}

/// Value of the `strict_ports` map: what is special about a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StrictPort {
    /// [`PORT_STRICT`] and [`PORT_KERNEL`], or 0.
    pub flags: u32,
}

/// Flag of a [`StrictPort`]: its container is registered. It speaks from the addresses that
/// [`Endpoint`]s have for its port, each with the MAC address there, and from no other, also of
/// those that nobody holds.
pub const PORT_STRICT: u32 = 1;

/// Flag of a [`StrictPort`]: the program there guards alone, because something of the host's at the port,
/// such as a policer, is to see what the container sends. Endpoints behind it have
/// [`ENDPOINT_PORT_KERNEL`]. Past that, on the bridge, its packets fare like all others.
pub const PORT_KERNEL: u32 = 2;
