//! What can be wrong in a mesh, defined once each.
//!
//! A [`Kind`] has a code that does not change, and says what such a problem breaks and what to do. A [`Problem`] is one
//! that was seen, with what was observed; a [`Finding`] is one that is told to others, and since when it is there. Status,
//! logs, metrics, `meshctl` and docs/PROBLEMS.md all show these.

pub mod catalog;
mod finding;
mod kind;
mod page;
mod problem;
mod standing;

pub use finding::Finding;
pub use kind::{Kind, Severity};
pub use page::page;
pub use problem::Problem;
pub use standing::{Changes, Standing};
