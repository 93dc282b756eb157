//! Attached programs, pins, and entries of the maps.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData},
    programs::{SchedClassifier, TcAttachType},
};
use mesh_layout::{
    Config, Endpoint, EndpointKey, LAYOUT_VERSION, Peer, PeerKey, Vtep, VtepKey, map_names,
};
use mesh_testbed::{Entrance, Host};

use super::{HostState, Interfaces, network::hex};

/// The programs on each interface, in the order in which they run (tcx; clsact filters are
/// not looked for).
pub(super) fn programs(
    host: &Entrance,
    interfaces: &Interfaces,
    state: &mut HostState,
) -> anyhow::Result<()> {
    let found = host.run(|| {
        let mut found = Vec::new();
        for interface in interfaces.attachable() {
            for (direction, attach_type) in [
                ("ingress", TcAttachType::Ingress),
                ("egress", TcAttachType::Egress),
            ] {
                // An interface that is gone again has none.
                let Ok((_, programs)) = SchedClassifier::query_tcx(interface, attach_type) else {
                    continue;
                };
                for program in programs {
                    let name = program.name_as_str().unwrap_or("(nameless)");
                    found.push(format!("program {name} at {direction} of {interface}"));
                }
            }
        }
        found
    })?;
    state.extend(found);
    Ok(())
}

/// What is pinned. Links are named after an interface's index, so they are counted by
/// program; that each works is seen from the programs attached.
pub(super) fn pins(directory: &Path, state: &mut HostState) -> anyhow::Result<()> {
    let maps = directory.join(format!("v{LAYOUT_VERSION}"));
    for name in names_in(&maps)? {
        state.insert(format!("pin v{LAYOUT_VERSION}/{name}"));
    }
    let mut links = std::collections::BTreeMap::<String, usize>::new();
    for name in names_in(&directory.join("links"))? {
        let program = name.rsplit('-').next().unwrap_or_default().to_owned();
        *links.entry(program).or_default() += 1;
    }
    state.extend(
        links
            .into_iter()
            .map(|(program, count)| format!("pins of links: {count} of {program}")),
    );
    Ok(())
}

fn names_in(directory: &Path) -> anyhow::Result<Vec<String>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot list {}", directory.display())),
    }
}

/// Entries of the maps behind the pins. A map that is not there, or has another shape, shows
/// none, which differs from one that shows its entries.
pub(super) fn maps(directory: &Path, interfaces: &Interfaces, state: &mut HostState) {
    let maps = directory.join(format!("v{LAYOUT_VERSION}"));
    for (key, peer) in hash::<PeerKey, Peer>(&maps.join(map_names::PEERS)) {
        state.insert(format!(
            "map peers {} → {} vni {} mac {} flags {} mtu {}",
            Ipv4Addr::from(key.subnet),
            Ipv4Addr::from(peer.address),
            peer.vni,
            hex(&peer.mac),
            peer.flags,
            peer.mtu
        ));
    }
    for (key, _) in hash::<VtepKey, Vtep>(&maps.join(map_names::VTEPS)) {
        state.insert(format!("map vteps {}", Ipv4Addr::from(key.address)));
    }
    for (key, endpoint) in hash::<EndpointKey, Endpoint>(&maps.join(map_names::ENDPOINTS)) {
        state.insert(format!(
            "map endpoints {} → {} mac {}",
            Ipv4Addr::from(key.address),
            interfaces.name(endpoint.link),
            hex(&endpoint.mac)
        ));
    }
    if let Some(config) = config(&maps.join(map_names::CONFIG)) {
        state.insert(format!(
            "map config {} host {} vni {} port {} overlay {} mac {}",
            Ipv4Addr::from(config.subnet),
            Ipv4Addr::from(config.host_address),
            config.vni,
            config.port,
            interfaces.name(config.overlay_link),
            hex(&config.overlay_mac)
        ));
    }
}

fn hash<K: Pod, V: Pod>(pin: &Path) -> Vec<(K, V)> {
    let map = MapData::from_pin(pin).map(Map::HashMap);
    let Ok(Ok(map)) = map.map(HashMap::<MapData, K, V>::try_from) else {
        return Vec::new();
    };
    // Entries that go while they are read are gone.
    map.iter().flatten().collect()
}

fn config(pin: &Path) -> Option<Config> {
    let map = MapData::from_pin(pin).map(Map::Array).ok()?;
    let map = Array::<MapData, Config>::try_from(map).ok()?;
    map.get(&0, 0).ok()
}

/// Deletes every entry of one of the hash maps of a host.
pub(crate) fn empty(host: &Host, map: &str) -> anyhow::Result<()> {
    let pin = pin_of(host, map);
    match map {
        map_names::PEERS => empty_hash::<PeerKey, Peer>(&pin),
        map_names::VTEPS => empty_hash::<VtepKey, Vtep>(&pin),
        map_names::ENDPOINTS => empty_hash::<EndpointKey, Endpoint>(&pin),
        other => bail!("{other} is not a hash map"),
    }
    .with_context(|| format!("cannot empty {}", pin.display()))
}

/// How many entries one of the hash maps of a host has; 0 where there is no such map.
pub(crate) fn entries(host: &Host, map: &str) -> usize {
    let pin = pin_of(host, map);
    match map {
        map_names::PEERS => hash::<PeerKey, Peer>(&pin).len(),
        map_names::VTEPS => hash::<VtepKey, Vtep>(&pin).len(),
        map_names::ENDPOINTS => hash::<EndpointKey, Endpoint>(&pin).len(),
        _ => 0,
    }
}

fn pin_of(host: &Host, map: &str) -> PathBuf {
    host.bpffs_dir()
        .join(format!("quilt-mesh/v{LAYOUT_VERSION}"))
        .join(map)
}

fn empty_hash<K: Pod, V: Pod>(pin: &Path) -> anyhow::Result<()> {
    let mut map = HashMap::<MapData, K, V>::try_from(Map::HashMap(MapData::from_pin(pin)?))?;
    let keys: Vec<K> = map.keys().flatten().collect();
    for key in keys {
        map.remove(&key)?;
    }
    Ok(())
}
