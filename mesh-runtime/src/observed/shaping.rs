//! Ports whose packets somebody shapes or polices (tc(8)), as the CNI plugin `bandwidth` does: the fast path leads
//! past both. And at which of them somebody stands where their packets arrive.

use std::collections::BTreeSet;

use mesh_layout::program_names;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::Observed;
use crate::netlink::{Netlink, NetlinkError, dump};

/// Queueing disciplines that hold packets back for nobody: what interfaces have without being asked, and what
/// `net.core.default_qdisc` may give them.
const PLAIN: [&str; 8] = [
    "noqueue",
    "noop",
    "pfifo",
    "bfifo",
    "pfifo_fast",
    "fq",
    "fq_codel",
    "mq",
];

/// `TC_H_CLSACT` and `TC_H_INGRESS` (linux/pkt_sched.h).
const AT_ARRIVAL: TcHandle = TcHandle::CLSACT;

/// What stands at interfaces of this host, of the kinds that tc(8) makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shaping {
    /// Ports whose packets somebody shapes or polices.
    pub(crate) shaped: BTreeSet<u32>,
    /// Ports with a `clsact` or an `ingress` queueing discipline, whoever made it: an interface takes one of them, and
    /// the kernel refuses the next one (EEXIST).
    pub(crate) occupied: BTreeSet<u32>,
    /// Ports at which a filter of somebody else's looks at what arrives. It may come before ours, and end its way.
    pub(crate) filtered: BTreeSet<u32>,
}

impl Shaping {
    fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        for ports in [&mut self.shaped, &mut self.occupied, &mut self.filtered] {
            ports.retain(|&port| keep(port));
        }
    }
}

/// Whether an interface may be a container's port: of others nobody needs to know.
fn may_be_port(observed: &Observed, index: u32) -> bool {
    let link = observed.links.get(&index);
    link.is_some_and(|link| link.master.is_some() && link.far_end.is_some())
}

/// Whether an interface is a port of anything.
fn is_port(observed: &Observed, index: u32) -> bool {
    let link = observed.links.get(&index);
    link.is_some_and(|link| link.master.is_some())
}

/// Reads again how it stands with the ports `only`, or with all.
pub(super) async fn read(
    netlink: &Netlink,
    observed: &Observed,
    only: Option<&BTreeSet<u32>>,
) -> Result<Shaping, NetlinkError> {
    let asked = |index: &u32| only.is_none_or(|only| only.contains(index));
    let mut shaping = observed.shaping.clone();
    shaping.retain(|index| !asked(&index) && is_port(observed, index));
    let request = netlink.handle.qdisc().get();
    let disciplines = dump(request.execute(), |message| {
        let index = u32::try_from(message.header.index).ok()?;
        Some((index, message.header.parent, kind(message)?.to_owned()))
    })
    .await?;
    for (index, parent, kind) in disciplines {
        if !asked(&index) || !is_port(observed, index) {
            continue;
        }
        let shapes = match parent {
            TcHandle::ROOT => !PLAIN.contains(&kind.as_str()),
            AT_ARRIVAL => {
                // Also before its other end is a container's, and at ports that have none, as of virtual machines.
                shaping.occupied.insert(index);
                let [arriving, leaving] = others_filters(netlink, index).await?;
                if arriving {
                    shaping.filtered.insert(index);
                }
                arriving || leaving
            }
            // A class's, below a root that counts.
            _ => false,
        };
        if shapes && may_be_port(observed, index) {
            shaping.shaped.insert(index);
        }
    }
    Ok(shaping)
}

/// Whether there is a filter that is not one of our programs, on either side of an interface: for what arrives, and
/// for what leaves.
async fn others_filters(netlink: &Netlink, index: u32) -> Result<[bool; 2], NetlinkError> {
    let mut found = [false; 2];
    let Ok(index) = i32::try_from(index) else {
        return Ok(found);
    };
    let mut filters = netlink.handle.traffic_filter(index);
    let requests = [filters.get().ingress(), filters.get().egress()];
    for (found, request) in found.iter_mut().zip(requests) {
        match dump(request.execute(), |message| {
            is_others(message).then_some(())
        })
        .await
        {
            Ok(list) => *found = !list.is_empty(),
            // EINVAL, ENOENT, ENODEV: no such side, no such interface.
            Err(NetlinkError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn kind(message: &TcMessage) -> Option<&str> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            TcAttribute::Kind(kind) => Some(kind.as_str()),
            _ => None,
        })
}

/// Whether a filter is there that is none of our programs. One without a handle only says that some follow.
fn is_others(message: &TcMessage) -> bool {
    if message.header.handle == TcHandle::UNSPEC {
        return false;
    }
    let options = message
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        });
    !options.flatten().any(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => {
            program_names::ALL.contains(&name.as_str())
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(handle: u16, options: Vec<TcOption>) -> TcMessage {
        let mut message = TcMessage::default();
        message.header.handle = TcHandle {
            major: 0,
            minor: handle,
        };
        message.attributes = vec![
            TcAttribute::Kind("bpf".to_owned()),
            TcAttribute::Options(options),
        ];
        message
    }

    #[test]
    fn our_programs_are_nobodys_shaping_and_any_other_filter_is() {
        let named = |name: &str| vec![TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned()))];
        assert!(!is_others(&filter(1, named(program_names::ENCAPSULATE))));
        assert!(is_others(&filter(1, named("police"))));
        assert!(is_others(&filter(1, Vec::new())));
        assert!(
            !is_others(&filter(0, Vec::new())),
            "only says that some follow"
        );
    }
}
