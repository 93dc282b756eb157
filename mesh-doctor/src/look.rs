//! One look at the host, area by area.

use std::io;

use mesh_problems::Problem;

use crate::{
    area::{Area, counted, in_the_way},
    judge::{addresses, checksums, entries, filter, forwarding, ipsec, limits, routes, tc},
    kernel::{self, nft, probe, question::Kernel, settings},
    mesh::{self, Known},
    snapshot::{Mesh, Network, Ways},
};

/// What was read over netlink without any privilege.
struct Seen {
    network: Network,
    mesh: Mesh,
    ways: Ways,
    /// Whether a runtime keeps what is its own in order.
    runtime: bool,
}

/// Looks at the host in the network namespace of this thread. Blocks, for a second as a rule, and for some seconds where nft
/// has many rules to tell.
#[must_use]
pub fn look(known: &Known) -> Vec<Area> {
    let checksums = settings::wrong_checksums();
    let mut kernel = match Kernel::of_routes() {
        Ok(kernel) => kernel,
        Err(error) => return vec![unreadable(&error)],
    };
    let seen = match read(&mut kernel, known) {
        Ok(seen) => seen,
        Err(error) => return vec![unreadable(&error)],
    };
    vec![
        of_routes(&seen),
        of_addresses(&seen),
        of_devices(&seen),
        of_forwarding(&seen),
        of_filter(&seen),
        of_tc(&seen, &mut kernel),
        of_ipsec(&seen.mesh),
        of_entries(&seen),
        // Takes half a second, in which datagrams come.
        of_twins(&seen),
        of_checksums(checksums, &seen),
        of_limits(),
    ]
}

fn unreadable(error: &io::Error) -> Area {
    Area::not_looked(
        "network",
        format!("the kernel's network state cannot be read ({error})"),
    )
}

fn read(kernel: &mut Kernel, known: &Known) -> io::Result<Seen> {
    let mut network = kernel::network::network(kernel)?;
    if let Some(device) = mesh::overlay(known, &network) {
        kernel::network::overlay(kernel, device, &mut network)?;
    }
    let mesh = mesh::mesh(known, &network);
    let ways = kernel::ways::ways(kernel, &mesh)?;
    Ok(Seen {
        network,
        mesh,
        ways,
        runtime: known.runtime,
    })
}

fn of_routes(seen: &Seen) -> Area {
    let problems = routes::judge(&seen.mesh, &seen.network, &seen.ways);
    let said = format!(
        "asked for the ways to {}; {} of this host, {}",
        counted(seen.mesh.peers.len(), "peer"),
        counted(seen.network.rules, "policy rule"),
        in_the_way(&problems)
    );
    Area::looked("routes", said, problems)
}

fn of_addresses(seen: &Seen) -> Area {
    let problems = addresses::judge(&seen.mesh, &seen.network);
    let count = match seen.network.addresses.len() {
        1 => "1 IPv4 address".to_owned(),
        count => format!("{count} IPv4 addresses"),
    };
    let said = format!("{count} of this host, {}", in_the_way(&problems));
    Area::looked("addresses", said, problems)
}

fn of_devices(seen: &Seen) -> Area {
    let Seen { mesh, network, .. } = seen;
    let ours: Vec<u32> = mesh.bridge.into_iter().chain(mesh.overlay).collect();
    let managers = settings::managers(ours.iter().copied());
    let mut problems = addresses::managed(mesh, network, &managers);
    problems.extend(addresses::hardware(mesh, network));
    let names: Vec<String> = ours.iter().map(|index| network.name_of(*index)).collect();
    let said = match (names.is_empty(), problems.is_empty()) {
        (true, _) => "none of the mesh's yet".to_owned(),
        (false, true) => format!("{}: managed by nobody else", names.join(", ")),
        (false, false) => format!("{}: not as they should be", names.join(", ")),
    };
    Area::looked("devices", said, problems)
}

fn of_forwarding(seen: &Seen) -> Area {
    let Seen {
        mesh,
        network,
        ways,
        ..
    } = seen;
    let problems = forwarding::judge(mesh, network, ways, settings::of_interface);
    let said = match problems.is_empty() {
        true => "on where packets of containers come in, and nothing is filtered by its way back",
        false => "not as it should be",
    };
    Area::looked("forwarding", said, problems)
}

fn of_filter(seen: &Seen) -> Area {
    const NAME: &str = "packet filter";
    let document = match nft::ruleset() {
        Ok(document) => document,
        Err(error) => return Area::not_looked(NAME, error.to_string()),
    };
    let Some(rules) = filter::Rules::read(&document) else {
        return Area::not_looked(NAME, "nft printed something else than rules");
    };
    let problems = filter::judge(&rules, &seen.mesh, &seen.network, &seen.ways);
    let mut said = format!(
        "{} of others, {}",
        counted(rules.tables, "table"),
        in_the_way(&problems)
    );
    let legacy = nft::legacy_tables();
    if !legacy.is_empty() {
        said = format!(
            "{said}; those of the older iptables ({}) are not looked at: iptables-legacy-save shows them",
            legacy.join(", ")
        );
    }
    Area::looked(NAME, said, problems)
}

fn of_tc(seen: &Seen, kernel: &mut Kernel) -> Area {
    const NAME: &str = "traffic control";
    let Seen {
        mesh,
        network,
        ways,
        ..
    } = seen;
    let links = tc::looked_at(mesh, network, ways);
    match kernel::tc::read(kernel, &links) {
        Ok(control) => {
            let problems = tc::judge(mesh, network, ways, &control);
            let said = format!(
                "{} of others on {}, {}",
                counted(control.others, "filter"),
                counted(links.len(), "interface"),
                in_the_way(&problems)
            );
            Area::looked(NAME, said, problems)
        }
        Err(error) => Area::refused(NAME, &error),
    }
}

fn of_ipsec(mesh: &Mesh) -> Area {
    match kernel::ipsec::policies() {
        Ok(policies) => {
            let problems = ipsec::judge(&policies, mesh);
            let count = match policies.len() {
                1 => "1 policy".to_owned(),
                count => format!("{count} policies"),
            };
            let said = format!("{count} of this host, {}", in_the_way(&problems));
            Area::looked("ipsec", said, problems)
        }
        Err(error) => Area::refused("ipsec", &error),
    }
}

fn of_entries(seen: &Seen) -> Area {
    let problems = entries::judge(&seen.mesh, &seen.network, seen.runtime);
    let said = format!(
        "{} over the overlay device, {}",
        counted(seen.network.overlay_routes.len(), "route"),
        match problems.is_empty() {
            true => "none of nobody",
            false => "with some of nobody",
        }
    );
    Area::looked("entries", said, problems)
}

fn of_twins(seen: &Seen) -> Area {
    const NAME: &str = "twins";
    let Seen { mesh, network, .. } = seen;
    let judged = |answer, said: &str| {
        let problems: Vec<Problem> = addresses::twins(mesh, network, answer);
        let said = match problems.is_empty() {
            true => said,
            false => "there is one",
        };
        Area::looked(NAME, said, problems)
    };
    let Some(held) = mesh.underlay(network) else {
        return judged(None, "the node has no address yet");
    };
    let Some(own) = network.links.get(&held.link).and_then(|link| link.mac) else {
        return judged(None, "the underlay has no MAC addresses");
    };
    let ours = network.links.values().filter_map(|link| link.mac).collect();
    match probe::who_else_has(held.link, own, &ours, held.address.addr()) {
        Ok(answer) => judged(
            answer,
            "no peer has this host's MAC address, and nobody else its address",
        ),
        Err(error) => Area::refused(NAME, &error),
    }
}

fn of_checksums(before: Option<u64>, seen: &Seen) -> Area {
    const NAME: &str = "checksums";
    let Some(after) = settings::wrong_checksums() else {
        return Area::not_looked(NAME, "the kernel does not count them");
    };
    let underlays = seen.mesh.underlays(&seen.network, &seen.ways);
    let cards = underlays
        .into_iter()
        .map(|index| kernel::card::card(&seen.network.name_of(index)));
    let cards: Vec<_> = match cards.collect() {
        Ok(cards) => cards,
        Err(error) => return Area::refused(NAME, &error),
    };
    let mut problems = checksums::doubtful(&cards);
    problems.extend(checksums::judge(before, Some(after)));
    let known = cards.iter().filter(|card| !card.driver.is_empty());
    let drivers: Vec<String> = known
        .map(|card| format!("{} is driven by {}", card.name, card.driver))
        .collect();
    let mut said = format!("{after} wrong since the host started");
    if !drivers.is_empty() {
        said = format!("{said}; {}", drivers.join(", "));
    }
    Area::looked(NAME, said, problems)
}

fn of_limits() -> Area {
    let limits = settings::limits();
    Area::looked("limits", limits::said(limits), limits::judge(limits))
}
