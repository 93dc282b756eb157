//! What Docker has forgotten: where its daemon ends a container while this driver is not there, it says so to nobody afterwards.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use mesh_client::{ClientError, mesh::AddressLease};

use crate::{
    calls::Plugin,
    record::{Held, RESERVED},
};

/// What nobody uses at so many looks in a row is given back. Docker says of a container's end within a second.
const LOOKS: usize = 2;

/// Addresses that were unused at the last looks, the latest last.
type Unused = Vec<BTreeSet<Ipv4Addr>>;

/// Which of what Docker has nobody uses, by what the runtime says of its leases. Pure.
///
/// A container that was stopped has no address, so that one whose interface is gone has ended. Addresses that were set aside wait
/// for nobody.
fn unused(held: &[(Ipv4Addr, Held)], leases: &[AddressLease]) -> BTreeSet<Ipv4Addr> {
    let leaked: BTreeSet<&str> = leases
        .iter()
        .filter(|lease| !lease.leaked.is_empty())
        .map(|lease| &*lease.address)
        .collect();
    held.iter()
        .filter(|(address, held)| {
            !held.is_unfinished()
                && !held.holder.starts_with(RESERVED)
                && leaked.contains(&*address.to_string())
        })
        .map(|(address, _)| *address)
        .collect()
}

impl Plugin {
    /// Gives back what nobody uses, again and again, until it is dropped.
    pub(crate) async fn keep_looking(&self, interval: Duration) {
        let mut last = Unused::new();
        loop {
            tokio::time::sleep(interval).await;
            if self.records.held.find(|_| true).is_none() {
                last.clear();
                continue;
            }
            match self.runtime.addresses(true).await {
                Ok(listed) => self.look(&listed.leases, &mut last).await,
                // Nobody can tell.
                Err(_) => last.clear(),
            }
        }
    }

    async fn look(&self, leases: &[AddressLease], last: &mut Unused) {
        let held = self.records.held.all(|_| true);
        last.push(unused(&held, leases));
        if last.len() < LOOKS {
            return;
        }
        let mut always = last.remove(0);
        for look in &*last {
            always.retain(|address| look.contains(address));
        }
        for (address, held) in held {
            if !always.contains(&address) {
                continue;
            }
            let _turn = self.records.turns.take(&held.holder).await;
            // It may be another's by now, or of the next life of the same one.
            if self.records.held.get(&address).as_ref() != Some(&held) {
                continue;
            }
            // Docker may have taken its interface meanwhile.
            match self.is_unused(address, &held).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    tracing::debug!(name: "docker-address-use-unknown", %address, %error, "nobody can tell whether it is used");
                    continue;
                }
            }
            tracing::warn!(name: "docker-address-unused", %address, holder = held.holder, "nobody uses it, and Docker has not given it back: giving it back");
            let forgotten = Held {
                endpoint: None,
                released: true,
                ..held
            };
            self.undo(address, forgotten).await;
        }
    }

    /// Has the runtime take the interface off unless it is in use, and says whether it is gone.
    async fn is_unused(&self, address: Ipv4Addr, held: &Held) -> Result<bool, ClientError> {
        if let Some(owner) = held.owner() {
            self.runtime.detach_if_leaked(&owner).await?;
        }
        let lease = self.runtime.lease_of(address).await?;
        Ok(lease.is_none_or(|it| it.endpoint.is_none()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Endpoint;

    #[test]
    fn what_the_runtime_calls_unused_is_unless_it_was_set_aside_or_is_being_undone() {
        let address = |last: u8| Ipv4Addr::new(10, 42, 1, last);
        let held = |holder: &str, released| Held {
            holder: holder.to_owned(),
            endpoint: Some(Endpoint {
                id: "e".to_owned(),
                network: "n".to_owned(),
                sandbox: None,
            }),
            attached: true,
            released,
        };
        let all = [
            (address(2), held("02420a2a0102", false)),
            (address(3), held("02420a2a0103", false)),
            (address(4), held("reserved-10.42.1.4", false)),
            (address(5), held("02420a2a0105", true)),
        ];
        let lease = |last, leaked: &str| AddressLease {
            address: address(last).to_string(),
            leaked: leaked.to_owned(),
            ..AddressLease::default()
        };
        let gone = "its interface is gone";
        let leases = [lease(2, gone), lease(3, ""), lease(4, gone), lease(5, gone)];
        assert_eq!(unused(&all, &leases), [address(2)].into());
    }
}
