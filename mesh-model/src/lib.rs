//! The data plane's specification, executable: for each eBPF program one function from a
//! packet and what the node knows to a verdict, the packet's bytes afterwards, and what is
//! counted.
//!
//! It is written from the RFCs (791, 826, 1624, 6040, 7348, 8200) and from the layouts of
//! [`mesh_layout`], not from the programs, and for a reader, not for speed: bytes are read
//! into headers, headers are named, and each function tests one condition after the other in
//! the order in which they count. The tests under `tests/` run the programs in the kernel
//! (`BPF_PROG_TEST_RUN`) and this model on the same packets and demand the same answers.
//!
//! | program | function | specification |
//! |---|---|---|
//! | `encapsulate` | [`encapsulate()`] | container → peer |
//! | `catch_all` | [`catch_all()`] | the same, of a port without a program |
//! | `decapsulate` | [`decapsulate()`] | peer → container |
//! | `safety_net` | [`safety_net()`] | what the kernel decapsulated → container |
//! | `count_egress` | [`count_egress()`] | what the kernel encapsulates |
//!
//! # What it leaves to others, as the programs do
//!
//! The programs are routers that a packet meets between two hosts that check it themselves.
//! Of the inner header they do not verify the checksum (a wrong one stays wrong, because the
//! TTL's part is corrected and nothing computed anew, and the container drops the packet), nor
//! that its length agrees with the packet's (the container takes what its header says, and
//! drops the packet if that is not there). The outer header ends here, so it is verified: what
//! is wrong with it is left to the kernel, which drops it and counts that.
//!
//! The kernel's `BPF_PROG_TEST_RUN` cannot make a packet whose headers are not in its linear
//! part, or one of a known kind of segmentation; of those the model says nothing. Nor can it make
//! one with a VLAN tag taken off, which those tests send over real interfaces. What the programs remember
//! of the way to a peer makes a difference to speed alone: the model asks for every packet.

mod checksum;
mod congestion;
mod decapsulate;
mod deliver;
mod encapsulate;
mod frames;
pub mod generate;
mod header;
mod ledger;
mod node;
mod outcome;
mod port_guard;
mod program;
mod safety_net;
mod segments;

pub use checksum::{decrement_ttl, header_checksum};
pub use congestion::{Ecn, inner_after, outer_for};
pub use decapsulate::decapsulate;
pub use encapsulate::{SOURCE_PORTS, catch_all, encapsulate};
pub use frames::{ArpFrame, Extension, Ipv6Frame, tagged};
pub use header::{Ethernet, Frame, Ipv4, Udp, Vxlan, VxlanFrame};
pub use ledger::Ledger;
pub use node::{Node, Way};
pub use outcome::{Arrival, Counted, Outcome, Redirect, Verdict};
pub use program::Program;
pub use safety_net::{count_egress, safety_net};
