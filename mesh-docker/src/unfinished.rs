//! What is undone once the runtime is back: Docker stops containers whether there is one or not.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use mesh_client::ClientError;
use mesh_ipam::Owner;
use tokio::sync::Notify;

use crate::{
    record::{Held, Records, owner},
    runtime::{Runtime, is_absent},
};

/// The longest between two tries, but for the jitter, which is as long at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Tells whoever undoes that there is something to be undone.
pub(crate) type News = Arc<Notify>;

/// What was said to be refused by a runtime that is there: it is tried again every few seconds, and said once.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<BTreeSet<String>>);

impl Told {
    fn refused(&self, what: String, error: &ClientError) {
        // Entries are added and removed as a whole.
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.contains(&what) {
            tracing::warn!(name: "cannot-undone", what, %error, "cannot be undone: trying again from time to time");
            told.insert(what);
        }
    }

    fn done(&self, what: &str) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.remove(what);
    }
}

/// Undoes what is to be undone of one address, in its holder's turn. Whether it is done; what fails is tried again later.
pub(crate) async fn finish(
    records: &Records,
    runtime: &Runtime,
    address: Ipv4Addr,
    held: Held,
) -> Result<(), ClientError> {
    // The runtime may have given the address to somebody else before it is known here that it took it back.
    let same = |it: &Held| it.holder == held.holder;
    let owner = match held.owner() {
        Some(owner) => Some(owner),
        None => whose(runtime, address).await?,
    };
    let Some(owner) = owner else {
        records.held.remove_if(&address, same);
        return Ok(());
    };
    if held.attached && (held.endpoint.is_none() || held.released) {
        runtime.detach(&owner).await?;
    }
    match held.released {
        true => {
            runtime.release(&owner).await?;
            tracing::info!(name: "address-given-back", %address, %owner, "address given back");
            records.held.remove_if(&address, same);
        }
        false => {
            let detached = Held {
                attached: false,
                ..held
            };
            let same = |it: &Held| it.holder == detached.holder;
            records
                .held
                .put_if_possible(address, detached.clone(), same);
        }
    }
    Ok(())
}

/// Whose lease an address is, if it is one of Docker's.
pub(crate) async fn whose(
    runtime: &Runtime,
    address: Ipv4Addr,
) -> Result<Option<Owner>, ClientError> {
    let lease = runtime.lease_of(address).await?;
    Ok(lease.and_then(|it| owner(&it.owner?.container)))
}

/// Gives back what was leased, if anything was, to who never heard of it.
async fn forget(records: &Records, runtime: &Runtime, holder: &String) -> Result<(), ClientError> {
    if records.of_holder(holder).is_none()
        && let Some(owner) = owner(holder)
    {
        runtime.release(&owner).await?;
        tracing::info!(name: "address-docker-not-heard-given", %owner, "an address of which Docker has not heard is given back");
    }
    records.asked.remove(holder);
    Ok(())
}

/// Undoes all that is to be undone, until there is no runtime. Takes turns: whoever calls has none.
pub(crate) async fn finish_all(records: &Records, runtime: &Runtime) -> Result<(), ClientError> {
    for (address, held) in records.held.all(Held::is_unfinished) {
        let _turn = records.turns.take(&held.holder).await;
        // Whoever was before may have done it.
        if records.held.get(&address).as_ref() != Some(&held) {
            continue;
        }
        match finish(records, runtime, address, held).await {
            Err(error) if is_absent(&error) => return Err(error),
            Err(error) => records.told.refused(address.to_string(), &error),
            Ok(()) => records.told.done(&address.to_string()),
        }
    }
    for (holder, _) in records.asked.all(|it| it.abandoned) {
        let _turn = records.turns.take(&holder).await;
        if !records.asked.get(&holder).is_some_and(|it| it.abandoned) {
            continue;
        }
        match forget(records, runtime, &holder).await {
            Err(error) if is_absent(&error) => return Err(error),
            Err(error) => records.told.refused(holder, &error),
            Ok(()) => records.told.done(&holder),
        }
    }
    Ok(())
}

/// Undoes whatever is to be undone, until it is dropped.
pub(crate) async fn keep_finishing(records: &Records, runtime: &Runtime, news: &News) {
    let pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .with_jitter();
    loop {
        let told = news.notified();
        let mut again = pauses.build();
        let mut is_told = false;
        while records.is_unfinished() {
            let finished = async {
                runtime.is_there().await?;
                finish_all(records, runtime).await
            };
            if let Err(error) = finished.await
                && !is_told
            {
                tracing::warn!(name: "addresses-docker-given-back-once", %error, "addresses of Docker's are given back once the runtime answers");
                is_told = true;
            }
            tokio::time::sleep(again.next().unwrap_or(LONGEST_PAUSE)).await;
        }
        told.await;
    }
}
