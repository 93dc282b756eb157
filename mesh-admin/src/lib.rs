//! What operators ask of the control plane, and by which door.
//!
//! `quilt-mesh-control` and `meshctl` have the same commands for tokens and nodes; they are here, once. Each asks through a
//! [`Door`]: the admin socket of a control plane on this host, or REST with an operator's token and the mesh's authorities.
//!
//! | module | what it is |
//! |---|---|
//! | [`door`] | both doors, as one; [`admin_socket`] and [`rest`] are what is behind it |
//! | [`choice`] | which door a command line asks for |
//! | [`error`] | why nothing came of it, and what to do |
//! | [`tokens`], [`nodes`] | the commands; [`removal`] takes a node off for good, [`effect`] says what a credential changes |
//! | [`output`], [`table`] | what is printed |
//! | [`duration_text`] | durations as operators write them |

pub mod admin_socket;
pub mod choice;
pub mod door;
pub mod duration_text;
pub mod effect;
pub mod error;
pub mod nodes;
pub mod output;
pub mod removal;
pub mod rest;
pub mod table;
pub mod tokens;

pub use door::Door;
pub use error::AdminError;

/// An id, as it stands in a path.
///
/// # Errors
///
/// It could stand for another path.
pub fn segment(id: &str) -> anyhow::Result<&str> {
    if !mesh_credentials::name::is_id(id) {
        anyhow::bail!("{id:?} is no id: letters, digits and - alone");
    }
    Ok(id)
}

/// Now, in Unix seconds.
#[must_use]
pub fn unix_seconds() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}
