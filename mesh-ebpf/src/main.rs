//! The eBPF object of Quilt Mesh.
//!
//! | program | hook | does |
//! |---|---|---|
//! | `encapsulate` | ingress of a bridge port | guards what a container sends; container → peer |
//! | `catch_all` | ingress of the bridge | the same, for ports without a program |
//! | `decapsulate` | ingress of an underlay interface | peer → container |
//! | `safety_net` | ingress of the overlay device | guards and delivers what the kernel decapsulated |
//! | `count_egress` | egress of the overlay device | counts what the kernel encapsulates, and sees that its source is still the one that was guarded |
//!
//! Whatever a program does not want it leaves to the kernel path, which is fully configured
//! at all times: bridge → route → overlay device. So a program may give up at any point
//! before it changed the packet.
//!
//! What they share: `port_guard` is what a container may send at its port of the bridge, and `offers` what it must not offer to
//! others; `path` the way to a peer, `deliver` the last step to a container; `packet` the headers and their bounds, `unfinished`
//! what of a packet is left for others to do; `verdict` and `count` count, and `watch` tells whoever looks; `maps` are the maps.
//!
//! `cargo xtask build-ebpf` builds the object. For any other target this is an empty program,
//! so that the workspace builds, checks and formats as a whole.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod decapsulate;
#[cfg(target_arch = "bpf")]
mod deliver;
#[cfg(target_arch = "bpf")]
mod encapsulate;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod offers;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod path;
#[cfg(target_arch = "bpf")]
mod port_guard;
#[cfg(target_arch = "bpf")]
mod safety_net;
#[cfg(target_arch = "bpf")]
mod unfinished;
#[cfg(target_arch = "bpf")]
mod verdict;
#[cfg(target_arch = "bpf")]
mod watch;

/// The kernel lets programs that call its helpers in only under a licence it knows.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing panics: a panic would be a loop here, which the verifier refuses to load.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    println!("mesh-ebpf runs in the kernel; build its object with: cargo xtask build-ebpf");
}
