//! What of a packet is left for others to do on its way: its checksum, and taking it apart.

use aya_ebpf::{
    bindings::{BPF_CSUM_LEVEL_INC, BPF_CSUM_LEVEL_QUERY, BPF_CSUM_LEVEL_RESET},
    helpers::{bpf_csum_level, bpf_csum_update},
};

use crate::packet::{Ipv4, Packet};

impl Packet {
    /// Whether the packet stands for several, which whoever sends it on takes apart.
    #[inline(always)]
    pub(crate) fn is_to_be_segmented(self) -> bool {
        // SAFETY: the context is valid as long as the program runs.
        unsafe { (*self.skb).gso_size != 0 }
    }

    /// Has the packet, and all that the kernel cuts it into, remember its source. The kernel keeps this
    /// field for classifiers such as us, and nothing on the way to the overlay device writes it.
    #[inline(always)]
    pub(crate) fn remember_source(self, ip: &Ipv4) {
        // SAFETY: the context is valid as long as the program runs, and a program of a tc hook may
        // set the index.
        unsafe { (*self.skb).tc_index = ip.half_of_source() }
    }

    /// Whether its source is not the one it remembers any more.
    #[inline(always)]
    pub(crate) fn has_another_source(self, ip: &Ipv4) -> bool {
        // SAFETY: the context is valid as long as the program runs.
        let remembered = unsafe { (*self.skb).tc_index };
        remembered != 0 && remembered != ip.half_of_source()
    }

    /// Whether a checksum is left to whoever sends the packet on (`CHECKSUM_PARTIAL`). There is no way to
    /// ask for it, but for each of the other three: one that is known to be right has a level, a sum over the whole
    /// packet can be corrected by nothing, and nothing at all is raised to one that is known to be right.
    #[inline(always)]
    pub(crate) fn leaves_checksum(self) -> bool {
        let level = |what| {
            // SAFETY: the context is valid as long as the program runs.
            unsafe { bpf_csum_level(self.skb, u64::from(what)) }
        };
        // SAFETY: as above.
        if level(BPF_CSUM_LEVEL_QUERY) >= 0 || unsafe { bpf_csum_update(self.skb, 0) } >= 0 {
            return false;
        }
        level(BPF_CSUM_LEVEL_INC);
        let raised = level(BPF_CSUM_LEVEL_QUERY) >= 0;
        if raised {
            level(BPF_CSUM_LEVEL_RESET);
        }
        !raised
    }
}
