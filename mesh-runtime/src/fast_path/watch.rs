//! Looking whether maps and links still are as they were made: the kernel tells nobody when
//! somebody else changes an entry, removes a pin or detaches a link.
//!
//! A look reads a bounded share of the entries and links, in turn. So maps that were emptied
//! are found at the next look, and one entry or link among many within a few.

use std::{net::Ipv4Addr, ops::Bound};

use aya::maps::MapData;
use ipnet::Ipv4Net;
use mesh_layout::{EndpointKey, VtepKey, map_names};

use super::{
    FastPath, FastPathError, FastPathState, bpffs::PinDirectory, hook::Hook, peers::peer_key,
};

/// Peers, endpoints and links that one look reads of each. A look at 255 peers takes two to four
/// turns, and each some 100 µs.
const SHARE: usize = 64;

/// Where the next look begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct WatchTurn {
    peer: Option<Ipv4Net>,
    endpoint: Option<Ipv4Addr>,
    hook: Option<Hook>,
    pin: Option<Hook>,
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
            && config.bridge_mac == shown.bridge.mac;
        Ok(same_node && self.peers_show(shown, turn)? && self.endpoints_show(shown, turn)?)
    }

    fn peers_show(
        &self,
        shown: &FastPathState,
        turn: &mut WatchTurn,
    ) -> Result<bool, FastPathError> {
        let from = turn.peer.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        let mut seen = 0;
        for (&subnet, path) in shown.peers.range((from, Bound::Unbounded)).take(SHARE) {
            let (next_hop, link) = path
                .next_hop
                .map_or(([0; 4], 0), |(address, link)| (address.octets(), link));
            let address = path.address.octets();
            let as_made = self.maps.peers.get(peer_key(subnet))?.is_some_and(|entry| {
                entry.address == address && entry.next_hop == next_hop && entry.link == link
            });
            if !as_made || self.maps.vteps.get(VtepKey { address })?.is_none() {
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
        let from = turn.endpoint.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        let mut seen = 0;
        for (&address, path) in shown.endpoints.range((from, Bound::Unbounded)).take(SHARE) {
            let key = EndpointKey {
                address: address.octets(),
            };
            let entry = self.maps.endpoints.get(key)?;
            if !entry.is_some_and(|entry| entry.link == path.link && entry.mac == path.mac) {
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

    /// Makes the pins of maps, and of the links whose turn it is, that somebody has removed again,
    /// and returns how many: without them the next runtime would begin with empty maps, and no
    /// program would outlive this one.
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
        // Whoever removed one pin has often removed all.
        let share = if missing.is_empty() {
            SHARE
        } else {
            turn.pin = None;
            usize::MAX
        };
        let unpinned = self.programs.as_ref().map_or_else(Vec::new, |programs| {
            programs.attachments.unpinned(&mut turn.pin, share)
        });
        // Without the directory of the links nothing could be attached any more.
        if missing.is_empty() && unpinned.is_empty() && self.pins.links().is_dir() {
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
