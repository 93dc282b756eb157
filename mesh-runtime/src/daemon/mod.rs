//! The daemon around the library: its options, its socket and its server.

pub(crate) mod options;
pub(crate) mod serve;
pub(crate) mod socket;
