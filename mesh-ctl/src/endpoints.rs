//! `meshctl endpoints`: the containers of this node.

use std::collections::BTreeMap;

use mesh_client::mesh::{AddressLease, Endpoint};
use serde::Serialize;

use crate::{
    Verdict,
    output::{Table, say, say_json},
    place::{NoRuntime, Place},
    port::show,
};

/// The containers of this node, and the path that their packets take.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Print a document for a machine.
    #[arg(long)]
    json: bool,
}

/// Prints the containers.
pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Verdict> {
    let mut inspector = place.runtime().await.map_err(NoRuntime::into_error)?;
    let status = inspector.status().await?;
    // Names are told on the socket alone.
    let leases = inspector.addresses().await.map(|list| list.leases);
    let containers = containers(status.endpoints, leases.unwrap_or_default());
    match options.json {
        true => say_json(&containers)?,
        false => say(table(&containers))?,
    }
    Ok(Verdict::Fine)
}

/// A container, as a document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Container {
    address: String,
    mac: String,
    /// The host's end of its veth pair.
    host_interface: String,
    /// `fast` or `kernel`.
    path: String,
    /// Why it is not the fast path.
    reason: String,
    /// Whose it is, where its address is leased: `engine/network/container/interface`.
    owner: String,
    names: Vec<String>,
    ports: Vec<String>,
}

fn containers(endpoints: Vec<Endpoint>, leases: Vec<AddressLease>) -> Vec<Container> {
    let mut leases: BTreeMap<String, AddressLease> = leases
        .into_iter()
        .map(|lease| (lease.address.clone(), lease))
        .collect();
    let container = |endpoint: Endpoint| {
        let lease = leases.remove(&endpoint.address).unwrap_or_default();
        let owner = lease.owner.map(|owner| {
            [
                owner.engine,
                owner.network,
                owner.container,
                owner.interface,
            ]
            .join("/")
        });
        Container {
            path: match endpoint.kernel_path.is_empty() {
                true => "fast".to_owned(),
                false => "kernel".to_owned(),
            },
            address: endpoint.address,
            mac: endpoint.mac,
            host_interface: endpoint.interface,
            reason: endpoint.kernel_path,
            owner: owner.unwrap_or_default(),
            names: lease.names,
            ports: lease.ports.iter().map(show).collect(),
        }
    };
    endpoints.into_iter().map(container).collect()
}

fn table(containers: &[Container]) -> String {
    if containers.is_empty() {
        return "no container of this node is on the mesh".to_owned();
    }
    let mut table = Table::new([
        "ADDRESS", "MAC", "BEHIND", "PATH", "OWNER", "NAMES", "PORTS", "",
    ]);
    for container in containers {
        table.row([
            container.address.clone(),
            container.mac.clone(),
            container.host_interface.clone(),
            container.path.clone(),
            container.owner.clone(),
            container.names.join(" "),
            container.ports.join(" "),
            container.reason.clone(),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use mesh_client::mesh::Owner;

    use super::*;
    use crate::output::held;

    fn some() -> Vec<Container> {
        let endpoint = |last: u8, why: &str| Endpoint {
            address: format!("10.42.1.{last}"),
            mac: format!("02:42:0a:2a:01:{last:02x}"),
            interface: format!("qm{last}"),
            kernel_path: why.to_owned(),
        };
        let lease = AddressLease {
            address: "10.42.1.2".to_owned(),
            owner: Some(Owner {
                engine: "docker".to_owned(),
                network: "quilt".to_owned(),
                container: "3f2a".to_owned(),
                interface: "eth0".to_owned(),
            }),
            names: vec!["web".to_owned()],
            ..AddressLease::default()
        };
        containers(
            vec![endpoint(2, ""), endpoint(3, "it is shaped")],
            vec![lease],
        )
    }

    #[test]
    fn a_container_is_shown_with_its_owner_and_why_it_is_not_on_the_fast_path() {
        let table = table(&some());
        let rows: Vec<&str> = table.lines().collect();
        for (row, words) in [
            (
                rows[1],
                vec!["10.42.1.2", "qm2", "fast", "docker/quilt/3f2a/eth0", "web"],
            ),
            (rows[2], vec!["10.42.1.3", "kernel", "it is shaped"]),
        ] {
            assert!(words.iter().all(|word| row.contains(word)), "{table}");
        }
    }

    #[test]
    fn the_document_for_machines_is_as_it_was() {
        held::is_as_it_was("endpoints", &some());
    }
}
