//! Reads the host: the thin shell. Nothing here changes anything.

pub(crate) mod card;
pub(crate) mod ipsec;
pub(crate) mod network;
pub(crate) mod nft;
pub(crate) mod probe;
pub(crate) mod question;
pub(crate) mod settings;
pub(crate) mod tc;
pub(crate) mod ways;
