//! Queueing disciplines and filters of interfaces (tc(8)), by their bytes: what of their options matters here no crate reads.
//!
//! linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/*.h. Numbers are in the byte order of the host but where `__be` says
//! otherwise.

use std::io;

use mesh_layout::program_names;

use super::question::{Kernel, attribute, attributes, body, dump_message, text, u32_at};
use crate::judge::tc::{Filter, Impairment, Key, Side, Take, TrafficControl};

const RTM_GETQDISC: u16 = 38;
const RTM_GETTFILTER: u16 = 46;
/// Length of `tcmsg`.
const TCMSG: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TC_H_ROOT: u32 = 0xffff_ffff;
const TC_H_CLSACT: u32 = 0xffff_fff1;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)` and its other side; of an `ingress` discipline the first is all there is.
const ARRIVING: u32 = 0xffff_fff2;
const LEAVING: u32 = 0xffff_fff3;

/// A queueing discipline.
struct Discipline {
    link: u32,
    handle: u32,
    parent: u32,
    kind: String,
    options: Vec<u8>,
}

/// What stands at some interfaces.
pub(crate) fn read(kernel: &mut Kernel, links: &[u32]) -> io::Result<TrafficControl> {
    let mut disciplines = Vec::new();
    kernel.ask(dump_message(RTM_GETQDISC, &[0; TCMSG]), |message| {
        disciplines.extend(discipline(body(message)));
    })?;
    let mut seen = TrafficControl::default();
    for discipline in disciplines {
        let Discipline {
            link, kind, parent, ..
        } = &discipline;
        if !links.contains(link) {
            continue;
        }
        seen.impairments.extend(impairment(&discipline));
        let parents: &[(u32, Side)] = match (*parent, kind.as_str()) {
            (TC_H_CLSACT, "clsact") => &[(ARRIVING, Side::Arriving), (LEAVING, Side::Leaving)],
            (TC_H_CLSACT, _) => &[(ARRIVING, Side::Arriving)],
            (TC_H_ROOT, _) if discipline.handle != 0 => &[(discipline.handle, Side::Leaving)],
            _ => &[],
        };
        for &(parent, side) in parents {
            filters(kernel, *link, parent, side, &mut seen)?;
        }
    }
    Ok(seen)
}

fn discipline(message: &[u8]) -> Option<Discipline> {
    let rest = message.get(TCMSG..)?;
    Some(Discipline {
        link: u32_at(message, 4)?,
        handle: u32_at(message, 8)?,
        parent: u32_at(message, 12)?,
        kind: text(attribute(rest, TCA_KIND)?),
        options: attribute(rest, TCA_OPTIONS).unwrap_or_default().to_vec(),
    })
}

/// What a discipline does to packets, if that is no service to anybody.
fn impairment(discipline: &Discipline) -> Option<Impairment> {
    let of = |what: String, all| {
        Some(Impairment {
            link: discipline.link,
            what,
            all,
        })
    };
    match discipline.kind.as_str() {
        "blackhole" => of("drops all that it is to send".to_owned(), true),
        "netem" => {
            /// Length of `tc_netem_qopt`.
            const QOPT: usize = 24;
            const TCA_NETEM_CORRUPT: u16 = 4;
            const TCA_NETEM_LOSS: u16 = 5;
            let options = &discipline.options;
            let rest = options.get(QOPT..).unwrap_or_default();
            let loss = u32_at(options, 8).unwrap_or(0);
            let corrupt = attribute(rest, TCA_NETEM_CORRUPT).and_then(|it| u32_at(it, 0));
            let mut words = Vec::new();
            if loss > 0 {
                words.push(format!("loses {} of what it sends", percent(loss)));
            }
            if attribute(rest, TCA_NETEM_LOSS).is_some_and(|it| !it.is_empty()) {
                words.push("loses by a model of loss".to_owned());
            }
            if let Some(corrupt) = corrupt.filter(|it| *it > 0) {
                words.push(format!("spoils {}", percent(corrupt)));
            }
            (!words.is_empty())
                .then(|| of(words.join(" and "), loss == u32::MAX))
                .flatten()
        }
        _ => None,
    }
}

/// A probability as the kernel has it: a share of 2^32 - 1.
fn percent(share: u32) -> String {
    let percent = f64::from(share) * 100.0 / f64::from(u32::MAX);
    format!("{} %", (percent * 100.0).round() / 100.0)
}

/// Adds the filters below a parent.
fn filters(
    kernel: &mut Kernel,
    link: u32,
    parent: u32,
    side: Side,
    seen: &mut TrafficControl,
) -> io::Result<()> {
    let mut question = [0; TCMSG];
    question[4..8].copy_from_slice(&link.to_ne_bytes());
    question[12..16].copy_from_slice(&parent.to_ne_bytes());
    let asked = kernel.ask(dump_message(RTM_GETTFILTER, &question), |message| {
        let message = body(message);
        if is_others(message) {
            seen.others += 1;
            seen.filters.extend(filter(message, link, side));
        }
    });
    match asked {
        // A discipline without classes has none; an interface may be gone by now.
        Err(error)
            if [libc::EINVAL, libc::ENOENT, libc::ENODEV, libc::EOPNOTSUPP]
                .map(Some)
                .contains(&error.raw_os_error()) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn is_others(message: &[u8]) -> bool {
    const TCA_BPF_NAME: u16 = 7;
    let rest = message.get(TCMSG..).unwrap_or_default();
    let options = attribute(rest, TCA_OPTIONS).unwrap_or_default();
    // One without a handle only says that some follow.
    if u32_at(message, 8).unwrap_or(0) == 0 {
        return false;
    }
    let kind = attribute(rest, TCA_KIND).map(text).unwrap_or_default();
    let name = attribute(options, TCA_BPF_NAME)
        .map(text)
        .unwrap_or_default();
    kind != "bpf" || !program_names::ALL.contains(&name.as_str())
}

/// A filter that ends a packet's way.
fn filter(message: &[u8], link: u32, side: Side) -> Option<Filter> {
    let rest = message.get(TCMSG..)?;
    let options = attribute(rest, TCA_OPTIONS)?;
    let kind = attribute(rest, TCA_KIND).map(text)?;
    let (actions, keys, opaque) = match kind.as_str() {
        "matchall" => (2, Vec::new(), false),
        "u32" => u32_keys(options)?,
        "flower" => flower_keys(options),
        // Programs, marks, control groups, classes.
        _ => return None,
    };
    let take = attributes(attribute(options, actions)?).find_map(|(_, action)| take(action))?;
    Some(Filter {
        link,
        side,
        // The lower half of `tcm_info`, `__be16`.
        protocol: u16::from_be(u32_at(message, 16)? as u16),
        keys,
        opaque,
        take,
    })
}

/// What an action does, if that ends a packet's way.
fn take(action: &[u8]) -> Option<Take> {
    const TCA_ACT_KIND: u16 = 1;
    const TCA_ACT_OPTIONS: u16 = 2;
    /// `TCA_GACT_PARMS` and `TCA_MIRRED_PARMS`.
    const PARAMETERS: u16 = 2;
    const TC_ACT_SHOT: u32 = 2;
    const TC_ACT_STOLEN: u32 = 4;
    const TCA_EGRESS_REDIR: u32 = 1;
    const TCA_INGRESS_REDIR: u32 = 3;
    let kind = attribute(action, TCA_ACT_KIND).map(text)?;
    let parameters = attribute(attribute(action, TCA_ACT_OPTIONS)?, PARAMETERS)?;
    match kind.as_str() {
        "gact" if [TC_ACT_SHOT, TC_ACT_STOLEN].contains(&u32_at(parameters, 8)?) => {
            Some(Take::Drops)
        }
        // Behind `tc_gen`: what it does, and where to.
        "mirred" if [TCA_EGRESS_REDIR, TCA_INGRESS_REDIR].contains(&u32_at(parameters, 20)?) => {
            Some(Take::LeadsTo(u32_at(parameters, 24)?))
        }
        _ => None,
    }
}

/// `tc_u32_sel` and its keys; one that leads on to others instead is none.
fn u32_keys(options: &[u8]) -> Option<(u16, Vec<Key>, bool)> {
    const TCA_U32_SEL: u16 = 5;
    const TCA_U32_ACT: u16 = 7;
    const TCA_U32_MARK: u16 = 10;
    /// Of the selector before its keys, and of each key.
    const LENGTH: usize = 16;
    let selector = attribute(options, TCA_U32_SEL)?;
    let mut opaque = attribute(options, TCA_U32_MARK).is_some();
    let mut keys = Vec::new();
    for key in selector.get(LENGTH..)?.chunks_exact(LENGTH) {
        let offset = u32_at(key, 8)?.cast_signed();
        let behind = u32_at(key, 12)?;
        match usize::try_from(offset) {
            Ok(offset) if behind == 0 => keys.push(Key {
                offset,
                mask: key.get(0..4)?.try_into().ok()?,
                value: key.get(4..8)?.try_into().ok()?,
            }),
            // Before the IP header, or counted from the next one.
            _ => opaque = true,
        }
    }
    Some((TCA_U32_ACT, keys, opaque))
}

/// What of flower's keys stands in an IPv4 packet.
fn flower_keys(options: &[u8]) -> (u16, Vec<Key>, bool) {
    const ACTIONS: u16 = 3;
    /// `TCA_FLOWER_KEY_*`: which, where in the packet, how long, and its mask's attribute.
    const KNOWN: [(u16, usize, usize, u16); 4] = [
        (9, 9, 1, 0),
        (10, 12, 4, 11),
        (12, 16, 4, 13),
        (21, 22, 2, 38),
    ];
    /// Actions, the type that the filter's protocol says as well, masks, flags, and whether a card does it (linux/pkt_cls.h).
    const OTHERS: [u16; 7] = [ACTIONS, 8, 11, 13, 22, 38, 86];
    let mut keys = Vec::new();
    let mut opaque = false;
    for (kind, value) in attributes(options) {
        let Some(&(_, offset, length, mask)) = KNOWN.iter().find(|it| it.0 == kind) else {
            opaque |= !OTHERS.contains(&kind);
            continue;
        };
        let mask = attribute(options, mask).filter(|_| mask != 0);
        let padded = |bytes: &[u8]| {
            let mut padded = [0; 4];
            padded
                .iter_mut()
                .zip(bytes.iter().take(length))
                .for_each(|(to, from)| *to = *from);
            padded
        };
        keys.push(Key {
            offset,
            mask: mask.map_or_else(|| padded(&[0xff; 4]), padded),
            value: padded(value),
        });
    }
    (ACTIONS, keys, opaque)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute, filled up to four bytes.
    fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn dropping() -> Vec<u8> {
        let parameters: Vec<u8> = [1_u32, 0, 2, 1, 1].map(u32::to_ne_bytes).concat();
        let options = attribute_of(2, &attribute_of(2, &parameters));
        attribute_of(1, &[attribute_of(1, b"gact\0"), options].concat())
    }

    fn message(kind: &[u8], options: &[u8]) -> Vec<u8> {
        let mut message = vec![0; TCMSG];
        message[8] = 1;
        message[16..18].copy_from_slice(&0x0800_u16.to_be_bytes());
        message.extend(attribute_of(TCA_KIND, kind));
        message.extend(attribute_of(TCA_OPTIONS, options));
        message
    }

    #[test]
    fn a_filter_for_everything_that_drops_is_read() {
        let message = message(b"matchall\0", &attribute_of(2, &dropping()));
        assert!(is_others(&message));
        let filter = filter(&message, 7, Side::Arriving).unwrap();
        assert_eq!((filter.take, filter.protocol), (Take::Drops, 0x0800));
        assert!(filter.keys.is_empty() && !filter.opaque);
    }

    #[test]
    fn of_flower_is_read_what_stands_in_an_ipv4_packet_and_the_rest_is_opaque() {
        let options = |more: Vec<u8>| {
            [
                attribute_of(8, &0x0800_u16.to_be_bytes()),
                attribute_of(9, &[17]),
                attribute_of(21, &4789_u16.to_be_bytes()),
                attribute_of(38, &[0xff, 0xff]),
                attribute_of(3, &dropping()),
                more,
            ]
            .concat()
        };
        let read = |options: &[u8]| filter(&message(b"flower\0", options), 7, Side::Leaving);
        let filter = read(&options(Vec::new())).unwrap();
        let udp = Key {
            offset: 9,
            mask: [0xff, 0, 0, 0],
            value: [17, 0, 0, 0],
        };
        let port = Key {
            offset: 22,
            mask: [0xff, 0xff, 0, 0],
            value: [0x12, 0xb5, 0, 0],
        };
        assert_eq!((filter.keys, filter.opaque), (vec![udp, port], false));
        // A VLAN's number.
        let tagged = read(&options(attribute_of(23, &[1, 0])));
        assert!(tagged.unwrap().opaque);
    }

    #[test]
    fn netem_is_an_impairment_where_it_loses_or_spoils_and_not_where_it_delays() {
        let netem = |loss: u32, more: Vec<u8>| {
            let options = [0, 1000, loss, 0, 0, 0].map(u32::to_ne_bytes).concat();
            impairment(&Discipline {
                link: 7,
                handle: 1,
                parent: TC_H_ROOT,
                kind: "netem".to_owned(),
                options: [options, more].concat(),
            })
        };
        assert_eq!(netem(0, Vec::new()), None);
        let lossy = netem(u32::MAX / 10, Vec::new()).unwrap();
        assert_eq!(lossy.what, "loses 10 % of what it sends");
        let corrupt = [u32::MAX / 100, 0].map(u32::to_ne_bytes).concat();
        let spoils = netem(0, attribute_of(4, &corrupt)).unwrap();
        assert_eq!((spoils.what.as_str(), spoils.all), ("spoils 1 %", false));
        assert!(netem(u32::MAX, Vec::new()).unwrap().all);
    }

    #[test]
    fn what_stands_at_loopback_can_be_read() {
        let seen = read(&mut Kernel::of_routes().unwrap(), &[1]).unwrap();
        assert_eq!(seen.impairments, []);
    }
}
