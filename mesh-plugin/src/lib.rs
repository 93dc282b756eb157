//! What plugins of container engines share, whatever they speak: a process for each call, which attaches one interface of one
//! container to the mesh or takes it off, while the runtime may be there or not.
//!
//! | module | what it is |
//! |---|---|
//! | `interface` | what a call is about |
//! | `attach` | how it gets on the mesh, and back off what was begun and not answered |
//! | `detach` | how it gets off, also without a runtime |
//! | `namespace` | the container's network namespace |
//! | `file` | files that are there whole or not at all, the plugin's own for one |
//! | `names` | by what the container is known |
//! | `runtime` | the runtime behind its socket |

mod attach;
mod detach;
mod file;
mod interface;
mod names;
mod namespace;
mod runtime;

pub use attach::AttachError;
pub use detach::DetachError;
pub use file::{FileError, install_self, replace};
pub use interface::Interface;
pub use names::fitting;
pub use namespace::{NamespaceError, Naming, look_into};
pub use runtime::{RESTART, connect};
