//! What is wrong with the way to one peer, as a question along it finds out.

use crate::{Kind, Severity};

kinds! {
    PEER_NOT_SET_UP = "peer-not-set-up", Error, "This node has no way to the peer over the overlay",
        breaks "nothing of this node's reaches its containers",
        remedy "see what else is wrong on this node (meshctl status); the runtime sets it up by itself within seconds once it can";
    PEER_HOST_SILENT = "peer-host-silent", Error, "The peer's host does not answer",
        breaks "nothing reaches its containers",
        remedy "see whether that host is up and its interface has that address, and whether something on the way drops what is sent there; one that answers no pings cannot be told from one that is down";
    PEER_PORT_UNSERVED = "peer-port-unserved", Error, "The peer's host does not serve the UDP port of VXLAN",
        breaks "nothing reaches its containers",
        remedy "start quilt-runtime there, and see that both have the same UDP port (--vxlan-port of the control plane)";
    VXLAN_NOT_THROUGH = "vxlan-not-through", Error, "VXLAN does not get to the peer and back",
        breaks "nothing of the overlay comes through, although the host answers otherwise",
        remedy "have UDP port 4789 let through by hypervisor, security group and packet filters on the way and there, or have all nodes use another port (--vxlan-port of the control plane)";
    NO_SUCH_ENDPOINT = "no-such-endpoint", Error, "The peer answers over the overlay, but nobody at that address",
        breaks "what is for that address is lost there",
        remedy "see which addresses are in use there (meshctl addresses on that node); a container may also drop pings itself";
    PEER_WITHOUT_PROBES = "peer-without-probes", Notice, "The peer has no endpoint for probes",
        breaks "what containers there receive cannot be tried out; its host answers over the overlay",
        remedy "upgrade quilt-runtime there, start it without --probe-endpoint off, or free the last address of its subnet";
    NO_PROBE_ENDPOINT = "no-probe-endpoint", Notice, "This node has no endpoint for probes",
        breaks "probes leave by the kernel path alone, and say nothing of the fast path",
        remedy "free the last address of this node's subnet, or start the runtime without --probe-endpoint off";
    FAST_PATH_SILENT = "fast-path-silent", Error, "The kernel path comes through, and what containers send does not",
        breaks "containers do not reach that peer",
        remedy "start the runtime with --fast-path off to have the kernel path carry everything, and report it (meshctl bugreport)";
    KERNEL_PATH_SILENT = "kernel-path-silent", Warning, "Containers reach the peer, and the kernel path does not",
        breaks "there is nothing to fall back to when the programs are absent",
        remedy "see whether a packet filter of the host drops what comes or goes over the VXLAN device (nft list ruleset)";
    PATH_LOSSY = "path-lossy", Warning, "Some packets are lost on the way",
        breaks "connections are slow",
        remedy "look for errors and drops of the underlay's interfaces on both hosts (ip -statistics link) and for overload";
    PATH_MTU_SMALL = "path-mtu-small", Error, "Packets that containers may send do not come through",
        breaks "connections hang as soon as they carry much",
        remedy "raise the MTU on the way, or lower that of the underlay's interface on both hosts (ip link set INTERFACE mtu MTU): containers that start afterwards send smaller packets";
    OUTER_FRAGMENTS = "outer-fragments", Warning, "Large packets are fragmented on the underlay",
        breaks "large packets cost more, and are lost where fragments are dropped",
        remedy "raise the MTU on the way, or lower that of the underlay's interface on both hosts (ip link set INTERFACE mtu MTU)";
    PATH_NOT_FAST = "path-not-fast", Notice, "The fast path does not carry what is for that peer",
        breaks "it takes the slower kernel path",
        remedy "see why (meshctl status)";
}
