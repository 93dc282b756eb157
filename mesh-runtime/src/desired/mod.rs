//! What the kernel is to show, from settings, wanted and observed state. Pure.

pub(crate) mod endpoints;
pub(crate) mod fast_path;
pub(crate) mod firewall;
pub(crate) mod holders;
pub(crate) mod underlay;
