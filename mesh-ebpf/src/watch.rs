//! Telling of what becomes of packets, while somebody looks.
//!
//! Nobody does, nearly always: then a verdict costs one comparison more. The runtime says in the `watch` map until when
//! somebody does.

use aya_ebpf::bindings::TC_ACT_REDIRECT;
use mesh_layout::{
    ETHERNET_LEN, ETHERTYPE_IPV4, EVENT_VERSION, EVENT_WATCHED, EventProgram, IPV4_LEN,
    PROTOCOL_UDP, PacketEvent, PassReason, UDP_LEN, VERDICT_DELIVER, VERDICT_FORWARD, VERDICT_PASS,
    WATCH_CARRIED, WATCH_WINDOW_SHIFT, Watch, mapped,
};

use crate::{
    count::now,
    maps::{CONFIG, EVENTS, WATCH, WATCH_STATS},
    packet::{INNER_IP, OUTER_IP, OUTER_UDP, PROTOCOL_TCP, Packet},
};

/// What whoever looks wants to be told of; `None` while nobody does.
#[inline(always)]
fn watch() -> Option<&'static Watch> {
    // Neither field is ever half written: each is one aligned word.
    let watch = WATCH.get(0)?;
    // The clock is not asked while nobody looks.
    if watch.until_ns == 0 || watch.until_ns < now() {
        return None;
    }
    Some(watch)
}

/// Whether a drop that is not sampled anyway is to be told of.
#[inline(always)]
pub(crate) fn wants_drop() -> bool {
    match watch() {
        Some(watch) => take_turn(watch, true),
        None => false,
    }
}

/// Counts an event that found no room.
#[inline(always)]
pub(crate) fn count_lost() {
    if let Some(stats) = WATCH_STATS.get_ptr_mut(0) {
        // SAFETY: this CPU's own slot; programs on a hook are not interrupted by others of their kind.
        unsafe { (*stats).lost += 1 };
    }
}

/// Whether this window's budget has room for one more; counts it either way.
#[inline(always)]
fn take_turn(watch: &Watch, drop: bool) -> bool {
    let Some(stats) = WATCH_STATS.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: this CPU's own slot, see above.
    let stats = unsafe { &mut *stats };
    let window = now() >> WATCH_WINDOW_SHIFT;
    if stats.window != window {
        stats.window = window;
        stats.drops = 0;
        stats.others = 0;
    }
    // Of their own, so that a flood of the ones does not hide the others.
    let told = match drop {
        true => &mut stats.drops,
        false => &mut stats.others,
    };
    if *told >= watch.budget {
        stats.over_budget += 1;
        return false;
    }
    *told += 1;
    true
}

/// What is told of a packet that was redirected. `action` is what the redirecting helper returned.
#[inline(always)]
pub(crate) const fn carried(program: EventProgram, action: i32) -> u64 {
    let what = match program {
        EventProgram::Encapsulate | EventProgram::CatchAll => {
            what(program, VERDICT_FORWARD, 0, ENCAPSULATED)
        }
        _ => what(program, VERDICT_DELIVER, 0, PLAIN),
    };
    what | (action as u64 & 0xff) << 56
}

/// What is told of a packet that is left to the kernel path.
#[inline(always)]
pub(crate) const fn passed(program: EventProgram, reason: PassReason) -> u64 {
    let headers = match program {
        EventProgram::Decapsulate => ENCAPSULATED,
        _ => PLAIN,
    };
    what(program, VERDICT_PASS, reason as u32, headers)
}

/// What is told of a packet that the kernel is about to encapsulate.
pub(crate) const SENT_BY_KERNEL: u64 = what(EventProgram::CountEgress, VERDICT_FORWARD, 0, PLAIN);

/// Tells of a packet, if somebody looks at more than drops.
///
/// What is told goes by a map, out of which it comes as a number of which the verifier knows nothing: one that it knew, and
/// saw compared, would have it go through all of [`tell`] once for each way to each verdict. As a function of its own, with such
/// numbers, the verifier of Linux 6.1 did not come to the end of it in minutes.
#[inline(always)]
pub(crate) fn told(packet: Packet, what: u64) {
    if let Some(watch) = watch()
        && let Some(stats) = WATCH_STATS.get_ptr_mut(0)
    {
        // SAFETY: this CPU's own slot, see above; no other program of ours looks into it between the two.
        let what = unsafe {
            core::ptr::write_volatile(&raw mut (*stats).telling, what);
            core::ptr::read_volatile(&raw const (*stats).telling)
        };
        if watch.flags & WATCH_CARRIED != 0 && is_told(what) {
            tell(packet, watch, what);
        }
    }
}

/// Whether it has to do with the mesh, as most packets of a host do not; and of one that was to be redirected, whether it was.
#[inline(always)]
fn is_told(what: u64) -> bool {
    const OTHERS: u64 = (VERDICT_PASS as u64) << 32 | PassReason::NotVxlan as u64;
    let carried = what >> 32 & 0xff != VERDICT_PASS as u64 && what >> 56 != 0;
    what & 0xff_ffff_ffff != OTHERS && (!carried || what >> 56 == TC_ACT_REDIRECT as u64)
}

/// Which headers a packet has: its own alone, or outer ones around them.
const PLAIN: u64 = 0;
const ENCAPSULATED: u64 = 1;

/// What is told, in one word.
#[inline(always)]
const fn what(program: EventProgram, verdict: u8, reason: u32, headers: u64) -> u64 {
    headers << 48 | (program as u64) << 40 | (verdict as u64) << 32 | reason as u64
}

/// Tells, if it is whom the one who looks asks about, and the window has room.
#[inline(always)]
fn tell(packet: Packet, watch: &Watch, what: u64) {
    let Some(config) = CONFIG.get(0) else {
        return;
    };
    let encapsulated = what >> 48 & 0xff == ENCAPSULATED;
    let (ethernet, inner_at) = match encapsulated {
        true => (INNER_IP - ETHERNET_LEN, INNER_IP as u32),
        false => (0, OUTER_IP as u32),
    };
    // The mesh carries IPv4: what else containers say to each other is told to nobody.
    match packet.load::<2>(ethernet as u32 + 12) {
        Some(ethertype) if u16::from_be_bytes(ethertype) == ETHERTYPE_IPV4 => {}
        // An outer fragment has inner headers in the first alone.
        _ if encapsulated => {}
        _ => return,
    }
    let (outer_source, outer_destination, vni) = match encapsulated {
        true => outer(packet),
        false => ([0; 4], [0; 4], config.vni),
    };
    let inner = packet.load::<IPV4_LEN>(inner_at).unwrap_or([0; IPV4_LEN]);
    let source = [inner[12], inner[13], inner[14], inner[15]];
    let destination = [inner[16], inner[17], inner[18], inner[19]];
    if watch.subnet != [0; 4] {
        let mask = u32::from_ne_bytes(config.mask);
        let subnet = u32::from_ne_bytes(watch.subnet);
        if u32::from_ne_bytes(source) & mask != subnet
            && u32::from_ne_bytes(destination) & mask != subnet
        {
            return;
        }
    }
    if !take_turn(watch, false) {
        return;
    }
    let protocol = inner[9];
    let later = u16::from_be_bytes([inner[6], inner[7]]) & 0x1fff != 0;
    let ports = match !later && (protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP) {
        true => packet.load::<4>(inner_at + u32::from(inner[0] & 0xf) * 4),
        false => None,
    };
    let [a, b, c, d] = ports.unwrap_or([0; 4]);
    let Some(mut event) = EVENTS.reserve(0) else {
        count_lost();
        return;
    };
    event.write(PacketEvent {
        time_ns: now(),
        version: EVENT_VERSION,
        kind: EVENT_WATCHED,
        program: (what >> 40) as u8,
        verdict: (what >> 32) as u8,
        reason: what as u32,
        link: packet.link(),
        length: packet.len(),
        vni,
        source_port: u16::from_be_bytes([a, b]),
        destination_port: u16::from_be_bytes([c, d]),
        protocol,
        pad: [0; 7],
        outer_source: address(outer_source),
        outer_destination: address(outer_destination),
        inner_source: address(source),
        inner_destination: address(destination),
    });
    event.submit(0);
}

/// Outer source and destination, and the VNI.
#[inline(always)]
fn outer(packet: Packet) -> ([u8; 4], [u8; 4], u32) {
    let addresses = packet.load::<8>(OUTER_IP as u32 + 12).unwrap_or([0; 8]);
    let [a, b, c, d, e, f, g, h] = addresses;
    let vni = packet.load::<4>((OUTER_UDP + UDP_LEN + 4) as u32);
    (
        [a, b, c, d],
        [e, f, g, h],
        u32::from_be_bytes(vni.unwrap_or([0; 4])) >> 8,
    )
}

/// An address of the event; one that was not read is unspecified.
#[inline(always)]
fn address(bytes: [u8; 4]) -> [u8; 16] {
    match bytes {
        [0, 0, 0, 0] => [0; 16],
        bytes => mapped(bytes),
    }
}
