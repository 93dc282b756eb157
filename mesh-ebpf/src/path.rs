//! The way to a peer: what the kernel would do with VXLAN from this host's address to the peer's, asked
//! of its routing and remembered for a moment.
//!
//! Nobody has to tell the programs when a gateway, an interface or an MTU changes, so they are
//! right also while the runtime is late, or gone. Where the kernel's answer is nothing the fast path can
//! do, the kernel path has the packet.

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH,
        BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup, bpf_fib_lookup__bindgen_ty_1,
        bpf_fib_lookup__bindgen_ty_2, bpf_fib_lookup__bindgen_ty_3, bpf_fib_lookup__bindgen_ty_4,
        bpf_fib_lookup__bindgen_ty_5, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1,
    },
    helpers::{self, bpf_get_smp_processor_id, bpf_jiffies64, bpf_redirect_neigh},
};
use mesh_layout::{
    Config, ENCAPSULATION_LEN, PEER_MULTIPATH, PROTOCOL_UDP, PassReason, Path, Peer, UnderlayKey,
};

use crate::{
    maps::{PATHS, UNDERLAYS},
    packet::Packet,
};

/// `AF_INET` of the socket interface.
pub(crate) const AF_INET: u16 = 2;

/// Index of the loopback interface in every namespace (LOOPBACK_IFINDEX, net/flow.h).
const LOOPBACK: u32 = 1;

/// For how many of its ticks the kernel's word is good: 8 to 12 ms at 250 ticks a second, at most 30 at 100.
/// Asking takes about as long as all the rest of the program.
const GOOD_FOR: u32 = 2;

/// The way a packet takes.
pub(crate) struct Way {
    /// This CPU's entry.
    path: &'static mut Path,
}

/// The way to `peer` for a packet of `length` bytes, the longest of its segments if it has several, with
/// its outer headers. `source_port` is that of the outer UDP header.
#[inline(always)]
pub(crate) fn to(
    packet: Packet,
    config: &Config,
    peer: &Peer,
    length: u32,
    source_port: u16,
) -> Result<Way, PassReason> {
    let path = PATHS
        .get_ptr_mut(peer.counters)
        .ok_or(PassReason::NoNextHop)?;
    // SAFETY: this CPU's own slot; programs on a hook are not interrupted by others of their kind.
    let path = unsafe { &mut *path };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_jiffies64() } as u32;
    let good = now.wrapping_sub(path.checked) <= GOOD_FOR
        && u32::from_ne_bytes(path.address) == u32::from_ne_bytes(peer.address)
        && path.family != 0
        && peer.flags & PEER_MULTIPATH == 0;
    if !good {
        // Of several ways of equal cost the flow decides; of one, no packet of a peer's differs from another.
        let source_port = match peer.flags & PEER_MULTIPATH {
            0 => 0,
            _ => source_port,
        };
        ask(packet, config, peer, path, now, length, source_port)?;
    }
    if length > path.mtu {
        return Err(PassReason::TooBig);
    }
    Ok(Way { path })
}

/// Asks the kernel, and remembers its answer.
///
/// It is asked as for a packet of its own that is to go out: one that seems to come in by the loopback
/// interface, so that `ip rule from ADDRESS` counts as it does for the kernel's VXLAN. "From an egress
/// perspective" would mean: by a given interface (`bpf_ipv4_fib_lookup`, net/core/filter.c).
#[inline(always)]
fn ask(
    packet: Packet,
    config: &Config,
    peer: &Peer,
    path: &mut Path,
    now: u32,
    length: u32,
    source_port: u16,
) -> Result<(), PassReason> {
    let mut lookup = bpf_fib_lookup {
        family: AF_INET as u8,
        l4_protocol: PROTOCOL_UDP,
        sport: source_port.to_be(),
        dport: (config.port as u16).to_be(),
        // With a length the answer has the MTU: learnt ones and locked ones of the route count.
        __bindgen_anon_1: bpf_fib_lookup__bindgen_ty_1 {
            tot_len: if length > u32::from(u16::MAX) {
                u16::MAX
            } else {
                length as u16
            },
        },
        ifindex: LOOPBACK,
        __bindgen_anon_2: bpf_fib_lookup__bindgen_ty_2 { rt_metric: 0 },
        __bindgen_anon_3: bpf_fib_lookup__bindgen_ty_3 {
            ipv6_src: [u32::from_ne_bytes(config.host_address), 0, 0, 0],
        },
        __bindgen_anon_4: bpf_fib_lookup__bindgen_ty_4 {
            ipv6_dst: [u32::from_ne_bytes(peer.address), 0, 0, 0],
        },
        __bindgen_anon_5: bpf_fib_lookup__bindgen_ty_5 { tbid: 0 },
        smac: [0; 6],
        dmac: [0; 6],
    };
    // SAFETY: the context is valid as long as the program runs, and the parameters live on
    // the stack and are as long as said.
    let answer = unsafe {
        helpers::bpf_fib_lookup(
            packet.skb.cast(),
            &mut lookup,
            size_of::<bpf_fib_lookup>() as i32,
            0,
        )
    };
    const FOUND: i64 = BPF_FIB_LKUP_RET_SUCCESS as i64;
    const UNRESOLVED: i64 = BPF_FIB_LKUP_RET_NO_NEIGH as i64;
    const TOO_LONG: i64 = BPF_FIB_LKUP_RET_FRAG_NEEDED as i64;
    if answer == TOO_LONG {
        // What else there is to know of the way it has not said.
        return Err(PassReason::TooBig);
    }
    const NOT_FORWARDING: i64 = BPF_FIB_LKUP_RET_FWD_DISABLED as i64;
    let known =
        path.link != 0 && u32::from_ne_bytes(path.address) == u32::from_ne_bytes(peer.address);
    if answer == NOT_FORWARDING && known {
        // Somebody has switched forwarding off, and the runtime switches it on again: what was known of the way
        // stands until the kernel answers. The kernel path would lose the packet.
        path.checked = now;
        return Ok(());
    }
    if path.family == 0 {
        path.identification = first_identification();
    }
    path.address = peer.address;
    path.family = AF_INET;
    // Until it is known, and where it is the kernel path's, the next packet asks again.
    path.checked = now.wrapping_sub(GOOD_FOR + 1);
    path.link = 0;
    if answer != FOUND && answer != UNRESOLVED {
        return Err(PassReason::NoNextHop);
    }
    let key = UnderlayKey {
        link: lookup.ifindex,
    };
    // SAFETY: only whether the entry exists counts.
    if unsafe { UNDERLAYS.get(&key) }.is_none() {
        return Err(PassReason::NoNextHop);
    }
    path.link = lookup.ifindex;
    path.family = u16::from(lookup.family);
    // SAFETY: any bytes are an address, of either family.
    path.next_hop =
        unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(lookup.__bindgen_anon_4.ipv6_dst) };
    // SAFETY: both fields of the union are the same number.
    path.mtu = unsafe { lookup.__bindgen_anon_1.mtu_result }.into();
    if answer == FOUND {
        // Otherwise the kernel resolves the neighbour for this packet: until then the MTU is still the length
        // that was asked for.
        path.checked = now;
    }
    Ok(())
}

/// Where this CPU begins to count: as far as can be from where others do.
#[inline(always)]
fn first_identification() -> u16 {
    // SAFETY: the helper has no preconditions.
    (unsafe { bpf_get_smp_processor_id() } as u16).reverse_bits()
}

impl Way {
    /// Reserves identifications for `packets` outer headers, and returns the first, in the byte order of the
    /// host.
    #[inline(always)]
    pub(crate) fn identify(&mut self, packets: u64) -> u16 {
        let first = self.path.identification;
        self.path.identification = first.wrapping_add(packets as u16);
        first
    }

    /// Sends the packet off: to the kernel's neighbour, whose state it keeps as a packet of the kernel's own would.
    /// Writing a remembered MAC address and redirecting to the bare interface would do without its lookup.
    #[inline(always)]
    pub(crate) fn send(self) -> i32 {
        let mut next_hop = bpf_redir_neigh {
            nh_family: self.path.family.into(),
            __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 {
                // SAFETY: sixteen bytes either way.
                ipv6_nh: unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(self.path.next_hop) },
            },
        };
        // SAFETY: the parameters live on the stack and are as long as said.
        unsafe {
            bpf_redirect_neigh(
                self.path.link,
                &mut next_hop,
                size_of::<bpf_redir_neigh>() as i32,
                0,
            ) as i32
        }
    }
}

/// The length of an inner packet on the way, without the Ethernet header.
#[inline(always)]
pub(crate) fn outer_length(inner: u32) -> u32 {
    inner + ENCAPSULATION_LEN as u32
}
