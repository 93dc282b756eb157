//! What agent and control plane say to each other over REST, beyond the frozen calls.
//!
//! - [`digest`]: by which an agent finds that its copy of the node list is not the control
//!   plane's, without fetching the list.
//! - [`heartbeat`]: what a heartbeat may carry.
//! - [`heartbeat_token`]: by which a host shows that it is no copy of a node.
//! - [`leave`]: how a node says that it goes for good.
//! - [`mtu`]: which MTUs a node can have.
//! - [`overlay`]: what is the same on all nodes.
//! - [`proof`]: the same as the digest, whatever there is in the list.
//! - [`timing`]: how often nodes beat.

pub mod digest;
pub mod heartbeat;
pub mod heartbeat_token;
pub mod leave;
pub mod mtu;
pub mod overlay;
pub mod proof;
pub mod timing;
