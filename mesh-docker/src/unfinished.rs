//! What is undone once the runtime is back: Docker stops containers whether there is one or not.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use mesh_client::ClientError;
use tokio::sync::Notify;

use crate::{
    record::{Held, Records},
    runtime::{Runtime, is_absent},
};

/// Tells whoever undoes that there is something to be undone.
pub(crate) type News = Arc<Notify>;

/// Undoes what is to be undone of one address. Whether it is done; what fails is tried again later.
pub(crate) async fn finish(
    records: &Records,
    runtime: &Runtime,
    address: Ipv4Addr,
    held: Held,
) -> Result<(), ClientError> {
    let Some(owner) = held.owner() else {
        records.held.remove(&address);
        return Ok(());
    };
    if held.attached && (held.endpoint.is_none() || held.released) {
        runtime.detach(&owner).await?;
    }
    match held.released {
        true => {
            runtime.release(&owner).await?;
            tracing::info!(%address, %owner, "address given back");
            records.held.remove(&address);
        }
        false => {
            let detached = Held {
                attached: false,
                ..held
            };
            records.held.put_if_possible(address, detached);
        }
    }
    Ok(())
}

/// Undoes all that is to be undone, until one fails.
pub(crate) async fn finish_all(records: &Records, runtime: &Runtime) -> Result<(), ClientError> {
    for (address, held) in records.held.all(Held::is_unfinished) {
        match finish(records, runtime, address, held).await {
            Err(error) if is_absent(&error) => return Err(error),
            Err(error) => tracing::warn!(%address, %error, "cannot be undone: trying again later"),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Undoes whatever is to be undone, until it is dropped.
pub(crate) async fn keep_finishing(records: &Records, runtime: &Runtime, news: &News) {
    let pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(Duration::from_secs(15))
        .without_max_times()
        .with_jitter();
    loop {
        let told = news.notified();
        let mut again = pauses.build();
        let mut is_told = false;
        while records.held.find(Held::is_unfinished).is_some() {
            if let Err(error) = finish_all(records, runtime).await
                && !is_told
            {
                tracing::warn!(%error, "addresses of Docker's are given back once the runtime answers");
                is_told = true;
            }
            tokio::time::sleep(again.next().unwrap_or(Duration::from_secs(15))).await;
        }
        told.await;
    }
}
