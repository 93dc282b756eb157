//! One look at what this node's address is: the source towards the control plane.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{net::lookup_host, task::JoinHandle, time::timeout};

use super::interfaces::{InterfaceAddress, address_beside, interface_addresses};
use crate::underlay::{SourceAddressError, parse_underlay_address, source_address_towards};

/// How long a look waits for the control plane's name to resolve. What takes longer is waited for by the next look.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(1);

/// An address that only the default route leads to: it is in the block that RFC 1112 section 4 reserves.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(240, 0, 0, 1);

/// Why no address was found. It may be the next time.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotFound {
    /// The name has no address, or nobody says.
    #[error("{name} does not resolve: {reason}")]
    Unresolved {
        /// Host and port of the control plane.
        name: String,
        /// What the resolver said.
        reason: String,
    },
    /// There is no way to the control plane.
    #[error(transparent)]
    NoSource(#[from] SourceAddressError),
    /// The source cannot be a node's address.
    #[error("source address {address}: {reason}")]
    Unusable {
        /// The kernel's choice.
        address: Ipv4Addr,
        /// The rule it breaks.
        reason: String,
    },
    /// The control plane's address is one of this host's, and none is certain to be the node's.
    #[error(
        "the control plane's address {0} is one of this host's own, and which other one the node has cannot be told"
    )]
    Ambiguous(Ipv4Addr),
    /// The kernel does not list its addresses.
    #[error("cannot list this host's addresses: {0}")]
    NoList(#[from] io::Error),
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// The node's address.
    pub(super) address: Ipv4Addr,
    /// The address of the control plane that was chosen.
    pub(super) control_plane: SocketAddr,
    /// Whether that is one of this host's own.
    pub(super) is_here: bool,
}

/// Looks again and again. The address of the control plane that was chosen once stays chosen: a name with several
/// addresses, answered in any order, is always the same one.
#[derive(Debug)]
pub(super) struct Look {
    /// Host and port of the control plane.
    name: String,
    chosen: Option<SocketAddr>,
    /// Whether the name is to be resolved although an address is chosen.
    doubted: bool,
    /// The question to the resolver that is under way. It may take longer than a look waits, and never ends sooner.
    resolving: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

impl Look {
    /// For a control plane at `name`, host and port.
    #[must_use]
    pub(super) fn towards(name: String) -> Self {
        Self {
            name,
            chosen: None,
            doubted: false,
            resolving: None,
        }
    }

    /// The control plane may be elsewhere by now: the next look resolves its name.
    pub(super) fn doubt(&mut self) {
        self.doubted = true;
    }

    /// The node's address now; `before` is what it was so far. The name is resolved if none of its addresses is chosen,
    /// the chosen one has no usable source, or is doubted. No packet is sent but the resolver's.
    ///
    /// # Errors
    /// If there is no name, no way, or no address that is certain to be the node's.
    pub(super) async fn look(&mut self, before: Option<Ipv4Addr>) -> Result<Found, NotFound> {
        let standing = self.chosen.map(|chosen| found(chosen, before));
        if let Some(Ok(standing)) = &standing
            && !self.doubted
        {
            return Ok(*standing);
        }
        let mut remotes = match self.resolve().await {
            Ok(remotes) => remotes,
            // A name that cannot be resolved does not move what is known.
            Err(unresolved) => return standing.unwrap_or(Err(unresolved)),
        };
        self.doubted = false;
        if let Some(Ok(standing)) = standing
            && remotes.contains(&standing.control_plane)
        {
            return Ok(standing);
        }
        // In an order of their own, not in that of the answer.
        remotes.sort_by_key(|remote| (!remote.is_ipv4(), *remote));
        let mut first = None;
        for remote in remotes {
            let result = found(remote, before);
            let same = result
                .as_ref()
                .is_ok_and(|found| Some(found.address) == before);
            let better = matches!((&first, &result), (None | Some(Err(_)), Ok(_)));
            if first.is_none() || same || better {
                first = Some(result);
            }
            if same {
                break;
            }
        }
        let found =
            first.unwrap_or_else(|| Err(self.unresolved("it has no address".to_owned())))?;
        self.chosen = Some(found.control_plane);
        Ok(found)
    }

    async fn resolve(&mut self) -> Result<Vec<SocketAddr>, NotFound> {
        let name = &self.name;
        let question = self.resolving.get_or_insert_with(|| {
            let name = name.clone();
            tokio::spawn(async move { Ok(lookup_host(name).await?.collect()) })
        });
        let answer = timeout(RESOLVE_DEADLINE, question).await;
        let Ok(answer) = answer else {
            return Err(self.unresolved(format!("no answer within {RESOLVE_DEADLINE:?}")));
        };
        self.resolving = None;
        match answer {
            Ok(Ok(remotes)) => Ok(remotes),
            Ok(Err(error)) => Err(self.unresolved(error.to_string())),
            Err(error) => Err(self.unresolved(error.to_string())),
        }
    }

    fn unresolved(&self, reason: String) -> NotFound {
        NotFound::Unresolved {
            name: self.name.clone(),
            reason,
        }
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        if let Some(resolving) = &self.resolving {
            resolving.abort();
        }
    }
}

/// The node's address if the control plane is at `remote`.
fn found(remote: SocketAddr, before: Option<Ipv4Addr>) -> Result<Found, NotFound> {
    let source = source_address_towards(remote)?;
    let is_here = remote.ip() == IpAddr::V4(source);
    let address = match is_here {
        true => beside(source, &interface_addresses()?, before)?,
        false => source,
    };
    match parse_underlay_address(&address.to_string()) {
        Ok(address) => Ok(Found {
            address,
            control_plane: remote,
            is_here,
        }),
        Err(error) => Err(NotFound::Unusable {
            address,
            reason: error.to_string(),
        }),
    }
}

fn beside(
    control: Ipv4Addr,
    addresses: &[InterfaceAddress],
    before: Option<Ipv4Addr>,
) -> Result<Ipv4Addr, NotFound> {
    let outside = source_address_towards(SocketAddr::from((OUTSIDE, 9))).ok();
    address_beside(control, addresses, before, outside).ok_or(NotFound::Ambiguous(control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loopback_control_plane_makes_a_loopback_node() {
        let mut look = Look::towards("127.0.0.1:8080".to_owned());
        let found = look.look(None).await.unwrap();
        assert_eq!(found.address, Ipv4Addr::LOCALHOST);
        assert!(found.is_here);
    }

    #[tokio::test]
    async fn an_ipv6_control_plane_is_waited_for_with_the_reason() {
        let mut look = Look::towards("[2001:db8::1]:8080".to_owned());
        let error = look.look(None).await.unwrap_err().to_string();
        assert!(error.contains("the underlay is IPv4"), "{error}");
    }
}
