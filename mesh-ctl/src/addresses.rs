//! `meshctl addresses`.

use mesh_client::{
    Client,
    mesh::{AddressLease, ListAddressesRequest, ListAddressesResponse},
};
use serde_json::json;

use crate::{
    options::Addresses,
    output::{Table, age, now, say},
    port::show,
};

/// Prints the leased addresses.
pub(crate) async fn list(client: &mut Client, options: Addresses) -> anyhow::Result<()> {
    let list = client
        .addresses(ListAddressesRequest {
            engine: options.engine,
            network: options.network,
        })
        .await?;
    if options.json {
        return say(format_args!("{:#}", document(&list)));
    }
    if list.subnet.is_empty() {
        return say("this node has no subnet yet");
    }
    say(format_args!(
        "{}: {} of {} addresses leased",
        list.subnet, list.leased, list.capacity
    ))?;
    match list.leases.is_empty() {
        true => Ok(()),
        false => say(table(&list.leases, now())),
    }
}

/// Whose it is: `engine/network/container/interface`.
pub(crate) fn owner(lease: &AddressLease) -> String {
    let owner = lease.owner.clone().unwrap_or_default();
    [
        owner.engine,
        owner.network,
        owner.container,
        owner.interface,
    ]
    .join("/")
}

fn table(leases: &[AddressLease], now: u64) -> String {
    let mut table = Table::new(["ADDRESS", "OWNER", "NAMES", "SINCE", "BEHIND", "PORTS", ""]);
    for lease in leases {
        let endpoint = lease.endpoint.as_ref();
        let ports: Vec<String> = lease.ports.iter().map(show).collect();
        table.row([
            lease.address.clone(),
            owner(lease),
            lease.names.join(" "),
            age(now.saturating_sub(lease.since)),
            endpoint.map_or_else(String::new, |it| it.interface.clone()),
            ports.join(" "),
            lease.leaked.clone(),
        ]);
    }
    table.text()
}

fn document(list: &ListAddressesResponse) -> serde_json::Value {
    let leases = list.leases.iter().map(|lease| {
        let owner = lease.owner.clone().unwrap_or_default();
        let ports: Vec<String> = lease.ports.iter().map(show).collect();
        let endpoint = lease.endpoint.as_ref();
        json!({
            "address": lease.address,
            "engine": owner.engine,
            "network": owner.network,
            "container": owner.container,
            "interface": owner.interface,
            "names": lease.names,
            "labels": lease.labels,
            "network_namespace": lease.network_namespace,
            "outlives_boot": lease.outlives_boot,
            "since": lease.since,
            "host_interface": endpoint.map(|it| &it.interface),
            "mac": endpoint.map(|it| &it.mac),
            "ports": ports,
            "leaked": lease.leaked,
        })
    });
    json!({
        "subnet": list.subnet,
        "gateway": list.gateway,
        "capacity": list.capacity,
        "leased": list.leased,
        "probe_address": (!list.probe_address.is_empty()).then_some(&list.probe_address),
        "leases": leases.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use mesh_client::mesh::Owner;

    use super::*;

    #[test]
    fn a_leak_is_seen_in_the_row_of_its_address() {
        let lease = AddressLease {
            address: "10.42.1.2".to_owned(),
            owner: Some(Owner {
                engine: "docker".to_owned(),
                network: "quilt".to_owned(),
                container: "3f2a".to_owned(),
                interface: "eth0".to_owned(),
            }),
            names: vec!["web".to_owned()],
            since: 1000,
            leaked: "no container at the bridge holds it".to_owned(),
            ..AddressLease::default()
        };
        let table = table(&[lease], 1000 + 7200);
        let row = table.lines().last().unwrap();
        for words in [
            "10.42.1.2",
            "docker/quilt/3f2a/eth0",
            "web",
            "2 h",
            "no container at the bridge",
        ] {
            assert!(row.contains(words), "{table}");
        }
    }
}
