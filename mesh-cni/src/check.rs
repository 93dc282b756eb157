//! CHECK: whether what ADD made is still there.

use mesh_client::{Seen, mesh::AddressLease};
use mesh_plugin::RESTART;

use crate::{
    attachment::{Expected, ExpectedInterface},
    call::Call,
    failure::{Code, Failure},
    namespace,
    network::Network,
};

/// Compares what ADD's result says with the lease and with the kernel.
pub(crate) async fn check(call: &Call, network: &Network) -> Result<(), Failure> {
    let interface = call.interface(network)?;
    let owner = &interface.owner;
    let expected = Expected::read(network)?;
    let seen = namespace::look_into(&call.path()).await?;
    let mut client = mesh_plugin::connect(network.socket(), RESTART).await?;
    let Some(lease) = client.lease(&interface.message()).await? else {
        return Err(Failure::new(
            Code::UnknownContainer,
            format!("the runtime knows nothing of {owner}: add it anew"),
        ));
    };
    compare(&call.interface, &expected, &lease, &seen)
        .map_err(|message| Failure::new(Code::Differs, format!("{owner}: {message}")))
}

/// Says what differs first. Pure.
fn compare(
    name: &str,
    expected: &Expected,
    lease: &AddressLease,
    seen: &Seen,
) -> Result<(), String> {
    let (ExpectedInterface { mac, .. }, addresses) = expected
        .of(name)
        .ok_or_else(|| format!("prevResult has no interface {name} with a sandbox"))?;
    if !lease.leaked.is_empty() {
        return Err(lease.leaked.clone());
    }
    let is_leased = |address: &&&str| address.split('/').next() == Some(lease.address.as_str());
    let Some(address) = addresses.iter().find(is_leased) else {
        let (held, told) = (&lease.address, addresses.join(", "));
        return Err(format!("it holds {held}, and prevResult says [{told}]"));
    };
    let inside = seen
        .interface(name)
        .ok_or_else(|| format!("there is no {name} in its namespace any more"))?;
    if !inside.up {
        return Err(format!("{name} is down, or its end on the host is"));
    }
    if !mac.is_empty() && !inside.mac.eq_ignore_ascii_case(mac) {
        let found = &inside.mac;
        return Err(format!("{name} has the MAC address {found}, not {mac}"));
    }
    // A plugin after ours may have changed it, and the result with it; the mesh takes packets from this one alone.
    if let Some(endpoint) = &lease.endpoint
        && !inside.mac.eq_ignore_ascii_case(&endpoint.mac)
    {
        let (found, leased) = (&inside.mac, &endpoint.mac);
        return Err(format!(
            "{name} has the MAC address {found}, and is heard under {leased} alone: ask for another one by the \
             capability \"mac\""
        ));
    }
    if !inside
        .addresses
        .iter()
        .any(|it| it.to_string() == **address)
    {
        return Err(format!("{name} has no address {address}"));
    }
    // Routes of other interfaces are other plugins'.
    let lost = expected.routes.iter().find(|route| {
        let through = route.gw.as_deref();
        let ours = through.is_some_and(|gateway| is_beside(gateway, address));
        ours && !seen.routes.iter().any(|it| {
            it.destination.to_string() == route.dst
                && it.gateway.map(|it| it.to_string()).as_deref() == through
        })
    });
    match lost {
        Some(route) => Err(format!("the route to {} is gone", route.dst)),
        None => Ok(()),
    }
}

/// Whether a gateway is in an address' subnet.
fn is_beside(gateway: &str, address: &str) -> bool {
    let subnet = address.parse::<ipnet::Ipv4Net>();
    let gateway = gateway.parse::<std::net::Ipv4Addr>();
    matches!((subnet, gateway), (Ok(subnet), Ok(gateway)) if subnet.contains(&gateway))
}

#[cfg(test)]
mod tests {
    use mesh_client::{SeenInterface, SeenRoute, mesh::Endpoint};
    use serde_json::json;

    use super::*;

    fn expected() -> Expected {
        serde_json::from_value(json!({
            "interfaces": [{ "name": "qm1" }, { "name": "eth0", "mac": "02:53:0a:2a:01:02", "sandbox": "/n" }],
            "ips": [{ "address": "10.42.1.2/24", "interface": 1 }],
            "routes": [{ "dst": "0.0.0.0/0", "gw": "10.42.1.1" }, { "dst": "192.0.2.0/24", "gw": "198.51.100.1" }],
        }))
        .unwrap()
    }

    fn lease() -> AddressLease {
        AddressLease {
            address: "10.42.1.2".to_owned(),
            endpoint: Some(Endpoint {
                mac: "02:53:0a:2a:01:02".to_owned(),
                ..Endpoint::default()
            }),
            ..AddressLease::default()
        }
    }

    fn seen() -> Seen {
        Seen {
            interfaces: vec![SeenInterface {
                name: "eth0".to_owned(),
                index: 2,
                mac: "02:53:0a:2a:01:02".to_owned(),
                mtu: 1450,
                up: true,
                addresses: vec!["10.42.1.2/24".parse().unwrap()],
            }],
            routes: vec![SeenRoute {
                destination: "0.0.0.0/0".parse().unwrap(),
                gateway: Some("10.42.1.1".parse().unwrap()),
                interface: Some(2),
            }],
        }
    }

    #[test]
    fn what_is_as_it_was_made_is_in_order_whatever_other_plugins_did() {
        assert_eq!(compare("eth0", &expected(), &lease(), &seen()), Ok(()));
    }

    #[test]
    fn each_thing_that_differs_is_said() {
        let differs = |change: &dyn Fn(&mut AddressLease, &mut Seen), words: &str| {
            let (mut lease, mut seen) = (lease(), seen());
            change(&mut lease, &mut seen);
            let message = compare("eth0", &expected(), &lease, &seen).unwrap_err();
            assert!(message.contains(words), "{message}");
        };
        differs(
            &|lease, _| lease.address = "10.42.1.3".into(),
            "holds 10.42.1.3",
        );
        differs(
            &|lease, _| lease.leaked = "its interface is gone".into(),
            "is gone",
        );
        differs(&|_, seen| seen.interfaces.clear(), "no eth0");
        differs(&|_, seen| seen.interfaces[0].up = false, "down");
        differs(
            &|_, seen| seen.interfaces[0].mac = "02:00:00:00:00:01".into(),
            "MAC",
        );
        differs(
            &|lease, _| lease.endpoint.as_mut().unwrap().mac = "02:00:00:00:00:01".into(),
            "heard under 02:00:00:00:00:01 alone",
        );
        differs(
            &|_, seen| seen.interfaces[0].addresses.clear(),
            "no address 10.42.1.2/24",
        );
        differs(&|_, seen| seen.routes.clear(), "route to 0.0.0.0/0");
        assert!(compare("eth1", &expected(), &lease(), &seen()).is_err());
    }
}
