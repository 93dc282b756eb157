//! What a program decided, and the one place where that is counted.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_ktime_get_coarse_ns,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use mesh_layout::{DropEvent, DropReason, PassReason};

use crate::{
    maps::{DROPS, EVENTS, PASSES, PEER_STATS},
    packet::Packet,
};

/// What a program decided about a packet.
pub(crate) enum Verdict {
    /// Redirected; the value is what the redirecting helper returned.
    Redirect(i32),
    /// Left to the kernel path.
    Pass(PassReason),
    /// Dropped by a guard.
    Drop(Dropped),
}

/// An index beyond every array, where no peer is to blame. An `Option` would leave its value
/// unset, and the verifier refuses a program that so much as copies an unset register.
pub(crate) const NO_PEER: u32 = u32::MAX;

/// A dropped packet: why, and what was read of it.
pub(crate) struct Dropped {
    pub(crate) reason: DropReason,
    /// Counters of the peer it came from, or [`NO_PEER`].
    pub(crate) counters: u32,
    pub(crate) vni: u32,
    pub(crate) outer_source: u32,
    pub(crate) outer_destination: u32,
    pub(crate) inner_source: u32,
    pub(crate) inner_destination: u32,
}

impl Dropped {
    /// A drop of which only the reason is known.
    #[inline(always)]
    pub(crate) const fn because(reason: DropReason) -> Self {
        Self {
            reason,
            counters: NO_PEER,
            vni: 0,
            outer_source: 0,
            outer_destination: 0,
            inner_source: 0,
            inner_destination: 0,
        }
    }
}

/// On each CPU the first drops of a reason are all reported, later ones every so often: a
/// flood must not become a flood of events. The counters miss none.
const FIRST_EVENTS: u64 = 16;
/// See [`FIRST_EVENTS`]. A power of two.
const EVENT_EVERY: u64 = 256;

impl Verdict {
    /// Counts the verdict and turns it into what the hook understands.
    #[inline(always)]
    pub(crate) fn conclude(self, context: &TcContext) -> i32 {
        match self {
            Self::Redirect(action) => action,
            Self::Pass(reason) => {
                if let Some(passes) = PASSES.get_ptr_mut(0) {
                    // SAFETY: this CPU's own slot; programs on a hook are not interrupted by
                    // others of their kind.
                    unsafe { *(*passes).get_mut(reason) += 1 };
                }
                // The next program on the hook, or the kernel; the same value for tcx
                // (TCX_NEXT) and for a clsact filter.
                TC_ACT_UNSPEC
            }
            Self::Drop(dropped) => {
                record(&dropped, context);
                TC_ACT_SHOT
            }
        }
    }
}

/// Counts a drop, samples it and, where switched on, logs it.
#[inline(always)]
fn record(dropped: &Dropped, context: &TcContext) {
    let packet = Packet::new(context);
    count_drop(dropped, packet.link(), packet.len());
    debug!(
        context,
        "drop {}: outer {:i} > {:i}, inner {:i} > {:i}",
        dropped.reason as u32,
        u32::from_be(dropped.outer_source),
        u32::from_be(dropped.outer_destination),
        u32::from_be(dropped.inner_source),
        u32::from_be(dropped.inner_destination),
    );
}

/// Counts a drop, and samples it into the ring buffer.
#[inline(always)]
pub(crate) fn count_drop(dropped: &Dropped, link: u32, length: u32) {
    let mut seen = 0;
    if let Some(drops) = DROPS.get_ptr_mut(0) {
        // SAFETY: this CPU's own slot, see above.
        unsafe {
            let counter = (*drops).get_mut(dropped.reason);
            *counter += 1;
            seen = *counter;
        }
    }
    if let Some(stats) = PEER_STATS.get_ptr_mut(dropped.counters) {
        // SAFETY: this CPU's own slot, see above.
        unsafe { (*stats).drops += 1 };
    }
    if seen <= FIRST_EVENTS || seen & (EVENT_EVERY - 1) == 0 {
        let event = DropEvent {
            // SAFETY: the helper has no preconditions.
            time_ns: unsafe { bpf_ktime_get_coarse_ns() },
            reason: dropped.reason as u32,
            link,
            length,
            vni: dropped.vni,
            outer_source: dropped.outer_source.to_ne_bytes(),
            outer_destination: dropped.outer_destination.to_ne_bytes(),
            inner_source: dropped.inner_source.to_ne_bytes(),
            inner_destination: dropped.inner_destination.to_ne_bytes(),
        };
        // A full buffer loses the sample; the counter above has the drop.
        let _ = EVENTS.output(event, 0);
    }
}
