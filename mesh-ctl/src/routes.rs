//! `meshctl routes`: what is to lead over the overlay, and what the kernel shows.

use mesh_client::mesh::WantedRoute;
use serde::Serialize;

use crate::{
    Verdict,
    output::{Table, say, say_json},
    place::Place,
};

/// The routes over the overlay, and what is in their place where one is missing.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Print a document for a machine.
    #[arg(long)]
    json: bool,
}

/// Prints the routes.
pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Verdict> {
    let mut inspector = place.runtime_socket().await?;
    let routes: Vec<Route> = inspector.routes().await?.into_iter().map(route).collect();
    match options.json {
        true => say_json(&routes)?,
        false => say(table(&routes))?,
    }
    Ok(match routes.iter().all(|route| route.in_place) {
        true => Verdict::Fine,
        false => Verdict::Wrong,
    })
}

/// A route, as a document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Route {
    destination: String,
    interface: String,
    gateway: String,
    /// Of the peer; empty for a route that was injected.
    hostname: String,
    host_address: String,
    /// Largest packet that the peer takes, in bytes; absent where that is the overlay's MTU.
    mtu: Option<u32>,
    /// Whether somebody asked for it by InjectRoute.
    injected: bool,
    /// Whether the kernel shows it, with its neighbour and forwarding entry.
    in_place: bool,
    /// Somebody else's route to the same destination.
    foreign: String,
}

fn route(told: WantedRoute) -> Route {
    Route {
        destination: told.destination,
        interface: told.interface,
        gateway: told.gateway,
        hostname: told.hostname,
        host_address: told.host_address,
        mtu: (told.mtu > 0).then_some(told.mtu),
        injected: told.injected,
        in_place: told.in_place,
        foreign: told.instead,
    }
}

fn table(routes: &[Route]) -> String {
    if routes.is_empty() {
        return "no route over the overlay is wanted yet".to_owned();
    }
    let mut table = Table::new(["DESTINATION", "VIA", "DEV", "MTU", "PEER", "BY", "STATE"]);
    for route in routes {
        let state = match (route.in_place, route.foreign.is_empty()) {
            (true, true) => "in place".to_owned(),
            (true, false) => format!("in place, beside somebody else's ({})", route.foreign),
            (false, true) => "missing".to_owned(),
            (false, false) => format!("missing: somebody else's is there ({})", route.foreign),
        };
        let by = match (
            route.hostname.is_empty() && route.host_address.is_empty(),
            route.injected,
        ) {
            (true, _) => "call",
            (false, true) => "list, call",
            (false, false) => "list",
        };
        table.row([
            route.destination.clone(),
            route.gateway.clone(),
            route.interface.clone(),
            route.mtu.map_or_else(String::new, |mtu| mtu.to_string()),
            route.hostname.clone(),
            by.to_owned(),
            state,
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::held;

    fn some() -> Vec<Route> {
        let told = |third: u8, hostname: &str, instead: &str| WantedRoute {
            destination: format!("10.42.{third}.0/24"),
            interface: "vxlan100".to_owned(),
            gateway: format!("10.42.{third}.0"),
            hostname: hostname.to_owned(),
            host_address: match hostname {
                "" => String::new(),
                _ => format!("192.0.2.{third}"),
            },
            mtu: 0,
            injected: hostname.is_empty(),
            in_place: instead.is_empty(),
            instead: instead.to_owned(),
        };
        [
            told(2, "host2", ""),
            told(3, "host3", "10.42.3.0/24 via 192.0.2.1 dev eth0 proto 4"),
            told(4, "", ""),
        ]
        .map(route)
        .to_vec()
    }

    #[test]
    fn a_route_that_is_missing_is_shown_with_what_is_in_its_place() {
        let table = table(&some());
        let rows: Vec<&str> = table.lines().collect();
        assert!(
            rows[1].contains("host2") && rows[1].ends_with("in place"),
            "{table}"
        );
        assert!(
            rows[2].ends_with(
                "missing: somebody else's is there (10.42.3.0/24 via 192.0.2.1 dev eth0 proto 4)"
            ),
            "{table}"
        );
        assert!(rows[3].contains(" call "), "{table}");
    }

    #[test]
    fn the_document_for_machines_is_as_it_was() {
        held::is_as_it_was("routes", &some());
    }
}
