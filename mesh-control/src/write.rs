//! Changes of the database: what clients ask for, and what heartbeats, or their absence, make of nodes.
//!
//! | module | what it is |
//! |---|---|
//! | `command` | everything that can be asked for, in one enum |
//! | `batch` | the queue of commands, and the one who makes them, a transaction for as many as come together |
//! | `membership` | registering |
//! | `departure` | stopping and leaving |
//! | `subnet_claim` | what a node's word about the subnet that it holds is worth |
//! | `operator` | ending leases, and keeping subnets from being leased |
//! | `process_pause` | whether this process was running at all |
//! | `liveness_loops` | who is silent, and the writing of heartbeats |

pub(crate) mod batch;
pub(crate) mod command;
mod departure;
mod liveness_loops;
mod membership;
mod operator;
mod process_pause;
mod subnet_claim;

pub use departure::Proof;
