//! What keeps a node's kernel from the wanted state, or its packets from their way.

use crate::{Kind, Severity};

kinds! {
    NO_HOST_ADDRESS = "no-host-address", Error, "This node's underlay address is not known",
        breaks "there is no overlay before it is",
        remedy "give the host a default route, or start runtime and agent with --host-ip ADDRESS";
    HOST_ADDRESS_NOT_HERE = "host-address-not-here", Error, "This node's underlay address is on no interface",
        breaks "there is no overlay without it",
        remedy "give an interface that address, or correct --host-ip on runtime and agent";
    DEVICE_NAME_TAKEN = "device-name-taken", Error, "A device of ours cannot have its name",
        breaks "what the device carries does not pass",
        remedy "rename or delete the other one, or choose another name";
    VXLAN_TAKEN = "vxlan-taken", Error, "Another VXLAN device has our UDP port and VNI",
        breaks "the overlay device cannot be made, and nothing passes by the kernel path",
        remedy "delete it (ip link delete NAME), or stop what made it";
    SMALL_MTU = "small-mtu", Warning, "Containers get a small MTU",
        breaks "programs that rely on larger packets fail",
        remedy "raise the underlay's (ip link set INTERFACE mtu 1500), or have peers reached over another interface";
    NARROW_PEERS = "narrow-peers", Warning, "Peers take small packets alone",
        breaks "programs that rely on larger packets fail between containers here and there",
        remedy "on those nodes, ip link set the interface of the underlay to an MTU of 1330 or more";
    NO_ROUTE_TO_PEERS = "no-route-to-peers", Error, "This host has no route to the hosts of some peers",
        breaks "nothing reaches their containers",
        remedy "check this host's interfaces and its default route (ip route get ADDRESS)";
    FOREIGN_ROUTE = "foreign-route", Error, "A route to a peer's subnet belongs to somebody else",
        breaks "it is left alone, and what is for the containers there goes where it leads",
        remedy "delete it (ip route delete SUBNET) if the peer shall be reached over the overlay";
    FOREIGN_ROUTE_TO_PART = "foreign-route-to-part", Error, "A route to a part of a peer's subnet belongs to somebody else",
        breaks "what is for those containers goes where it leads",
        remedy "delete it (ip route delete PART) if they shall be reached over the overlay";
    FOREIGN_ADDRESS = "foreign-address", Error, "An interface has an address within the cluster's network that is not ours",
        breaks "what is for the containers of that subnet may not reach them",
        remedy "take it away (ip address delete ADDRESS dev INTERFACE)";
    POLICY_RULE = "policy-rule", Error, "A policy rule decides before our routes",
        breaks "what is for peers' containers goes where that rule leads",
        remedy "let our routes decide first (ip rule add priority BEFORE to CLUSTER lookup main), or delete that rule";
    IPSEC_POLICY = "ipsec-policy", Warning, "An IPsec policy is about VXLAN to or from peers",
        breaks "what these peers exchange takes the slower kernel path, which heeds it",
        remedy "have the policy leave out the UDP port of VXLAN if they shall use the fast path";
    KERNEL_REFUSES = "kernel-refuses", Error, "The kernel refuses a change",
        breaks "what it stands for is not in place, and is tried again",
        remedy "see what the reason says; if it stays, report it (meshctl bugreport)";
    KERNEL_UNREADABLE = "kernel-unreadable", Error, "The kernel's network state cannot be read",
        breaks "nothing is compared or repaired until it can",
        remedy "see what the reason says, and whether other programs (ip route) can read it";
    STATE_NOT_KEPT = "state-not-kept", Warning, "The wanted state is not kept on disk",
        breaks "packets pass, but after a reboot the overlay waits for the agent, and addresses are neither leased nor given back",
        remedy "make room or permit writing, or choose --state-dir";
    UNDERLAY_NOT_ETHERNET = "underlay-not-ethernet", Notice, "No fast path over an interface without Ethernet headers",
        breaks "packets to and from peers behind it go over the slower kernel path",
        remedy "nothing, or have peers reached over an Ethernet interface";
    ADDRESS_CONTESTED = "address-contested", Error, "Several containers hold one address",
        breaks "only one of them is reached by it",
        remedy "take it from all but one";
    NO_GUARD_RULES = "no-guard-rules", Error, "The guards' nftables rules are not in place",
        breaks "no port is published, VXLAN from strangers is taken where no eBPF program guards, and the underlay can reach into containers",
        remedy "see what is missing (meshctl firewall check) and what nft says (nft list ruleset); it is tried again by itself";
    NO_ADDRESS_TRANSLATION = "no-address-translation", Error, "The kernel refuses the nftables rules that translate addresses",
        breaks "the guards stand, but containers do not go out under their host's address, and published ports lead nowhere",
        remedy "load its modules (modprobe -a nft_chain_nat nft_nat nft_masq nft_objref), and it is tried again within five minutes";
    NO_GUARD_PROGRAMS = "no-guard-programs", Warning, "No eBPF program guards what containers send",
        breaks "a container may speak from another's address; the nftables rules hold the rest",
        remedy "see why there are none (meshctl status), and give the runtime a kernel and the rights that they need";
    FOREIGN_MASQUERADE = "foreign-masquerade", Error, "A rule of somebody else masquerades what containers send to other nodes",
        breaks "the other nodes drop it (foreign_source)",
        remedy "have that rule leave out the cluster; `nft list ruleset` and `iptables-save -t nat` show it";
    FOREIGN_FIREWALL = "foreign-firewall", Error, "A packet filter of somebody else lets nothing through",
        breaks "no rule of ours overrules it, and what it drops arrives nowhere",
        remedy "have it let through what belongs to the mesh, unless that is meant (meshctl firewall check lists others' chains)";
    VXLAN_SWALLOWED = "vxlan-swallowed", Error, "Something on the way swallows VXLAN",
        breaks "their hosts answer otherwise, and nothing comes over the overlay: a hypervisor, a security group, or a packet \
                filter on the way or there drops it; or the agents there have not heard of this node yet",
        remedy "let it through, or have all nodes use another port (--vxlan-port of the control plane)";
    FAST_PATH_REFUSED = "fast-path-refused", Warning, "The fast path refuses its state",
        breaks "packets take the slower kernel path, or are not guarded by programs, until it is mended; it is tried again",
        remedy "see what the reason says; if it stays, report it (meshctl bugreport)";
}
