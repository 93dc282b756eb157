//! The addresses of a node's containers: a pool without a kernel, and its durable registry.
//!
//! An address is leased to an [`Owner`] and to nobody else until the owner releases it.

mod committer;
mod endpoint;
mod ipam;
mod journal;
mod lease;
mod leases;
mod owner;
mod pool;
mod ports;
mod record;
mod refusal;
mod replay;
mod request;
mod subnet;

pub use endpoint::{Endpoint, MAX_PUBLISHED, Protocol, Published, PublishedError, endpoint_mac};
pub use ipam::{Ipam, IpamError};
pub use journal::{DiskError, OpenError};
pub use lease::{Lease, LeaseError, Lifetime, MAX_LABEL_BYTES, MAX_LABELS, MAX_NAMES, NamedLabels};
pub use owner::{Owner, OwnerError};
pub use pool::{Applied, Change, Done, Pool};
pub use refusal::{Exhausted, Holder, Refusal};
pub use request::{EndpointPlan, Granted, Request, Usage};
pub use subnet::{Reserved, gateway};
