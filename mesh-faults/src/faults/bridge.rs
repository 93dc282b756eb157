//! What happens to `quilt0`. Its ports belong to whoever made them; whoever deletes the
//! bridge leaves them without one.

use crate::fault::{Fault, Promise};

pub(super) const FAULTS: &[Fault] = &[
    Fault::damage(
        "bridge-deleted",
        "`quilt0` is deleted, and its containers' interfaces have no bridge any more",
        Promise::recovers_within(1000),
        &["ip link delete quilt0"],
    ),
    Fault::damage(
        "bridge-down",
        "`quilt0` is set down",
        Promise::recovers_within(1000),
        &["ip link set quilt0 down"],
    ),
    Fault::damage(
        "bridge-address-flushed",
        "the addresses of `quilt0` are flushed, and the kernel drops the routes that use them",
        Promise::recovers_within(500),
        &["ip address flush dev quilt0"],
    ),
];
