//! What of a host, beside the daemons, is in the way of its mesh.

use crate::{Kind, Severity};

kinds! {
    UNDERLAY_DIVERTED = "underlay-diverted", Error, "A policy rule leads VXLAN to peers astray",
        breaks "it leaves by another interface than the node's address is on, and hardly arrives: nothing reaches containers there",
        remedy "have that rule leave out the peers' hosts (ip rule add priority BEFORE to ADDRESS lookup main)";
    UNDERLAY_OVER_OVERLAY = "underlay-over-overlay", Error, "The way to peers' hosts leads over the overlay itself",
        breaks "VXLAN goes round in circles and is lost: nothing reaches containers there",
        remedy "delete the route (ip route get ADDRESS shows it) or the address that brought it";
    OWN_SUBNET_DIVERTED = "own-subnet-diverted", Error, "What is for this node's containers is led elsewhere",
        breaks "this host does not reach them, nor does what comes by the kernel path or for published ports",
        remedy "delete the route or the policy rule that leads there (ip route get ADDRESS shows it)";
    HOST_ADDRESS_ON_OVERLAY = "host-address-on-overlay", Error, "The node's underlay address is on a device of the overlay",
        breaks "what interface and MTU the underlay has is guessed wrongly, and what is for peers' hosts may leave over the overlay",
        remedy "take it away there (ip address delete ADDRESS dev INTERFACE)";
    DEVICE_MANAGED = "device-managed", Warning, "A network manager of the host has hold of our devices",
        breaks "it may take addresses and routes away, or give others, whenever it starts or is told to reload",
        remedy "have it leave them alone (systemd-networkd: Unmanaged=yes in a .network file for them; NetworkManager: unmanaged-devices; \
                dhcpcd: denyinterfaces)";
    MAC_CHANGED = "mac-changed", Error, "A device of ours has another MAC address than peers send to",
        breaks "what other nodes send to the overlay device or the bridge is dropped there",
        remedy "have a .link file with MACAddressPolicy=none for the device, delete the device (ip link delete NAME), and the runtime makes it anew";
    FORWARDING_OFF = "forwarding-off", Error, "The host does not forward what comes in by an interface",
        breaks "answers from outside do not reach containers, nor does what is for published ports; over our devices, nothing by the \
                kernel path",
        remedy "switch it on (sysctl -w net.ipv4.ip_forward=1 net.ipv4.conf.INTERFACE.forwarding=1), and what switched it off, off (/etc/sysctl.d)";
    STRICT_FILTERING = "strict-filtering", Warning, "Strict reverse-path filtering drops what comes from peers",
        breaks "the kernel path takes nothing from these hosts, nor does this host itself",
        remedy "filter loosely (sysctl -w net.ipv4.conf.INTERFACE.rp_filter=2), or let the way back lead over the interface by which they come";
    IPSEC_OVERLAY = "ipsec-overlay", Warning, "An IPsec policy is about what containers send to each other",
        breaks "the fast path does not heed it, and sends as before; the kernel path does, and what it transforms or blocks does not arrive",
        remedy "have the policy leave out the containers' addresses; what shall be encrypted between hosts is VXLAN, their UDP port";
    FILTER_WOULD_DROP = "filter-would-drop", Warning, "A packet filter of somebody else would drop what is the mesh's",
        breaks "nothing has come that way lately; the next that does is lost",
        remedy "have it let through what belongs to the mesh, unless that is meant";
    PACKETS_TAKEN = "packets-taken", Error, "A filter of tc takes packets of the mesh",
        breaks "what it drops or leads elsewhere does not arrive",
        remedy "delete it, unless it is meant (tc filter show dev INTERFACE ingress; tc filter show dev INTERFACE egress)";
    PACKETS_IMPAIRED = "packets-impaired", Warning, "A queueing discipline loses or spoils packets of the mesh",
        breaks "connections are slow, or end",
        remedy "delete it, unless it is meant (tc qdisc delete dev INTERFACE root)";
    STALE_ENTRIES = "stale-entries", Warning, "The overlay device leads to nodes that are none",
        breaks "what is for there is lost, also once another node has that subnet",
        remedy "delete them";
    MAC_OF_PEER = "mac-of-peer", Error, "A peer's host has the MAC address of this host",
        breaks "the network delivers what is for one of them to the other, or to neither",
        remedy "they are clones of one machine: give one of them another MAC address, and see that /etc/machine-id differs as well";
    ADDRESS_ELSEWHERE = "address-elsewhere", Error, "Another machine has this node's underlay address",
        breaks "the network delivers what is for this node to one or the other",
        remedy "give one of them another address; if it is a clone of this one, see that /etc/machine-id differs as well";
    CHECKSUMS_WRONG = "checksums-wrong", Warning, "UDP datagrams arrive with wrong checksums",
        breaks "they are dropped; where they are VXLAN, packets between containers are lost",
        remedy "on the hosts that send them, switch off what computes them wrongly (ethtool -K INTERFACE tx-udp_tnl-segmentation off \
                tx-udp_tnl-csum-segmentation off tx-checksum-ip-generic off)";
    OFFLOAD_DOUBTFUL = "offload-doubtful", Notice, "A network card cuts up VXLAN whose driver is known to have spoilt it",
        breaks "nothing, where hypervisor and driver are new enough; else large packets between containers arrive spoilt, and \
                connections hang",
        remedy "if they do, switch it off (ethtool -K INTERFACE tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off)";
    CONNECTIONS_FULL = "connections-full", Warning, "The table of connections is nearly full",
        breaks "when it is, new connections are dropped, of containers as of the host",
        remedy "make it larger (sysctl -w net.netfilter.nf_conntrack_max=NUMBER), or find who opens so many (conntrack -L)";
    NEIGHBOURS_FULL = "neighbours-full", Warning, "The table of neighbours is nearly full",
        breaks "when it is, addresses are not resolved: hosts and containers that were reached no longer are",
        remedy "make it larger (sysctl -w net.ipv4.neigh.default.gc_thresh3=NUMBER, and gc_thresh2 a half of it)";
    HOST_VERSIONS_DIFFER = "host-versions-differ", Notice, "Parts of several versions run on this host",
        breaks "what only the newer ones can do is not done",
        remedy "bring them to one version, and restart what was not restarted since";
}
