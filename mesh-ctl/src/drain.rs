//! `meshctl drain`: has this node take no new containers.

use mesh_client::{
    Inspector, Maintenance,
    mesh::{Endpoint, ListAddressesResponse},
};
use serde::Serialize;

use crate::{
    addresses::owner,
    output::{Table, age, now, say, say_json},
    place::Place,
};

/// Has this node take no new containers: those that are here stay, until they are stopped.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Let it take new ones again.
    #[arg(long)]
    undo: bool,
    /// Print a document for a machine.
    #[arg(long)]
    json: bool,
}

/// Does it, and prints what is still here.
pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<()> {
    let mut maintenance = Maintenance::connect(&place.socket).await?;
    let since = maintenance.drain(Some(!options.undo)).await?;
    let drained = Drained {
        drained: since.is_some(),
        since: since.filter(|since| *since != 0),
        here: here(place).await?,
    };
    match options.json {
        true => say_json(&drained),
        false => say(text(&drained, now())),
    }
}

/// What a drained node is, as a document. Fields are added to it, and never taken away or changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Drained {
    drained: bool,
    /// In Unix seconds.
    since: Option<u64>,
    /// What is still here.
    here: Vec<Here>,
}

/// An address of this node that somebody has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Here {
    pub(crate) address: String,
    /// `engine/network/container/interface`; `None`: it was attached by hand, and holds no lease.
    pub(crate) owner: Option<String>,
    /// By what the container is known.
    pub(crate) names: Vec<String>,
    /// When it was leased, in Unix seconds.
    pub(crate) since: Option<u64>,
}

/// What has addresses of this node, by lease or without.
pub(crate) async fn here(place: &Place) -> anyhow::Result<Vec<Here>> {
    let mut inspector = Inspector::connect(&place.socket).await?;
    let listed = inspector.addresses().await?;
    let status = inspector.status().await?;
    Ok(of(listed, &status.endpoints))
}

fn of(listed: ListAddressesResponse, endpoints: &[Endpoint]) -> Vec<Here> {
    let mut here: Vec<Here> = listed
        .leases
        .into_iter()
        .map(|lease| Here {
            owner: Some(owner(&lease)),
            address: lease.address,
            names: lease.names,
            since: Some(lease.since),
        })
        .collect();
    for endpoint in endpoints {
        if !here.iter().any(|it| it.address == endpoint.address) {
            here.push(Here {
                address: endpoint.address.clone(),
                owner: None,
                names: Vec::new(),
                since: None,
            });
        }
    }
    here
}

fn text(drained: &Drained, now: u64) -> String {
    let mut lines = vec![match drained.drained {
        true => "this node takes no new containers (meshctl drain --undo lets it)".to_owned(),
        false => "this node takes new containers".to_owned(),
    }];
    if !drained.drained {
        return lines.concat();
    }
    lines.push(match drained.here.as_slice() {
        [] => "nothing is here any more".to_owned(),
        here => table(here, now),
    });
    lines.join("\n")
}

/// Them as a table.
pub(crate) fn table(here: &[Here], now: u64) -> String {
    let mut table = Table::new(["ADDRESS", "OWNER", "NAMES", "SINCE"]);
    for it in here {
        table.row([
            it.address.clone(),
            it.owner
                .clone()
                .unwrap_or_else(|| "(attached by hand)".to_owned()),
            it.names.join(" "),
            it.since
                .map_or_else(String::new, |since| age(now.saturating_sub(since))),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use mesh_client::mesh::{AddressLease, Owner};

    use super::*;
    use crate::output::held;

    fn some() -> Drained {
        let listed = ListAddressesResponse {
            leases: vec![AddressLease {
                address: "10.42.1.2".to_owned(),
                owner: Some(Owner {
                    engine: "docker".to_owned(),
                    network: "quilt".to_owned(),
                    container: "3f2a".to_owned(),
                    interface: "eth0".to_owned(),
                }),
                names: vec!["web".to_owned()],
                since: 1_800_000_000,
                ..AddressLease::default()
            }],
            ..ListAddressesResponse::default()
        };
        let endpoint = |address: &str| Endpoint {
            address: address.to_owned(),
            ..Endpoint::default()
        };
        Drained {
            drained: true,
            since: Some(1_800_000_060),
            here: of(listed, &[endpoint("10.42.1.2"), endpoint("10.42.1.9")]),
        }
    }

    #[test]
    fn what_is_attached_by_hand_is_here_as_well_and_nothing_twice() {
        let text = text(&some(), 1_800_000_060);
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 4, "{text}");
        assert!(rows[2].contains("docker/quilt/3f2a/eth0"), "{text}");
        assert!(rows[3].contains("10.42.1.9"), "{text}");
    }

    #[test]
    fn the_document_for_machines_is_as_it_was() {
        held::is_as_it_was("drain", &some());
    }
}
