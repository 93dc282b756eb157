//! What maps and hooks hold right now, read by their pins: for looking, beside whoever writes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::AsFd as _,
    path::Path,
};

use aya::{
    Pod,
    maps::{Array, Map, MapData, MapError},
    programs::{SchedClassifier, TcAttachType},
};
use mesh_layout::{
    Config, Endpoint, EndpointKey, MacHolder, MacKey, Peer, PeerKey, PortKey, StrictPort, Underlay,
    UnderlayKey, Vtep, VtepKey, map_names,
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{FastPathError, bpf, bpffs};
use crate::netlink::{
    message::{HEADER_LEN, NLM_F_DUMP, NLM_F_REQUEST, attribute, message, text},
    reader::Reader,
};

/// The maps that programs go by.
#[derive(Clone, Debug)]
pub(crate) struct LiveMaps {
    pub(crate) config: Config,
    pub(crate) peers: BTreeMap<PeerKey, Peer>,
    pub(crate) vteps: BTreeMap<VtepKey, Vtep>,
    pub(crate) underlays: BTreeMap<UnderlayKey, Underlay>,
    pub(crate) endpoints: BTreeMap<EndpointKey, Endpoint>,
    pub(crate) macs: BTreeMap<MacKey, MacHolder>,
    pub(crate) strict_ports: BTreeMap<PortKey, StrictPort>,
}

impl LiveMaps {
    /// Reads them; `None` where there are none.
    ///
    /// # Errors
    ///
    /// A map that cannot be read.
    pub(crate) fn read(bpffs: &Path) -> Result<Option<Self>, FastPathError> {
        if !bpffs::current_pin(bpffs, map_names::CONFIG).exists() {
            return Ok(None);
        }
        let config = Array::<_, Config>::try_from(Map::Array(open(bpffs, map_names::CONFIG)?));
        let config = config.and_then(|config| config.get(&0, 0));
        Ok(Some(Self {
            config: config.map_err(|source| FastPathError::Map {
                map: map_names::CONFIG,
                source,
            })?,
            peers: entries(bpffs, map_names::PEERS)?,
            vteps: entries(bpffs, map_names::VTEPS)?,
            underlays: entries(bpffs, map_names::UNDERLAYS)?,
            endpoints: entries(bpffs, map_names::ENDPOINTS)?,
            macs: entries(bpffs, map_names::MACS)?,
            strict_ports: entries(bpffs, map_names::STRICT_PORTS)?,
        }))
    }
}

fn open(bpffs: &Path, map: &'static str) -> Result<MapData, FastPathError> {
    let opened = MapData::from_pin(bpffs::current_pin(bpffs, map));
    opened.map_err(|source| FastPathError::Map { map, source })
}

fn entries<K: Pod + Ord, V: Pod>(
    bpffs: &Path,
    map: &'static str,
) -> Result<BTreeMap<K, V>, FastPathError> {
    let data = open(bpffs, map)?;
    bpf::read_hash(data.fd().as_fd()).map_err(|source| FastPathError::Map {
        map,
        source: MapError::IoError(source),
    })
}

/// Programs on the hooks of an interface, ours and others', by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hooked {
    pub(crate) ingress: BTreeSet<String>,
    pub(crate) egress: BTreeSet<String>,
}

/// Reads them: links of tcx, and filters of tc(8), of whatever kind.
///
/// # Errors
///
/// A kernel that does not answer. One without tcx has no links.
pub(crate) fn hooked(index: u32, name: &str) -> io::Result<Hooked> {
    let mut hooked = Hooked {
        ingress: linked(name, TcAttachType::Ingress),
        egress: linked(name, TcAttachType::Egress),
    };
    let reader = Reader::of(NETLINK_ROUTE)?;
    filters(&reader, index, INGRESS, &mut hooked.ingress)?;
    filters(&reader, index, EGRESS, &mut hooked.egress)?;
    Ok(hooked)
}

fn linked(interface: &str, hook: TcAttachType) -> BTreeSet<String> {
    // EINVAL before 6.6, and of an interface that went.
    let programs = SchedClassifier::query_tcx(interface, hook);
    let programs = programs.map_or_else(|_| Vec::new(), |(_, programs)| programs);
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    programs
        .iter()
        .map(|program| name(program.name()))
        .collect()
}

const RTM_GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
/// `TC_H_CLSACT` with `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS` (linux/pkt_sched.h).
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// `struct tcmsg`.
const TCMSG: usize = 20;

/// Adds the names of the filters there, of those that are no programs their kinds.
fn filters(
    reader: &Reader,
    index: u32,
    parent: u32,
    names: &mut BTreeSet<String>,
) -> io::Result<()> {
    let mut header = vec![0; TCMSG];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[12..16].copy_from_slice(&parent.to_ne_bytes());
    let question = message(RTM_GETTFILTER, NLM_F_REQUEST | NLM_F_DUMP, &header, &[]);
    let asked = reader.ask(&question, |answer| {
        let attributes = answer.get(HEADER_LEN + TCMSG..)?;
        let kind = text(attribute(attributes, TCA_KIND)?);
        let options = attribute(attributes, TCA_OPTIONS);
        // The kernel tells of a filter's chain as well, without its options.
        if let Some(options) = options {
            let program = attribute(options, TCA_BPF_NAME).map_or(kind, text);
            names.insert(String::from_utf8_lossy(program).into_owned());
        }
        Some(())
    });
    match asked {
        // No such queueing discipline, or none at all.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(()),
        other => other.map(drop),
    }
}
