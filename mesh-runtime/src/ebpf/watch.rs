//! Looking whether maps and links still are as they were made: the kernel tells nobody when
//! somebody else changes an entry, removes a pin or detaches a link.
//!
//! A look reads a bounded share of the entries and links, in turn. Of a map with no more than
//! [`WHOLE`] entries that is all of them, of a larger one and of the links a few dozen. So maps that
//! were emptied are found at the next look, and one entry or link among many within a few.

use std::{
    collections::BTreeMap, fs, net::Ipv4Addr, ops::Bound, os::fd::AsFd as _, time::SystemTime,
};

use aya::{
    Pod,
    maps::{MapData, MapError},
};
use ipnet::Ipv4Net;
use mesh_layout::{
    Endpoint, EndpointKey, MacHolder, MacKey, Peer, PeerKey, PortKey, StrictPort, Vtep, VtepKey,
    map_names,
};

use super::{
    EndpointPath, FastPath, FastPathError, FastPathState, PeerPath, bpf, bpffs::PinDirectory,
    hook::Hook, maps, peers::peer_key,
};

/// Links that one look reads, and peers and endpoints of maps with more than [`WHOLE`].
const SHARE: usize = 64;

/// Peers or endpoints that are read at every look. It takes three system calls for 1024.
const WHOLE: usize = 1024;

/// Where the next look begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct WatchTurn {
    peer: Option<Ipv4Net>,
    endpoint: Option<Ipv4Addr>,
    hook: Option<Hook>,
    /// When the directory of the links had changed, as of the last look that found every pin.
    links_changed: Option<SystemTime>,
}

/// The maps by their own handles, from which lost pins are made again.
#[derive(Debug, Default)]
pub(super) struct PinnedMaps(Vec<(&'static str, MapData)>);

impl PinnedMaps {
    /// Opens every pinned map once more.
    pub(super) fn open(pins: &PinDirectory) -> Result<Self, FastPathError> {
        let open = |name| {
            let map = MapData::from_pin(pins.map(name))
                .map_err(|source| FastPathError::Map { map: name, source })?;
            Ok((name, map))
        };
        map_names::ALL
            .into_iter()
            .map(open)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The entries of a hash map.
    fn entries<K: Pod + Ord, V: Pod>(
        &self,
        name: &'static str,
    ) -> Result<BTreeMap<K, V>, FastPathError> {
        let map = self.0.iter().find(|(it, _)| *it == name);
        let (_, map) = map.ok_or(FastPathError::Missing { what: "map", name })?;
        bpf::read_hash(map.fd().as_fd(), WHOLE).map_err(|source| FastPathError::Map {
            map: name,
            source: MapError::IoError(source),
        })
    }
}

/// Whether the entry of a peer is what was made of it.
fn is_peer(entry: Option<&Peer>, path: &PeerPath) -> bool {
    let (next_hop, link) = path
        .next_hop
        .map_or(([0; 4], 0), |(address, link)| (address.octets(), link));
    entry.is_some_and(|entry| {
        entry.address == path.address.octets() && entry.next_hop == next_hop && entry.link == link
    })
}

/// Whether the entry of an endpoint is what was made of it.
fn is_endpoint(entry: Option<&Endpoint>, path: &EndpointPath) -> bool {
    entry.is_some_and(|entry| *entry == maps::endpoint(path))
}

fn vtep_key(path: &PeerPath) -> VtepKey {
    VtepKey {
        address: path.address.octets(),
    }
}

fn endpoint_key(address: Ipv4Addr) -> EndpointKey {
    EndpointKey {
        address: address.octets(),
    }
}

impl FastPath {
    /// Whether the share of the maps whose turn it is shows what was made of `shown`.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    pub fn maps_show(
        &self,
        shown: &FastPathState,
        turn: &mut WatchTurn,
    ) -> Result<bool, FastPathError> {
        let config = self.maps.config()?;
        let same_node = config.subnet == shown.subnet.network().octets()
            && config.mask == shown.subnet.netmask().octets()
            && config.host_address == shown.host_address.octets()
            && config.vni == shown.vni
            && config.overlay_link == shown.overlay.index
            && config.overlay_mac == shown.overlay.mac
            && config.bridge_mac == shown.bridge.mac
            && config.flags == maps::config_flags(shown);
        Ok(same_node
            && self.peers_show(shown, turn)?
            && self.endpoints_show(shown, turn)?
            && self.macs_show(shown)?
            && self.strict_ports_show(shown)?)
    }

    fn strict_ports_show(&self, shown: &FastPathState) -> Result<bool, FastPathError> {
        if shown.strict_ports.len() > WHOLE {
            return Ok(true);
        }
        let name = map_names::STRICT_PORTS;
        let entries = self.pinned.entries::<PortKey, StrictPort>(name)?;
        // One too many would silence its container.
        Ok(maps::strict_ports(shown) == entries)
    }

    fn macs_show(&self, shown: &FastPathState) -> Result<bool, FastPathError> {
        if shown.macs.len() > WHOLE {
            // Each comparison writes them; a node has no more than a few hundred containers.
            return Ok(true);
        }
        let entries = self.pinned.entries::<MacKey, MacHolder>(map_names::MACS)?;
        Ok(maps::macs(shown)
            .iter()
            .all(|(key, holder)| entries.get(key) == Some(holder)))
    }

    fn peers_show(
        &self,
        shown: &FastPathState,
        turn: &mut WatchTurn,
    ) -> Result<bool, FastPathError> {
        if shown.peers.len() <= WHOLE {
            let peers = self.pinned.entries::<PeerKey, Peer>(map_names::PEERS)?;
            let vteps = self.pinned.entries::<VtepKey, Vtep>(map_names::VTEPS)?;
            return Ok(shown.peers.iter().all(|(&subnet, path)| {
                is_peer(peers.get(&peer_key(subnet)), path) && vteps.contains_key(&vtep_key(path))
            }));
        }
        let from = turn.peer.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        let mut seen = 0;
        for (&subnet, path) in shown.peers.range((from, Bound::Unbounded)).take(SHARE) {
            let entry = self.maps.peers.get(peer_key(subnet))?;
            if !is_peer(entry.as_ref(), path) || self.maps.vteps.get(vtep_key(path))?.is_none() {
                return Ok(false);
            }
            last = Some(subnet);
            seen += 1;
        }
        // The last share begins anew.
        turn.peer = last.filter(|_| seen == SHARE);
        Ok(true)
    }

    fn endpoints_show(
        &self,
        shown: &FastPathState,
        turn: &mut WatchTurn,
    ) -> Result<bool, FastPathError> {
        if shown.endpoints.len() <= WHOLE {
            let entries = self
                .pinned
                .entries::<EndpointKey, Endpoint>(map_names::ENDPOINTS)?;
            return Ok(shown
                .endpoints
                .iter()
                .all(|(&address, path)| is_endpoint(entries.get(&endpoint_key(address)), path)));
        }
        let from = turn.endpoint.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        let mut seen = 0;
        for (&address, path) in shown.endpoints.range((from, Bound::Unbounded)).take(SHARE) {
            let entry = self.maps.endpoints.get(endpoint_key(address))?;
            if !is_endpoint(entry.as_ref(), path) {
                return Ok(false);
            }
            last = Some(address);
            seen += 1;
        }
        turn.endpoint = last.filter(|_| seen == SHARE);
        Ok(true)
    }

    /// Whether the share of the links whose turn it is are on their interfaces. While an
    /// [`AttachJob`](super::AttachJob) is under way, that looks itself.
    pub fn links_hold(&self, turn: &mut WatchTurn) -> bool {
        self.programs
            .as_ref()
            .is_none_or(|programs| programs.attachments.share_holds(&mut turn.hook, SHARE))
    }

    /// Makes the pins of maps and links that somebody has removed again, and returns how many:
    /// without them the next runtime would begin with empty maps, and no program would outlive
    /// this one.
    ///
    /// # Errors
    ///
    /// A pin that cannot be made.
    pub fn restore_pins(&mut self, turn: &mut WatchTurn) -> Result<usize, FastPathError> {
        let missing: Vec<_> = self
            .pinned
            .0
            .iter()
            .filter(|(name, _)| !self.pins.map(name).exists())
            .collect();
        // Whoever takes a pin away or makes one changes the time of its directory (simple_unlink in
        // fs/libfs.c, bpf_dentry_finalize in kernel/bpf/inode.c).
        let changed = fs::metadata(self.pins.links()).and_then(|it| it.modified());
        let changed = changed.ok();
        if missing.is_empty() && changed.is_some() && changed == turn.links_changed {
            return Ok(0);
        }
        let unpinned = self
            .programs
            .as_ref()
            .map_or_else(Vec::new, |programs| programs.attachments.unpinned());
        // Without the directory of the links nothing could be attached any more.
        if missing.is_empty() && unpinned.is_empty() && changed.is_some() {
            turn.links_changed = changed.filter(|_| self.programs.is_some());
            return Ok(0);
        }
        self.pins.make_directories()?;
        for (name, map) in &missing {
            map.pin(self.pins.map(name))
                .map_err(|error| FastPathError::PinDirectory {
                    action: "pin a map in",
                    path: self.pins.map(name),
                    source: std::io::Error::other(error),
                })?;
        }
        let mut restored = missing.len();
        self.pins.link_names()?;
        if let Some(programs) = &self.programs {
            for hook in unpinned {
                programs.attachments.pin_again(hook)?;
                restored += 1;
            }
        }
        Ok(restored)
    }
}
