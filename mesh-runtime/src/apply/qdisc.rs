//! The clsact qdiscs that carry our filters on kernels without tcx.

use netlink_packet_route::tc::{TcAttribute, TcHandle};

use crate::netlink::{Netlink, NetlinkError, answer, dump};

/// `TC_H_CLSACT` (linux/pkt_sched.h), the parent of a clsact qdisc.
const CLSACT: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0xfff1,
};

/// Removes the clsact qdisc of an interface unless it carries a filter. Returns whether there
/// was one to remove.
pub(crate) async fn remove_unused(netlink: &Netlink, link: u32) -> Result<bool, NetlinkError> {
    let Ok(index) = i32::try_from(link) else {
        return Ok(false);
    };
    let mut filters = netlink.handle.traffic_filter(index);
    for request in [filters.get().ingress(), filters.get().egress()] {
        let used = match dump(request.execute(), |_| Some(())).await {
            Ok(list) => !list.is_empty(),
            // EINVAL, ENODEV: no such qdisc, no such interface.
            Err(NetlinkError::Refused { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        if used {
            return Ok(false);
        }
    }
    let mut request = netlink.handle.qdisc().del(index);
    let message = request.message_mut();
    // Another one may have come to its place since: the kernel refuses to take that for this (EINVAL).
    message
        .attributes
        .push(TcAttribute::Kind("clsact".to_owned()));
    let header = &mut message.header;
    header.parent = CLSACT;
    header.handle = TcHandle {
        major: 0xffff,
        minor: 0,
    };
    match answer(request.execute()).await {
        Ok(()) => Ok(true),
        Err(NetlinkError::Refused {
            errno: libc::ENOENT | libc::ENODEV | libc::EINVAL,
        }) => Ok(false),
        Err(error) => Err(error),
    }
}
