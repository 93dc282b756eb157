//! The addresses of a node's containers: a pool without a kernel, and its durable registry.
//!
//! An address is leased to an [`Owner`] and to nobody else until the owner releases it.

mod endpoint;
mod lease;
mod owner;

pub use endpoint::{Endpoint, MAX_PUBLISHED, Protocol, Published, PublishedError};
pub use lease::{Lease, LeaseError, Lifetime, MAX_LABEL_BYTES, MAX_LABELS, MAX_NAMES, NamedLabels};
pub use owner::{Owner, OwnerError};
