//! What a daemon gives.

use std::{fmt, future::Future};

use crate::Scrape;

/// Why there is nothing to be had at the moment, in words for who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a daemon gives, whenever it is asked. Both may be given up before they answer.
pub trait Source: Send + Sync + 'static {
    /// Collects everything that the daemon measures.
    fn collect(&self) -> impl Future<Output = Result<Scrape, Unavailable>> + Send;

    /// Whether the daemon can do its work.
    fn ready(&self) -> impl Future<Output = Result<(), Unavailable>> + Send;
}
