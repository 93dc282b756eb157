//! Whom to believe at the start: the file or the kernel. Pure.

use std::sync::Arc;

use crate::wanted::Wanted;

/// What the state directory says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The file, if there is one that can be used.
    pub(crate) kept: Option<Wanted>,
    /// Whether the kernel was changed after the file was written.
    pub(crate) behind: bool,
    /// The newest generation that was applied, also without a change of the peers.
    pub(crate) generation: u64,
}

/// Whose word was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Nobody,
    Kernel,
    File,
}

/// The wanted state to start from.
///
/// The file says what was wanted, and the kernel what became of it and what others have done
/// to it since: so the file is believed, unless the kernel is ahead of it. That is so when
/// the mark says it, and when the kernel shows a subnet or a generation that the file does not
/// know, because a runtime without this state directory was here. Then the kernel is believed
/// in what it can show, and the file in the rest. A kernel without our bridge, as after a
/// reboot, says nothing.
pub(crate) fn choose(
    kernel: Wanted,
    kernel_generation: Option<u64>,
    found: Found,
) -> (Wanted, Source) {
    let Some(kept) = found.kept else {
        let source = match kernel.subnet {
            Some(_) => Source::Kernel,
            None => Source::Nobody,
        };
        return (kernel, source);
    };
    let file_generation = kept.generation.max(found.generation);
    let kernel_ahead = kernel.subnet.is_some()
        && (found.behind
            || kernel.subnet != kept.subnet
            || kernel_generation.is_some_and(|generation| generation > file_generation));
    let generation = file_generation.max(kernel_generation.unwrap_or_default());
    if !kernel_ahead {
        let source = match kept.subnet {
            Some(_) => Source::File,
            None => Source::Nobody,
        };
        return (Wanted { generation, ..kept }, source);
    }
    let mut wanted = Wanted {
        generation,
        own_bridge: kernel.own_bridge.or(kept.own_bridge),
        endpoints: kept.endpoints,
        ..kernel
    };
    for (subnet, peer) in Arc::make_mut(&mut wanted.peers) {
        if let Some(known) = kept.peers.get(subnet)
            && known.address == peer.address
        {
            peer.clone_from(known);
        }
    }
    (wanted, Source::Kernel)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::Ipv4Addr};

    use ipnet::Ipv4Net;

    use super::*;
    use crate::wanted::peer::Peer;

    fn net(third: u8) -> Ipv4Net {
        Ipv4Net::new_assert(Ipv4Addr::new(10, 42, third, 0), 24)
    }

    fn wanted(own: u8, peers: &[(u8, &str)]) -> Wanted {
        Wanted {
            subnet: Some(net(own)),
            peers: peers
                .iter()
                .map(|&(third, hostname)| {
                    let peer = Peer {
                        address: Ipv4Addr::new(192, 0, 2, third),
                        hostname: hostname.to_owned(),
                        suspect: false,
                    };
                    (net(third), peer)
                })
                .collect::<BTreeMap<_, _>>()
                .into(),
            ..Wanted::default()
        }
    }

    fn found(kept: Wanted) -> Found {
        Found {
            kept: Some(kept),
            ..Found::default()
        }
    }

    #[test]
    fn after_a_reboot_the_file_is_believed_even_if_it_lagged() {
        let kept = wanted(1, &[(2, "b")]);
        let found = Found {
            behind: true,
            ..found(kept.clone())
        };
        let chosen = choose(Wanted::default(), None, found);
        assert_eq!(chosen, (kept, Source::File));
    }

    #[test]
    fn what_others_did_to_the_kernel_while_nobody_looked_is_not_believed() {
        let kept = wanted(1, &[(2, "b"), (3, "c")]);
        let (chosen, source) = choose(wanted(1, &[(2, ""), (9, "")]), Some(0), found(kept.clone()));
        assert_eq!((chosen, source), (kept, Source::File));
    }

    #[test]
    fn a_kernel_that_is_ahead_is_believed_and_the_file_tells_the_names() {
        let kept = Wanted {
            generation: 5,
            own_bridge: Some(3),
            ..wanted(1, &[(2, "b"), (3, "c")])
        };
        let kernel = wanted(1, &[(2, ""), (4, "")]);
        let expected = Wanted {
            generation: 7,
            own_bridge: Some(3),
            ..wanted(1, &[(2, "b"), (4, "")])
        };
        let marked = Found {
            behind: true,
            generation: 7,
            ..found(kept.clone())
        };
        let chosen = choose(kernel.clone(), None, marked);
        assert_eq!(chosen, (expected.clone(), Source::Kernel));
        let chosen = choose(kernel, Some(7), found(kept));
        assert_eq!(chosen, (expected, Source::Kernel));
    }

    #[test]
    fn a_kernel_with_another_subnet_is_believed() {
        let (chosen, source) = choose(wanted(5, &[]), None, found(wanted(1, &[(2, "b")])));
        assert_eq!((chosen, source), (wanted(5, &[]), Source::Kernel));
    }

    #[test]
    fn a_generation_that_came_without_news_is_not_forgotten() {
        let kept = Wanted {
            generation: 5,
            ..wanted(1, &[(2, "b")])
        };
        let found = Found {
            generation: 9,
            ..found(kept.clone())
        };
        // The maps show the generation of a sync that changed nothing.
        let (chosen, source) = choose(wanted(1, &[(2, "")]), Some(9), found);
        assert_eq!(source, Source::File);
        assert_eq!(
            chosen,
            Wanted {
                generation: 9,
                ..kept
            }
        );
    }

    #[test]
    fn without_a_file_the_kernel_is_all_there_is() {
        let kernel = wanted(1, &[(2, "")]);
        let chosen = choose(kernel.clone(), None, Found::default());
        assert_eq!(chosen, (kernel, Source::Kernel));
        let chosen = choose(Wanted::default(), None, Found::default());
        assert_eq!(chosen, (Wanted::default(), Source::Nobody));
    }
}
