//! The addresses of a node's containers: a pool without a kernel, and its durable registry.
//!
//! An address is leased to an [`Owner`] and to nobody else until the owner releases it. [`Pool`] has
//! the rules; [`Ipam`] adds a journal on the disk, callers at the same time, and those who watch.
//!
//! ```no_run
//! use mesh_ipam::{Ipam, Lifetime, NamedLabels, Owner, Request};
//!
//! # async fn attach() -> Result<(), Box<dyn std::error::Error>> {
//! let life = "4a1b6b0e-8a2e-4d6f-9d0a-0c5b8f3f8c2f";
//! let ipam = Ipam::open("/var/lib/quilt-mesh/runtime".as_ref(), life)?;
//! ipam.set_subnet("10.42.1.0/24".parse()?).await?;
//! let granted = ipam
//!     .allocate(Request {
//!         owner: Owner::new("podman", "quilt", "3f1c", "eth0")?,
//!         wished: None,
//!         named: NamedLabels::default(),
//!         namespace: None,
//!         lifetime: Lifetime::Life(life.to_owned()),
//!         endpoint: None,
//!     })
//!     .await?;
//! // It is on the disk. Attach the container, and when it has gone:
//! ipam.release(&granted.lease.owner, Some(granted.lease.address)).await?;
//! # Ok(())
//! # }
//! ```

mod committer;
mod drain;
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
mod tombstone;

pub use endpoint::{
    Endpoint, MAX_PUBLISHED, Protocol, Published, PublishedError, endpoint_mac, is_of_all,
};
pub use ipam::{Ipam, IpamError};
pub use journal::{DiskError, OpenError};
pub use lease::{
    Lease, LeaseError, Lifetime, MAX_LABEL_BYTES, MAX_LABELS, MAX_NAMES, NamedLabels,
    NetworkNamespace,
};
pub use owner::{Owner, OwnerError};
pub use pool::{Applied, Change, Done, Pool};
pub use refusal::{Exhausted, Holder, Refusal};
pub use request::{EndpointPlan, Granted, Request, Usage};
pub use subnet::{Reserved, gateway};
pub use tombstone::Tombstones;
