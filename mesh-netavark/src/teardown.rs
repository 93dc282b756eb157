//! `teardown`: the container's interface and address go. What is gone already is success, and so is a runtime that is not there.

use std::path::PathBuf;

use crate::{container::Container, place};

/// Detaches the container.
pub(crate) async fn teardown(namespace: PathBuf, input: &[u8]) -> anyhow::Result<()> {
    let container = Container::read_names(input)?;
    let interface = container.interface(namespace)?;
    // Where nothing can be set up, nothing is.
    if place::is_rootless() {
        return Ok(());
    }
    Ok(interface.detach().await?)
}
