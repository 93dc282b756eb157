//! What the runtime has leased, and to whom.

use std::net::Ipv4Addr;

use futures_util::TryStreamExt as _;
use mesh_client::{
    Client,
    mesh::{AddressLease, ListAddressesRequest},
};
use mesh_testbed::{Host, wait_until};
use netlink_packet_route::link::LinkAttribute;

use crate::mesh::SOON;

pub(crate) async fn leases(host: &Host) -> Vec<AddressLease> {
    let mut runtime = Client::connect(&host.runtime_socket()).await.unwrap();
    let all = ListAddressesRequest::default();
    runtime.addresses(all).await.unwrap().leases
}

/// The lease of an address, as "engine network interface".
pub(crate) async fn holder(host: &Host, address: Ipv4Addr) -> Option<String> {
    let address = address.to_string();
    let leases = leases(host).await;
    let lease = leases.into_iter().find(|it| it.address == address)?;
    let owner = lease.owner.unwrap();
    Some(format!(
        "{} {} {}",
        owner.engine, owner.network, owner.interface
    ))
}

/// Sees that no lease is left of any container, and no link: the runtime takes back within some ten seconds what nobody
/// gave back.
pub(crate) async fn wait_nothing_left(host: &Host) {
    wait_until("the end of leases and links", SOON, async || {
        let leases = leases(host).await;
        let links = container_links(host).await;
        match leases.is_empty() && links.is_empty() {
            true => Ok(()),
            false => Err(format!("{leases:?} {links:?}")),
        }
    })
    .await
    .unwrap();
}

/// The names of links that the runtime made for containers.
pub(crate) async fn container_links(host: &Host) -> Vec<String> {
    let handle = host.netns().netlink().unwrap();
    let links: Vec<_> = handle.link().get().execute().try_collect().await.unwrap();
    let names = links.into_iter().flat_map(|link| link.attributes);
    let names = names.filter_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    });
    names.filter(|name| name.starts_with("qm")).collect()
}
