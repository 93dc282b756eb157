//! One look at the host, area by area.

use std::io;

use mesh_problems::Problem;

use crate::{
    area::{Area, counted, in_the_way},
    judge::{addresses, forwarding, ipsec, routes},
    kernel::{self, question::Kernel, settings},
    mesh::{self, Known},
    snapshot::{Mesh, Network, Ways},
};

/// What was read over netlink without any privilege.
struct Seen {
    network: Network,
    mesh: Mesh,
    ways: Ways,
}

/// Looks at the host in the network namespace of this thread. Blocks, for some 10 ms as a rule and for seconds at most.
#[must_use]
pub fn look(known: &Known) -> Vec<Area> {
    let seen = match read(known) {
        Ok(seen) => seen,
        Err(error) => {
            let why = format!("the kernel's network state cannot be read ({error})");
            return vec![Area::not_looked("network", why)];
        }
    };
    let Seen {
        network,
        mesh,
        ways,
    } = &seen;
    let mut areas = vec![of_routes(&seen)];
    let problems = addresses::judge(mesh, network);
    areas.push(Area::looked(
        "addresses",
        format!(
            "{} of this host, {}",
            counted(network.addresses.len(), "IPv4 address").replace("addresss", "addresses"),
            in_the_way(&problems)
        ),
        problems,
    ));
    let problems = forwarding::judge(mesh, network, ways, settings::of_interface);
    areas.push(Area::looked(
        "forwarding",
        match problems.is_empty() {
            true => "on where packets of containers come in, and nothing is filtered by its way back",
            false => "not as it should be",
        },
        problems,
    ));
    areas.push(of_ipsec(mesh));
    areas
}

fn read(known: &Known) -> io::Result<Seen> {
    let mut kernel = Kernel::of_routes()?;
    let mut network = kernel::network::network(&mut kernel)?;
    if let Some(device) = mesh::overlay(known, &network) {
        kernel::network::overlay(&mut kernel, device, &mut network)?;
    }
    let mesh = mesh::mesh(known, &network);
    let ways = kernel::ways::ways(&mut kernel, &mesh)?;
    Ok(Seen {
        network,
        mesh,
        ways,
    })
}

fn of_routes(seen: &Seen) -> Area {
    let problems: Vec<Problem> = routes::judge(&seen.mesh, &seen.network, &seen.ways);
    let said = format!(
        "asked for the ways to {}; {} of this host, {}",
        counted(seen.mesh.peers.len(), "peer"),
        counted(seen.network.rules, "policy rule"),
        in_the_way(&problems)
    );
    Area::looked("routes", said, problems)
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
