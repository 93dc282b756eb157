//! What a program decided, and the one place where that is counted.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_ktime_get_coarse_ns,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use mesh_layout::{
    DropReason, EVENT_DROP, EVENT_VERSION, EVENT_WATCHED, EventProgram, IPV4_LEN, PROTOCOL_UDP,
    PacketEvent, PassReason, VERDICT_DROP, mapped,
};

use crate::{
    maps::{DROPS, EVENTS, PASSES, PEER_STATS},
    packet::{PROTOCOL_TCP, Packet},
    watch,
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
    /// Where the inner IPv4 header is, or 0.
    pub(crate) inner_at: u32,
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
            inner_at: 0,
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
    pub(crate) fn conclude(self, context: &TcContext, program: EventProgram) -> i32 {
        let (action, what) = match self {
            Self::Redirect(action) => (action, watch::carried(program, action)),
            Self::Pass(reason) => {
                if let Some(passes) = PASSES.get_ptr_mut(0) {
                    // SAFETY: this CPU's own slot; programs on a hook are not interrupted by
                    // others of their kind.
                    unsafe { *(*passes).get_mut(reason) += 1 };
                }
                // The next program on the hook, or the kernel; the same value for tcx
                // (TCX_NEXT) and for a clsact filter.
                (TC_ACT_UNSPEC, watch::passed(program, reason))
            }
            Self::Drop(dropped) => {
                record(&dropped, context, program);
                return TC_ACT_SHOT;
            }
        };
        watch::told(Packet::new(context), what);
        action
    }
}

/// Counts a drop, samples it and, where switched on, logs it.
#[inline(always)]
fn record(dropped: &Dropped, context: &TcContext, program: EventProgram) {
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
    let always = seen <= FIRST_EVENTS || seen & (EVENT_EVERY - 1) == 0;
    if always || watch::wants_drop() {
        let kind = match always {
            true => EVENT_DROP,
            false => EVENT_WATCHED,
        };
        sample(dropped, Packet::new(context), program, kind);
    }
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

/// Reports a drop in the ring buffer.
#[inline(always)]
fn sample(dropped: &Dropped, packet: Packet, program: EventProgram, kind: u8) {
    let (protocol, [source_port, destination_port]) = transport(dropped, packet);
    // A full buffer loses the sample; the counter has the drop.
    let Some(mut event) = EVENTS.reserve(0) else {
        watch::count_lost();
        return;
    };
    event.write(PacketEvent {
        // SAFETY: the helper has no preconditions.
        time_ns: unsafe { bpf_ktime_get_coarse_ns() },
        version: EVENT_VERSION,
        kind,
        program: program as u8,
        verdict: VERDICT_DROP,
        reason: dropped.reason as u32,
        link: packet.link(),
        length: packet.len(),
        vni: dropped.vni,
        source_port,
        destination_port,
        protocol,
        pad: [0; 7],
        outer_source: address(dropped.outer_source),
        outer_destination: address(dropped.outer_destination),
        inner_source: address(dropped.inner_source),
        inner_destination: address(dropped.inner_destination),
    });
    event.submit(0);
}

/// Protocol and ports of the inner packet, as far as they can be read.
#[inline(always)]
fn transport(dropped: &Dropped, packet: Packet) -> (u8, [u16; 2]) {
    const NO_PORTS: [u16; 2] = [0; 2];
    if dropped.inner_at == 0 {
        return (0, NO_PORTS);
    }
    let Some(header) = packet.load::<IPV4_LEN>(dropped.inner_at) else {
        return (0, NO_PORTS);
    };
    let protocol = header[9];
    let later = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    if later || protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP {
        return (protocol, NO_PORTS);
    }
    let ports = dropped.inner_at + u32::from(header[0] & 0xf) * 4;
    match packet.load(ports) {
        Some([a, b, c, d]) => (
            protocol,
            [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])],
        ),
        None => (protocol, NO_PORTS),
    }
}

/// An address of the event; one that was not read is unspecified.
#[inline(always)]
fn address(address: u32) -> [u8; 16] {
    match address {
        0 => [0; 16],
        address => mapped(address.to_ne_bytes()),
    }
}
