//! Containers that come back under the name and by the path that they had, in a new namespace, as engines
//! restart them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use mesh_client::{Client, mesh::AttachEndpointRequest};
use mesh_testbed::NetNs;
use tempfile::TempDir;

use crate::attach::{leased, names, namespace, node, owner, request};

/// A path that leads to whatever namespace a container has.
struct Place(PathBuf);

impl Place {
    fn new(directory: &Path, container: &str, netns: &NetNs) -> Self {
        let place = Self(directory.join(container));
        symlink(netns.path(), &place.0).unwrap();
        place
    }

    /// From now on it leads to another one.
    fn lead_to(&self, netns: &NetNs) {
        fs::remove_file(&self.0).unwrap();
        symlink(netns.path(), &self.0).unwrap();
    }

    fn request(&self, container: &str, netns: &NetNs) -> AttachEndpointRequest {
        AttachEndpointRequest {
            network_namespace: self.0.to_str().unwrap().to_owned(),
            ..request(container, netns)
        }
    }
}

async fn leaked(client: &mut Client, container: &str) -> String {
    let lease = client.lease(&owner(container)).await.unwrap();
    lease.unwrap().leaked
}

#[tokio::test]
async fn a_container_that_came_back_is_known_by_its_new_namespace() {
    let (host, _daemon, mut client) = node("back").await;
    let directory = TempDir::new().unwrap();
    let before = namespace("before").await;
    let place = Place::new(directory.path(), "web", &before);
    let first = client.attach(place.request("web", &before)).await.unwrap();
    drop(before);
    let after = namespace("after").await;
    place.lead_to(&after);
    host.eventually_async("the first interface gone", async || {
        !names(&host.netns).contains(&first.endpoint.interface)
    })
    .await;
    let second = client.attach(place.request("web", &after)).await.unwrap();
    assert_eq!(second.inside.address, first.inside.address);
    assert_eq!(leaked(&mut client, "web").await, "");
    // The namespace is there: that its interface was deleted is told and nothing else.
    let interface = second.endpoint.interface;
    host.ip(&format!("link delete {interface}"));
    let told = format!("its interface {interface} is gone");
    host.eventually_async("the loss told", async || {
        leaked(&mut client, "web").await == told
    })
    .await;
}

/// While the addresses of a host full of containers are taken back, one after the other.
#[tokio::test]
async fn a_container_that_comes_back_while_others_are_reclaimed_keeps_its_interface() {
    const CONTAINERS: usize = 40;
    const BACK: usize = 4;
    let (host, _daemon, mut client) = node("crowd").await;
    let directory = TempDir::new().unwrap();
    let mut before = Vec::new();
    for number in 0..CONTAINERS {
        let name = format!("c{number:02}");
        let netns = namespace(&name).await;
        let place = Place::new(directory.path(), &name, &netns);
        client.attach(place.request(&name, &netns)).await.unwrap();
        before.push((name, place, netns));
    }
    let mut after = Vec::new();
    for (name, ..) in &before[CONTAINERS - BACK..] {
        after.push(namespace(&format!("{name}-back")).await);
    }
    let places: Vec<(String, Place)> = before
        .into_iter()
        .map(|(name, place, _)| (name, place))
        .collect();
    host.eventually_async("the first address taken back", async || {
        leased(&mut client).await < CONTAINERS
    })
    .await;
    let returning = &places[CONTAINERS - BACK..];
    for ((name, place), netns) in returning.iter().zip(&after) {
        place.lead_to(netns);
        client.attach(place.request(name, netns)).await.unwrap();
    }
    host.eventually_async("the others' addresses taken back", async || {
        leased(&mut client).await == BACK
    })
    .await;
    for ((name, _), netns) in returning.iter().zip(&after) {
        assert_eq!(names(netns), ["lo", "eth0"]);
        assert_eq!(leaked(&mut client, name).await, "");
    }
}
