//! Reads the host: the thin shell. Nothing here changes anything.

pub(crate) mod ipsec;
pub(crate) mod network;
pub(crate) mod question;
pub(crate) mod settings;
pub(crate) mod ways;
