//! The eBPF fast path: its maps, programs and attachments in the kernel.
//!
//! All calls are blocking, and each is a handful of system calls that take microseconds.
//! They act on the network namespace of the calling thread.

mod attach;
mod bpf;
mod bpffs;
mod error;
mod events;
mod hook;
mod job;
mod link;
pub(crate) mod listeners;
pub(crate) mod live;
mod maps;
mod migrate;
mod peers;
mod pins;
mod sequence;
mod state;
pub(crate) mod watch;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aya::{Ebpf, EbpfLoader, programs::SchedClassifier};
use ipnet::Ipv4Net;
use mesh_layout::{CONFIG_GUARD_ONLY, Config, EndpointKey, map_names};
use tokio::sync::Notify;

use crate::desired::holders::Holders;
use attach::Attachments;
use bpffs::PinDirectory;
pub use error::FastPathError;
use events::EventReader;
use hook::Role;
pub use job::{AttachDone, AttachJob, AttachOutcome, Hooks};
use listeners::Listeners;
use maps::Maps;
use pins::PinnedMaps;
pub use state::{
    EndpointPath, FastPathChanges, FastPathReport, FastPathState, Mac, OwnDevice, PeerCounters,
    PeerPath,
};

/// The object that `cargo xtask build-ebpf` builds, as part of this library: for tests and
/// benchmarks of the programs themselves.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("QUILT_MESH_EBPF_OBJECT_PATH"));

/// Capacity of the `endpoints`, `macs` and `strict_ports` maps: the containers of one node.
const MAX_ENDPOINTS: u32 = 4096;

/// How the fast path is opened.
#[derive(Clone, Debug)]
pub struct FastPathOptions {
    /// Mount point of the BPF file system; maps and links are pinned in `quilt-mesh/` below.
    pub bpffs: PathBuf,
    /// Capacity of the peer maps: how many subnets the cluster has.
    pub max_peers: u32,
    /// How programs are attached.
    pub attach: AttachMode,
    /// Whether the programs' own log statements are loaded. They cost nothing otherwise: the
    /// verifier removes them.
    pub log_programs: bool,
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// tcx where the kernel has it (6.6), clsact elsewhere.
    #[default]
    Auto,
    /// tcx links only.
    Tcx,
    /// clsact filters only.
    Clsact,
}

/// The loaded programs and maps.
///
/// Dropping it leaves maps, programs and attachments in the kernel: the data plane outlives
/// the daemon, and the next one takes it over without losing a packet.
pub struct FastPath {
    maps: Maps,
    /// `None` while an [`AttachJob`] has them.
    programs: Option<Programs>,
    /// What [`Attachments::list`] said last.
    attachments: Vec<String>,
    attach_mode: &'static str,
    pinned: PinnedMaps,
    pins: PinDirectory,
    /// What the maps were made to show last; `None` if that failed.
    shown: Option<FastPathState>,
    max_peers: u32,
    dropped: Arc<Notify>,
    listeners: Listeners,
    _events: EventReader,
}

/// The programs and where they are attached.
struct Programs {
    ebpf: Ebpf,
    attachments: Attachments,
}

impl std::fmt::Debug for FastPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FastPath")
            .field("attachments", &self.attachments)
            .field("pins", &self.pins)
            .finish_non_exhaustive()
    }
}

impl FastPath {
    /// Mounts bpffs if it is not there, loads the programs and opens or creates the pinned
    /// maps. Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// Every reason for which a node runs on the kernel path: no bpffs, a kernel that refuses
    /// a program or a map, a missing capability, a pin directory in use.
    pub fn open(options: &FastPathOptions) -> Result<Self, FastPathError> {
        let pins = PinDirectory::open(&options.bpffs)?;
        let earlier = pins.earlier_maps()?;
        if let Some(earlier) = &earlier {
            migrate::share_counters(earlier, &pins, options.max_peers);
        }
        let mut ebpf = load(options, &pins).map_err(because_of_age)?;
        if let Some(earlier) = &earlier {
            migrate::copy(earlier, &pins)?;
        }
        pins.link_names()?;
        for role in Role::ALL {
            load_program(&mut ebpf, role).map_err(because_of_age)?;
        }
        let (maps, drops) = Maps::take(&mut ebpf)?;
        let dropped = Arc::new(Notify::new());
        let listeners = Listeners::default();
        let whom = (Arc::clone(&dropped), listeners.clone());
        let events = EventReader::start(&mut ebpf, drops, whom, options.log_programs)?;
        let attachments = Attachments::new(options.attach, pins.links())?;
        Ok(Self {
            attach_mode: attachments.mode(),
            attachments: Vec::new(),
            programs: Some(Programs { ebpf, attachments }),
            maps,
            pinned: PinnedMaps::open(&pins)?,
            pins,
            shown: None,
            max_peers: options.max_peers,
            dropped,
            listeners,
            _events: events,
        })
    }

    /// Notified of packets that a program has dropped, of many of one reason by some.
    pub fn dropped(&self) -> Arc<Notify> {
        Arc::clone(&self.dropped)
    }

    /// Makes the maps show `wanted`, which must come before programs are attached: one that
    /// does not know its peers drops their packets. What has not changed since the last call is left
    /// alone, unless it is to be read `anew`: the kernel tells nobody when somebody else changes it.
    ///
    /// # Errors
    ///
    /// The first change the kernel refuses. What was changed before stays; the next call goes
    /// on from what the kernel shows. What is known of containers never keeps peers from being
    /// written, nor the other way round.
    pub fn show_maps(
        &mut self,
        wanted: &FastPathState,
        anew: bool,
    ) -> Result<FastPathChanges, FastPathError> {
        // Nothing is known again until all is written.
        let before = self.shown.take().filter(|_| !anew);
        let known = before.as_ref();
        let config = Config {
            generation: wanted.generation,
            subnet: wanted.subnet.network().octets(),
            mask: wanted.subnet.netmask().octets(),
            host_address: wanted.host_address.octets(),
            vni: wanted.vni,
            port: wanted.port.into(),
            overlay_link: wanted.overlay.index,
            overlay_mac: wanted.overlay.mac,
            bridge_mac: wanted.bridge.mac,
            overlay_mtu: wanted.overlay_mtu,
            flags: maps::config_flags(wanted),
            pad: [0; 4],
        };
        // Forwarding that was stopped begins again once everything is written.
        let stopped = self.maps.config()?.flags & CONFIG_GUARD_ONLY;
        self.maps.set_config(Config {
            flags: config.flags | stopped,
            ..config
        })?;
        let peers = self.show_peers(wanted, known);
        let containers = self.show_containers(wanted, known);
        let changes = peers?;
        containers?;
        self.maps.set_config(config)?;
        self.shown = Some(wanted.clone());
        Ok(changes)
    }

    fn show_containers(
        &mut self,
        wanted: &FastPathState,
        known: Option<&FastPathState>,
    ) -> Result<(), FastPathError> {
        if known.is_some_and(|known| {
            known.endpoints == wanted.endpoints
                && known.macs == wanted.macs
                && known.strict_ports == wanted.strict_ports
                && known.shaped_ports == wanted.shaped_ports
        }) {
            return Ok(());
        }
        let endpoints = wanted
            .endpoints
            .iter()
            .map(|(address, path)| {
                let key = EndpointKey {
                    address: address.octets(),
                };
                (key, maps::endpoint(path, wanted))
            })
            .collect();
        let endpoints = self.maps.endpoints.show(&endpoints);
        let macs = self.maps.macs.show(&maps::macs(wanted));
        endpoints?;
        macs?;
        // After what such a port may send from: without, its container would be silenced.
        self.maps.strict_ports.show(&maps::strict_ports(wanted))
    }

    /// Has the programs leave forwarding to the kernel path, because the maps cannot be made to
    /// show what they should. The guards stand.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub fn stop_forwarding(&mut self) -> Result<(), FastPathError> {
        self.maps.stop_forwarding()
    }

    /// Whether the kernel shows these attachments and no others, as far as that can be told without attaching: of
    /// tcx links it can.
    pub fn holds(&self, hooks: &Hooks) -> bool {
        let programs = self.programs.as_ref();
        programs.is_some_and(|programs| programs.attachments.are_those_of(&hooks.0))
    }

    /// What makes the attachments those of `wanted`, with a `look` at those that were made before; `None` while an
    /// earlier job is under way.
    pub fn attach_job(&mut self, wanted: &FastPathState, look: bool) -> Option<AttachJob> {
        let wanted = self.hooks(wanted);
        let programs = self.programs.take()?;
        Some(AttachJob {
            programs,
            wanted,
            look,
        })
    }

    /// Takes back what a job has done.
    pub fn attached(&mut self, done: AttachDone) -> AttachOutcome {
        self.attachments = done.programs.attachments.list();
        self.programs = Some(done.programs);
        done.outcome
    }

    /// What is to be attached, for comparison.
    pub fn hooks(&self, wanted: &FastPathState) -> Hooks {
        Hooks(hook::wanted(wanted))
    }

    fn show_peers(
        &mut self,
        wanted: &FastPathState,
        known: Option<&FastPathState>,
    ) -> Result<FastPathChanges, FastPathError> {
        if known.is_none_or(|known| known.underlay != wanted.underlay) {
            self.maps.underlays.show(&maps::underlays(wanted))?;
        }
        if known.is_some_and(|known| known.peers == wanted.peers && known.vni == wanted.vni) {
            return Ok(FastPathChanges::default());
        }
        let changes = peers::plan(
            &wanted.peers,
            wanted.vni,
            &self.maps.peers.entries()?,
            &self.maps.vteps.entries()?,
            self.max_peers,
        )?;
        for index in changes.clear {
            self.maps.clear_stats(index)?;
        }
        for (key, vtep) in changes.set_vteps {
            self.maps.vteps.set(key, vtep)?;
        }
        for (key, peer) in changes.set_peers {
            self.maps.peers.set(key, peer)?;
        }
        let removed = changes.remove_peers.len();
        for key in changes.remove_peers {
            self.maps.peers.remove(key)?;
        }
        for key in changes.remove_vteps {
            self.maps.vteps.remove(key)?;
        }
        Ok(FastPathChanges {
            added: changes.added,
            changed: changes.changed,
            removed: u32::try_from(removed).unwrap_or(u32::MAX),
        })
    }

    /// Counters of every peer in the map, by subnet.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    pub fn peer_counters(&self) -> Result<BTreeMap<Ipv4Net, PeerCounters>, FastPathError> {
        let prefix = u32::from_be_bytes(self.maps.config()?.mask).leading_ones();
        let now = maps::monotonic_now();
        self.maps
            .peers
            .entries()?
            .into_iter()
            .filter_map(|(key, peer)| {
                // `leading_ones` of a u32 is at most 32, so both conversions hold.
                let prefix = u8::try_from(prefix).ok()?;
                let subnet = Ipv4Net::new(key.subnet.into(), prefix).ok()?;
                Some(
                    self.maps
                        .counters(peer.counters, now)
                        .map(|it| (subnet, it)),
                )
            })
            .collect()
    }

    /// What was counted of one peer; `None` if it is not in the map.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    pub fn counters_of(&self, peer: Ipv4Net) -> Result<Option<PeerCounters>, FastPathError> {
        let Some(entry) = self.maps.peers.get(peers::peer_key(peer))? else {
            return Ok(None);
        };
        let counters = self.maps.counters(entry.counters, maps::monotonic_now())?;
        Ok(Some(counters))
    }

    /// How long ago the last packet of each of `peers` came; those that are not in the map, or
    /// were never heard, are left out.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    pub fn last_packet_ages(
        &self,
        peers: &[Ipv4Net],
    ) -> Result<BTreeMap<Ipv4Net, Duration>, FastPathError> {
        let mut ages = BTreeMap::new();
        for &peer in peers {
            let Some(entry) = self.maps.peers.get(peers::peer_key(peer))? else {
                continue;
            };
            let now = maps::monotonic_now();
            let seen = self.maps.counters(entry.counters, now)?.stats.last_seen_ns;
            if seen != 0 {
                ages.insert(peer, now.saturating_sub(Duration::from_nanos(seen)));
            }
        }
        Ok(ages)
    }

    /// Whether programs are attached as filters, for which an interface needs a queueing discipline.
    pub fn attaches_filters(&self) -> bool {
        self.attach_mode == attach::CLSACT
    }

    /// State, drops and passes.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    pub fn report(&self) -> Result<FastPathReport, FastPathError> {
        Ok(FastPathReport {
            attach_mode: self.attach_mode,
            attachments: self.attachments.clone(),
            pin_directory: self.pins.path().to_owned(),
            generation: self.maps.config()?.generation,
            drops: self.maps.drops()?,
            passes: self.maps.passes()?,
        })
    }
}

/// Generation of the peer set that the pinned maps of an earlier life show, without opening
/// anything else; `None` if there are none.
pub fn shown_generation(bpffs: &Path) -> Option<u64> {
    maps::pinned_generation(&bpffs::current_pin(bpffs, map_names::CONFIG))
}

/// Whether a program of an earlier life is known to stand at the bridge with that index.
pub(crate) fn stands_at_bridge(bpffs: &Path, bridge: u32) -> bool {
    attach::stands_at_bridge(&bpffs::link_pins(bpffs), bridge)
}

/// Who holds addresses and MAC addresses by the pinned maps of an earlier life.
pub(crate) fn shown_holders(bpffs: &Path) -> Holders {
    let pin = |name| bpffs::current_pin(bpffs, name);
    maps::pinned_holders(&pin(map_names::ENDPOINTS), &pin(map_names::MACS))
}

/// Detaches what an earlier life left attached, for a runtime that cannot have the
/// fast path. `interfaces` are all interfaces of the namespace, by name. With `forget` the
/// maps go as well, and the BPF file system if we mounted it; the interfaces whose clsact
/// qdisc we made are returned, for the caller to remove it.
///
/// # Errors
///
/// A pin directory that another runtime holds, or a pin that cannot be removed.
pub fn detach_leftovers(
    bpffs: &Path,
    interfaces: &[String],
    forget: bool,
) -> Result<Vec<u32>, FastPathError> {
    if !bpffs::exists(bpffs) {
        // Filters need no pin, and stay when somebody unmounts the file system.
        attach::detach_filters(interfaces);
        return Ok(Vec::new());
    }
    let pins = PinDirectory::open(bpffs)?;
    attach::detach_leftovers(&pins.links(), interfaces)?;
    if !forget {
        return Ok(Vec::new());
    }
    let qdiscs = attach::own_qdiscs(&pins.links())?;
    pins.remove()?;
    bpffs::unmount_own(bpffs)?;
    Ok(qdiscs)
}

fn load(options: &FastPathOptions, pins: &PinDirectory) -> Result<Ebpf, FastPathError> {
    let mut loader = EbpfLoader::new();
    // The programs have no relocations against the kernel's types.
    loader.btf(None);
    for name in map_names::ALL {
        let path = pins.map(name);
        let capacity = match name {
            map_names::PEERS | map_names::VTEPS | map_names::PEER_STATS | map_names::PATHS => {
                Some(options.max_peers)
            }
            map_names::ENDPOINTS | map_names::MACS | map_names::STRICT_PORTS => Some(MAX_ENDPOINTS),
            _ => None,
        };
        if let Some(capacity) = capacity {
            maps::drop_if_resized(&path, name, capacity)?;
            loader.map_max_entries(name, capacity);
        }
        loader.map_pin_path(name, path);
    }
    let level = if options.log_programs {
        log::Level::Debug as u8
    } else {
        0
    };
    loader.override_global(aya_log::LEVEL, &level, true);
    loader.load(OBJECT).map_err(|source| FastPathError::Load {
        hint: error::hint(errno(&source)),
        source: Box::new(source),
    })
}

/// The kernel's age instead of what it refused, where that is why it did.
fn because_of_age(error: FastPathError) -> FastPathError {
    match std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => error.or_kernel_too_old(release.trim()),
        Err(_) => error,
    }
}

fn load_program(ebpf: &mut Ebpf, role: Role) -> Result<(), FastPathError> {
    let program = role.program();
    let failed = |source: aya::programs::ProgramError| FastPathError::program(program, &source);
    let loaded = ebpf.program_mut(program).ok_or(FastPathError::Missing {
        what: "program",
        name: program,
    })?;
    <&mut SchedClassifier>::try_from(loaded)
        .and_then(SchedClassifier::load)
        .map_err(failed)
}

/// The error number at the bottom of an error, if there is one.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.raw_os_error();
        }
        current = error.source();
    }
    None
}
