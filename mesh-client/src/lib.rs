//! What an engine, its plugin or a container runtime needs to put containers on the mesh.
//!
//! ```no_run
//! # async fn run() -> Result<(), mesh_client::ClientError> {
//! use mesh_client::{Client, DEFAULT_SOCKET, mesh::{AttachEndpointRequest, Owner}};
//!
//! let owner = Owner {
//!     engine: "mine".into(),
//!     network: "quilt".into(),
//!     container: "web".into(),
//!     interface: "eth0".into(),
//! };
//! let mut runtime = Client::connect(DEFAULT_SOCKET.as_ref()).await?;
//! let attached = runtime
//!     .attach(AttachEndpointRequest {
//!         owner: Some(owner.clone()),
//!         network_namespace: "/run/netns/web".into(),
//!         default_route: true,
//!         ..Default::default()
//!     })
//!     .await?;
//! println!("{}", attached.inside.address);
//! runtime.detach(owner).await?;
//! # Ok(())
//! # }
//! ```

mod agent;
mod client;
mod inside;
mod inspector;
mod maintenance;
mod pinging;
mod seen;

pub use agent::{AgentClient, AgentClientError, DEFAULT_AGENT_SOCKET};
pub use client::{Attached, Client, ClientError, DEFAULT_SOCKET, HandedOver, inspect};
pub use inside::{InsideError, configure};
pub use inspector::Inspector;
pub use maintenance::Maintenance;
pub use mesh_proto::mesh;
pub use pinging::{Pinger, Pings};
pub use seen::{Seen, SeenInterface, SeenRoute, look};
pub use tonic::Code as StatusCode;
