//! The container's network namespace.

use std::{env, path::Path};

use mesh_client::Seen;
use mesh_plugin::Naming;

use crate::failure::Failure;

/// How a call names it.
pub(crate) fn naming() -> Naming {
    let may_be_own =
        env::var("CNI_NETNS_OVERRIDE").is_ok_and(|it| it == "1" || it.eq_ignore_ascii_case("true"));
    Naming {
        called: "CNI_NETNS",
        may_be_own,
    }
}

/// Looks into the namespace, if it can be a container's.
pub(crate) async fn look_into(path: &Path) -> Result<Seen, Failure> {
    Ok(mesh_plugin::look_into(path, naming()).await?)
}
