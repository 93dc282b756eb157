//! Layouts of the eBPF maps: what the programs in the kernel and the runtime that fills
//! the maps must agree on, byte for byte.
//!
//! Addresses are `[u8; 4]` in network byte order, so that `bpftool map dump` prints
//! `[10,42,2,0]` and nobody has to swap bytes in the head. All other numbers are in the
//! byte order of the host. Every struct is `repr(C)` with explicit padding, because padding
//! the compiler adds is uninitialised memory, which the verifier refuses in keys and which
//! would leak into values.
//!
//! A change of any layout here needs a new [`LAYOUT_VERSION`]; a map that is added does not. Fields keep their places; new
//! ones come at the end, or take the place of padding or of a field that is gone: a runtime takes
//! over the entries of another layout as far as both know them, and one of an earlier release
//! knows no more of ours than where its own fields were.
//!
//! What is asked for every packet has keys of four bytes, because IPv4 is what is carried, and
//! a short key is the cheaper one to hash and compare. Another family, of containers or
//! of the underlay, gets maps of its own beside these; [`Path`] and [`PacketEvent`], which are not
//! looked up by an address, have room for it already.
#![no_std]

mod config;
mod drop_reason;
mod endpoint;
mod event;
mod names;
mod pass_reason;
mod peer;
mod watch;
mod wire;

pub use config::*;
pub use drop_reason::{DropReason, Drops};
pub use endpoint::*;
pub use event::*;
pub use names::{map_names, program_names};
pub use pass_reason::{PassReason, Passes};
pub use peer::*;
pub use watch::*;
pub use wire::*;

/// Version of the layouts in this crate. It is part of the pin directory's path, because a
/// pinned map is reused by name without anybody comparing its shape.
pub const LAYOUT_VERSION: u32 = 3;

#[cfg(feature = "user")]
mod pod {
    use super::*;

    macro_rules! pod {
        ($($layout:ty),+ $(,)?) => {$(
            // SAFETY: repr(C), made of integers and byte arrays alone, and without padding
            // (checked below), so every byte pattern is a value and every value is bytes.
            unsafe impl aya::Pod for $layout {}
        )+};
    }
    pod!(
        PeerKey,
        Peer,
        VtepKey,
        Vtep,
        PeerStats,
        Path,
        UnderlayKey,
        Underlay,
        EndpointKey,
        Endpoint,
        MacKey,
        MacHolder,
        PortKey,
        StrictPort,
        Config,
        Drops,
        Passes,
        Watch,
        WatchStats,
    );
}

// No hidden padding: each size is the sum of its fields.
const _: () = {
    assert!(size_of::<PeerKey>() == 4);
    assert!(size_of::<Peer>() == 28);
    assert!(size_of::<Vtep>() == 4);
    assert!(size_of::<PeerStats>() == 80);
    assert!(size_of::<Path>() == 36);
    assert!(size_of::<UnderlayKey>() == 4);
    assert!(size_of::<Underlay>() == 4);
    assert!(size_of::<Endpoint>() == 16);
    assert!(size_of::<MacKey>() == 8);
    assert!(size_of::<MacHolder>() == 4);
    assert!(size_of::<PortKey>() == 4);
    assert!(size_of::<StrictPort>() == 4);
    assert!(size_of::<Config>() == 56);
    assert!(size_of::<PacketEvent>() == 104);
    assert!(size_of::<Watch>() == 24);
    assert!(size_of::<WatchStats>() == 40);
    assert!(size_of::<Drops>() == 8 * DropReason::ALL.len());
    assert!(size_of::<Passes>() == 8 * PassReason::ALL.len());
};
