//! The rules of the cluster, pure: no clock, no database, no network; each with a property test.
//!
//! [`subnet_plan`] divides the cluster CIDR, [`next_subnet`] picks the next subnet, [`registration`] is what a node says
//! about itself, [`identity`] tells who that is, [`succession`] which of two hosts with one identity goes on as the node,
//! [`liveness`] who is up, [`silence`] whether many fell silent at once, [`findings`] what is not as it should be, [`node`] is a node as it is shown, [`history`]
//! tells whether a database went back.
//! [`settings`] are what all control planes of a cluster have to agree on.

pub mod findings;
pub mod history;
pub mod identity;
pub mod liveness;
pub mod next_subnet;
pub mod node;
pub mod registration;
pub mod settings;
pub mod silence;
pub mod subnet_plan;
pub mod succession;
