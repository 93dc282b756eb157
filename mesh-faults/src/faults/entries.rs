//! Routes, forwarding entries and neighbours that a link flap, a network manager or a person
//! flushes. The fast path carries on; the kernel path is put back underneath it.

use crate::fault::{Fault, Promise};

pub(super) const FAULTS: &[Fault] = &[
    Fault::damage(
        "routes-flushed",
        "all routes over `vxlan100` are flushed",
        Promise::lossless_repair(),
        &["ip route flush dev vxlan100"],
    ),
    Fault::damage(
        "forwarding-flushed",
        "the forwarding database of `vxlan100` is flushed",
        Promise::lossless_repair(),
        &["bridge fdb flush dev vxlan100"],
    ),
    Fault::damage(
        "neighbours-flushed",
        "the neighbours on `vxlan100` are flushed",
        Promise::lossless_repair(),
        &["ip neighbour flush dev vxlan100 nud permanent"],
    ),
];
