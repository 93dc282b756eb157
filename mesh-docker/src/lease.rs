//! Addresses of Docker's: leases of the runtime, which nobody but this driver gives back.

use std::net::Ipv4Addr;

use anyhow::{Context as _, bail};
use mesh_ipam::Owner;

use crate::{
    calls::Plugin,
    ipam_driver::{read_address, with_colons},
    network_driver::{ENDPOINT_LABEL, NETWORK_LABEL},
    record::{Asked, Endpoint, Held, RESERVED, owner},
    runtime::{is_absent, may_have_begun},
    unfinished,
};

impl Plugin {
    /// Leases an address to a container. Docker asks again if this process ended before it had answered.
    pub(crate) async fn lease(
        &self,
        holder: &str,
        wished: Option<Ipv4Addr>,
    ) -> anyhow::Result<Ipv4Addr> {
        self.finish_first().await?;
        let _turn = self.records.turns.take(holder).await;
        if let Some((address, held)) = self.records.of_holder(holder)
            && held.endpoint.is_some()
        {
            bail!(
                "the MAC address {} is that of the container of this node that has {address}: name another with --mac-address, or \
                 none",
                with_colons(holder)
            );
        }
        let owner = owner(holder).with_context(|| format!("{holder:?} is no holder of a lease"))?;
        // If this process ends, or has no answer, before Docker has one, the next one gives back what was leased.
        let under_way = Asked { abandoned: false };
        self.records.asked.put(holder.to_owned(), under_way)?;
        let leased = self.allocate(&owner, holder, wished).await;
        match &leased {
            Err(error) if error.downcast_ref().is_some_and(may_have_begun) => {
                let abandoned = Asked { abandoned: true };
                self.records
                    .asked
                    .put_if_possible(holder.to_owned(), abandoned, |_| true);
                self.news.notify_one();
            }
            _ => self.records.asked.remove(&holder.to_owned()),
        }
        leased
    }

    /// What Docker has given back is free for whoever comes now; a runtime that is just being started is waited for.
    async fn finish_first(&self) -> anyhow::Result<()> {
        if self.records.is_unfinished() {
            self.runtime.addresses(false).await?;
            let finished = unfinished::finish_all(&self.records, &self.runtime).await;
            finished.context("addresses that Docker has given back cannot be leased anew yet")?;
        }
        Ok(())
    }

    /// Has the runtime lease an address, and writes down whose it is.
    async fn allocate(
        &self,
        owner: &Owner,
        holder: &str,
        wished: Option<Ipv4Addr>,
    ) -> anyhow::Result<Ipv4Addr> {
        let lease = self.runtime.allocate(owner, wished, false).await?;
        let address = read_address(&lease.address)?;
        let address = address.context("the runtime leased no address")?;
        let held = Held {
            holder: holder.to_owned(),
            endpoint: None,
            attached: false,
            released: false,
        };
        if self.records.held.get(&address).as_ref() == Some(&held) {
            return Ok(address);
        }
        if let Err(error) = self.records.held.put(address, held.clone()) {
            let given_up = Held {
                released: true,
                ..held
            };
            self.undo(address, given_up).await;
            return Err(error.into());
        }
        tracing::info!(name: "address-leased", %address, %owner, "address leased");
        Ok(address)
    }

    /// Says that an address is Docker's that it knows of already, as it asks when it starts, whether there is a runtime or not; one that is
    /// new is set aside for it.
    pub(crate) async fn confirm(&self, address: Ipv4Addr) -> anyhow::Result<Ipv4Addr> {
        let known = || self.records.held.get(&address).filter(|it| !it.released);
        let held = match known() {
            Some(held) => Some(held),
            None => self.known_to_runtime(address).await?,
        };
        let Some(held) = held else {
            return self
                .lease(&format!("{RESERVED}{address}"), Some(address))
                .await;
        };
        let _turn = self.records.turns.take(&held.holder).await;
        let Some(held) = known().filter(|it| it.holder == held.holder) else {
            bail!("{address} is given back just now: try again");
        };
        let owner = held.owner();
        let owner = owner.with_context(|| format!("{:?} is no holder of a lease", held.holder))?;
        // What is leased stays as it is: whoever leases it again says anew what the runtime shows of it.
        let confirmed = match unfinished::whose(&self.runtime, address).await {
            Ok(Some(known)) if known == owner => Ok(()),
            Ok(_) => {
                let again = self.runtime.allocate(&owner, Some(address), true).await;
                again.map(drop)
            }
            Err(error) => Err(error),
        };
        match confirmed {
            Err(error) if !is_absent(&error) => Err(error.into()),
            Err(error) => {
                tracing::info!(name: "no-runtime-confirms-address", %address, %error, "no runtime confirms the address: it is as it was written");
                Ok(address)
            }
            Ok(()) => Ok(address),
        }
    }

    /// Takes over what the runtime knows of an address of Docker's, if the state is lost in which it was written.
    async fn known_to_runtime(&self, address: Ipv4Addr) -> anyhow::Result<Option<Held>> {
        if self.records.is_unfinished() {
            unfinished::finish_all(&self.records, &self.runtime).await?;
        }
        // Docker, which starts, is not held up by a runtime that is not there: without state, and without it, nobody knows.
        let Some(lease) = self.runtime.lease_of(address).await? else {
            return Ok(None);
        };
        let holder = lease.owner.map(|it| it.container).unwrap_or_default();
        let _turn = self.records.turns.take(&holder).await;
        if let Some(held) = self.records.held.get(&address) {
            return Ok(Some(held));
        }
        let label = |name: &str| lease.labels.get(name).cloned().unwrap_or_default();
        let held = Held {
            endpoint: lease.endpoint.is_some().then(|| Endpoint {
                id: label(ENDPOINT_LABEL),
                network: label(NETWORK_LABEL),
                sandbox: None,
            }),
            attached: lease.endpoint.is_some(),
            released: false,
            holder,
        };
        self.records.held.put(address, held.clone())?;
        tracing::warn!(name: "address-docker-not-written-down", %address, holder = held.holder, "an address of Docker's that was not written down here: taken over from the runtime");
        Ok(Some(held))
    }

    /// Gives an address back that Docker has no more, now or as soon as that is possible.
    pub(crate) async fn give_back(&self, address: Ipv4Addr) {
        let known = match self.records.held.get(&address) {
            Some(held) => held.holder,
            // The state may be lost.
            None => match unfinished::whose(&self.runtime, address).await {
                Ok(None) => return,
                Ok(Some(owner)) => owner.container().to_owned(),
                Err(_) if self.is_gateway(address) => return,
                // The runtime will say.
                Err(_) => String::new(),
            },
        };
        let _turn = self.records.turns.take(&known).await;
        let held = match self.records.held.get(&address) {
            // Given back by who was before, and it may be another's by now.
            Some(held) if held.holder != known => return,
            Some(held) => held,
            None => Held {
                holder: known,
                endpoint: None,
                attached: true,
                released: false,
            },
        };
        if let Some(endpoint) = &held.endpoint {
            // Docker deletes the endpoint first. This address was given to another since, or it could not tell of the end,
            // and what nobody uses is given back without a word.
            tracing::warn!(name: "address-given-back-whose-endpoint", %address, endpoint = endpoint.id, "an address is given back whose endpoint is there: it stays");
            return;
        }
        let released = Held {
            released: true,
            ..held
        };
        self.undo(address, released).await;
    }

    /// Whether an address is the gateway's, which is leased to nobody.
    fn is_gateway(&self, address: Ipv4Addr) -> bool {
        self.records.node().is_some_and(|it| it.gateway == address)
    }

    /// Undoes what is to be undone of an address, now or as soon as that is possible. In its holder's turn.
    pub(crate) async fn undo(&self, address: Ipv4Addr, held: Held) {
        let finished =
            unfinished::finish(&self.records, &self.runtime, address, held.clone()).await;
        if let Err(error) = finished {
            tracing::warn!(name: "undone-once-runtime-answers", %address, %error, "to be undone once the runtime answers");
            let same = |it: &Held| it.holder == held.holder;
            self.records
                .held
                .put_if_possible(address, held.clone(), same);
            self.news.notify_one();
        }
    }
}
