//! The maps, opened with their types.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, MapError, MapInfo, PerCpuArray, PerCpuValues, RingBuf},
    util::nr_cpus,
};
use mesh_layout::{
    CONFIG_GUARD_ONLY, CONFIG_GUARD_TAGGED, Config, DropReason, Drops, ENDPOINT_HELD,
    ENDPOINT_KERNEL, ENDPOINT_PORT_KERNEL, Endpoint, EndpointKey, MacHolder, MacKey, PORT_KERNEL,
    PORT_STRICT, PassReason, Passes, Peer, PeerKey, PeerStats, PortKey, StrictPort, Underlay,
    UnderlayKey, Vtep, VtepKey, map_names,
};
use nix::time::{ClockId, clock_gettime};

use super::{
    EndpointPath, FastPathError, FastPathState, Mac, PeerCounters,
    bpf::{self, RawMap},
    watch::WatchMaps,
};
use crate::desired::holders::Holders;

/// The maps of the object.
pub(super) struct Maps {
    pub(super) peers: Table<PeerKey, Peer>,
    pub(super) vteps: Table<VtepKey, Vtep>,
    pub(super) underlays: Table<UnderlayKey, Underlay>,
    pub(super) endpoints: Table<EndpointKey, Endpoint>,
    pub(super) macs: Table<MacKey, MacHolder>,
    pub(super) strict_ports: Table<PortKey, StrictPort>,
    stats: PerCpuArray<MapData, PeerStats>,
    drops: PerCpuArray<MapData, Drops>,
    passes: PerCpuArray<MapData, Passes>,
    config: Array<MapData, Config>,
    pub(super) watch: WatchMaps,
}

/// A hash map and its name, for errors.
pub(super) struct Table<K: Pod, V: Pod> {
    name: &'static str,
    map: HashMap<MapData, K, V>,
    /// The map once more, to be read as a whole.
    fd: OwnedFd,
}

fn failed(map: &'static str) -> impl Fn(MapError) -> FastPathError {
    move |source| FastPathError::Map { map, source }
}

fn take<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, FastPathError> {
    let map = ebpf
        .take_map(name)
        .ok_or(FastPathError::Missing { what: "map", name })?;
    T::try_from(map).map_err(failed(name))
}

impl Maps {
    /// Takes the maps out of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<(Self, RingBuf<MapData>), FastPathError> {
        let events = take(ebpf, map_names::EVENTS)?;
        let maps = Self {
            peers: Table::take(ebpf, map_names::PEERS)?,
            vteps: Table::take(ebpf, map_names::VTEPS)?,
            underlays: Table::take(ebpf, map_names::UNDERLAYS)?,
            endpoints: Table::take(ebpf, map_names::ENDPOINTS)?,
            macs: Table::take(ebpf, map_names::MACS)?,
            strict_ports: Table::take(ebpf, map_names::STRICT_PORTS)?,
            stats: take(ebpf, map_names::PEER_STATS)?,
            drops: take(ebpf, map_names::DROPS)?,
            passes: take(ebpf, map_names::PASSES)?,
            config: take(ebpf, map_names::CONFIG)?,
            watch: WatchMaps {
                watch: take(ebpf, map_names::WATCH)?,
                stats: take(ebpf, map_names::WATCH_STATS)?,
            },
        };
        Ok((maps, events))
    }

    /// The node's entry as the kernel has it.
    pub(super) fn config(&self) -> Result<Config, FastPathError> {
        self.config.get(&0, 0).map_err(failed(map_names::CONFIG))
    }

    /// Writes the node's entry unless the kernel has it already.
    pub(super) fn set_config(&mut self, config: Config) -> Result<(), FastPathError> {
        if self.config()? == config {
            return Ok(());
        }
        self.config
            .set(0, config, 0)
            .map_err(failed(map_names::CONFIG))
    }

    /// Tells the programs to leave forwarding to the kernel path, whatever else they were told.
    pub(super) fn stop_forwarding(&mut self) -> Result<(), FastPathError> {
        let config = self.config()?;
        self.set_config(Config {
            flags: config.flags | CONFIG_GUARD_ONLY,
            ..config
        })
    }

    /// Sets the counters at `index` to zero, on every CPU.
    pub(super) fn clear_stats(&mut self, index: u32) -> Result<(), FastPathError> {
        let cpus = nr_cpus().map_err(|(_, source)| FastPathError::Map {
            map: map_names::PEER_STATS,
            source: source.into(),
        })?;
        let zeros = PerCpuValues::try_from(vec![PeerStats::default(); cpus]).map_err(|source| {
            FastPathError::Map {
                map: map_names::PEER_STATS,
                source: source.into(),
            }
        })?;
        self.stats
            .set(index, zeros, 0)
            .map_err(failed(map_names::PEER_STATS))
    }

    /// The counters at `index`, summed over the CPUs. `now` is `CLOCK_MONOTONIC`.
    pub(super) fn counters(
        &self,
        index: u32,
        now: Duration,
    ) -> Result<PeerCounters, FastPathError> {
        let values = self
            .stats
            .get(&index, 0)
            .map_err(failed(map_names::PEER_STATS))?;
        let stats = values
            .iter()
            .fold(PeerStats::default(), |sum, cpu| PeerStats {
                tx_packets: sum.tx_packets + cpu.tx_packets,
                tx_bytes: sum.tx_bytes + cpu.tx_bytes,
                rx_packets: sum.rx_packets + cpu.rx_packets,
                rx_bytes: sum.rx_bytes + cpu.rx_bytes,
                kernel_tx_packets: sum.kernel_tx_packets + cpu.kernel_tx_packets,
                kernel_tx_bytes: sum.kernel_tx_bytes + cpu.kernel_tx_bytes,
                kernel_rx_packets: sum.kernel_rx_packets + cpu.kernel_rx_packets,
                kernel_rx_bytes: sum.kernel_rx_bytes + cpu.kernel_rx_bytes,
                drops: sum.drops + cpu.drops,
                last_seen_ns: sum.last_seen_ns.max(cpu.last_seen_ns),
            });
        let last_packet_age_ms = (stats.last_seen_ns != 0).then(|| {
            let age = now.saturating_sub(Duration::from_nanos(stats.last_seen_ns));
            u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
        });
        Ok(PeerCounters {
            stats,
            last_packet_age_ms,
        })
    }

    /// Drops by reason, zeros left out.
    pub(super) fn drops(&self) -> Result<BTreeMap<&'static str, u64>, FastPathError> {
        let cpus = self.drops.get(&0, 0).map_err(failed(map_names::DROPS))?;
        Ok(DropReason::ALL
            .iter()
            .map(|reason| (reason.name(), cpus.iter().map(|cpu| cpu.get(*reason)).sum()))
            .filter(|(_, count)| *count != 0)
            .collect())
    }

    /// Packets left to the kernel by reason, zeros left out.
    pub(super) fn passes(&self) -> Result<BTreeMap<&'static str, u64>, FastPathError> {
        let cpus = self.passes.get(&0, 0).map_err(failed(map_names::PASSES))?;
        Ok(PassReason::ALL
            .iter()
            .map(|reason| (reason.name(), cpus.iter().map(|cpu| cpu.get(*reason)).sum()))
            .filter(|(_, count)| *count != 0)
            .collect())
    }
}

impl<K: Pod + Ord, V: Pod + PartialEq> Table<K, V> {
    fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, FastPathError> {
        let map = ebpf
            .take_map(name)
            .ok_or(FastPathError::Missing { what: "map", name })?;
        let fd = match &map {
            Map::HashMap(data) => data.fd().as_fd().try_clone_to_owned(),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        };
        Ok(Self {
            name,
            fd: fd.map_err(|error| failed(name)(MapError::IoError(error)))?,
            map: HashMap::try_from(map).map_err(failed(name))?,
        })
    }

    /// All entries, as the kernel has them.
    pub(super) fn entries(&self) -> Result<BTreeMap<K, V>, FastPathError> {
        bpf::read_hash(self.fd.as_fd()).map_err(|source| FastPathError::Map {
            map: self.name,
            source: source.into(),
        })
    }

    /// The entry of `key`, if there is one.
    pub(super) fn get(&self, key: K) -> Result<Option<V>, FastPathError> {
        match self.map.get(&key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed(self.name)(error)),
        }
    }

    /// Adds an entry or overwrites it.
    pub(super) fn set(&mut self, key: K, value: V) -> Result<(), FastPathError> {
        self.map.insert(key, value, 0).map_err(failed(self.name))
    }

    /// Removes an entry; one that is gone already is no error.
    pub(super) fn remove(&mut self, key: K) -> Result<(), FastPathError> {
        match self.map.remove(&key) {
            Err(MapError::KeyNotFound) => Ok(()),
            other => other.map_err(failed(self.name)),
        }
    }

    /// Makes the map show exactly `wanted`, changing nothing that is right already. What the kernel refuses
    /// keeps nothing else from being written; the first refusal is returned.
    pub(super) fn show(&mut self, wanted: &BTreeMap<K, V>) -> Result<(), FastPathError> {
        let shown = self.entries()?;
        let mut refused = Ok(());
        for key in shown.keys().filter(|key| !wanted.contains_key(key)) {
            refused = refused.and(self.remove(*key));
        }
        for (key, value) in wanted {
            if shown.get(key) != Some(value) {
                refused = refused.and(self.set(*key, *value));
            }
        }
        refused
    }
}

/// The flags of the node's entry.
pub(super) fn config_flags(wanted: &FastPathState) -> u32 {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    flag(!wanted.forwarding, CONFIG_GUARD_ONLY) | flag(wanted.filters_vlans, CONFIG_GUARD_TAGGED)
}

/// The entry of an endpoint.
pub(super) fn endpoint(path: &EndpointPath, wanted: &FastPathState) -> Endpoint {
    let mut flags = if path.held { ENDPOINT_HELD } else { 0 };
    if wanted.shaped_ports.contains(&path.link) {
        flags |= ENDPOINT_KERNEL | ENDPOINT_PORT_KERNEL;
    }
    Endpoint {
        link: path.link,
        mac: path.mac,
        flags,
        identity: 0,
    }
}

/// The entries of the containers' MAC addresses.
pub(super) fn macs(wanted: &FastPathState) -> BTreeMap<MacKey, MacHolder> {
    let key = |mac| MacKey { mac, pad: [0; 2] };
    let entry = |(&mac, &link): (&Mac, &u32)| (key(mac), MacHolder { link });
    wanted.macs.iter().map(entry).collect()
}

/// The entries of the ports of registered containers, and of those that are left to the kernel path.
pub(super) fn strict_ports(wanted: &FastPathState) -> BTreeMap<PortKey, StrictPort> {
    let mut ports = BTreeMap::new();
    for (links, flag) in [
        (&wanted.strict_ports, PORT_STRICT),
        (&wanted.shaped_ports, PORT_KERNEL),
    ] {
        for &link in links {
            let port: &mut StrictPort = ports.entry(PortKey { link }).or_default();
            port.flags |= flag;
        }
    }
    ports
}

/// The entries of the interfaces by which packets may leave: those that packets of peers arrive on.
pub(super) fn underlays(wanted: &FastPathState) -> BTreeMap<UnderlayKey, Underlay> {
    let links = wanted.underlay.keys();
    links
        .map(|&link| (UnderlayKey { link }, Underlay::default()))
        .collect()
}

/// The ports of addresses and MAC addresses that an earlier life's programs guard, from the pins
/// of the maps; nothing where there are none.
pub(super) fn pinned_holders(endpoints: &Path, macs: &Path) -> Holders {
    fn entries<K: Pod, V: Pod>(path: &Path) -> Vec<(K, V)> {
        let map = MapData::from_pin(path).ok();
        let map = map.and_then(|map| HashMap::<_, K, V>::try_from(Map::HashMap(map)).ok());
        map.map_or_else(Vec::new, |map| map.iter().flatten().collect())
    }
    let endpoints = entries::<EndpointKey, Endpoint>(endpoints).into_iter();
    let macs = entries::<MacKey, MacHolder>(macs).into_iter();
    Holders {
        addresses: endpoints
            .filter(|(_, endpoint)| endpoint.flags & ENDPOINT_HELD != 0)
            .map(|(key, endpoint)| (key.address.into(), endpoint.link))
            .collect(),
        macs: macs.map(|(key, holder)| (key.mac, holder.link)).collect(),
    }
}

/// The generation in the node's entry of the map pinned at `path`, of this layout or another: it
/// is the entry's first field in all.
pub(super) fn pinned_generation(path: &Path) -> Option<u64> {
    let entry = RawMap::open(path).ok()?.get(&0_u32.to_ne_bytes()).ok()?;
    let generation = entry.first_chunk()?;
    Some(u64::from_ne_bytes(*generation))
}

const _: () = assert!(std::mem::offset_of!(Config, generation) == 0);

/// `CLOCK_MONOTONIC`, the clock of the programs' time stamps.
pub(super) fn monotonic_now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// Unpins the map at `path` if it has another capacity than `capacity`: aya reuses a pinned
/// map by name without comparing anything. Its entries are written anew by the next sync.
pub(super) fn drop_if_resized(
    path: &Path,
    name: &'static str,
    capacity: u32,
) -> Result<(), FastPathError> {
    let info = match MapInfo::from_pin(path) {
        Ok(info) => info,
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            return Ok(());
        }
        Err(source) => return Err(FastPathError::Map { map: name, source }),
    };
    if info.max_entries() == capacity {
        return Ok(());
    }
    tracing::warn!(name: "cluster-size-changed",
        map = name,
        old = info.max_entries(),
        new = capacity,
        "the cluster's size changed: the map is made anew"
    );
    std::fs::remove_file(path).map_err(|source| FastPathError::PinDirectory {
        action: "unpin",
        path: path.to_owned(),
        source,
    })
}
