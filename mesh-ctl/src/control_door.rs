//! The way to the control plane, from what the command line and this host's agent say.

use mesh_admin::{
    Door,
    choice::DoorOptions,
    rest::{Url, control_url},
};

use crate::place::Place;

/// Opens it.
pub(crate) async fn open(place: &Place, options: &DoorOptions) -> anyhow::Result<Door> {
    let known = async || known_to_the_agent(place).await;
    Ok(options.open(known).await?)
}

/// The replicas that the agent of this host knows, the one that it uses first. Where there is no agent, nobody is known.
async fn known_to_the_agent(place: &Place) -> Vec<Url> {
    let Ok(status) = place.agent().await else {
        return Vec::new();
    };
    let control = status.control_plane.unwrap_or_default();
    let mut urls: Vec<Url> = control
        .urls
        .iter()
        .filter_map(|url| control_url(url).ok())
        .collect();
    let used = usize::try_from(control.used).unwrap_or_default();
    if used < urls.len() {
        urls.rotate_left(used);
    }
    urls
}
