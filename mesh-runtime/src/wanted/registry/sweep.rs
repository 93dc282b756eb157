//! Leases that nobody seems to use, and what becomes of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{Duration, SystemTime},
};

use mesh_ipam::{Lease, NetworkNamespace, Owner};
use mesh_ticker::Ticker;
use tokio::task::JoinHandle;
use tonic::Status;

use super::{CallError, Registry, look};
use crate::{
    api::{
        ask::ask,
        command::{Command, Shown},
    },
    observed::namespace::is_there,
};

/// How often leases are looked at. What is gone at two looks in a row is reclaimed.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long an address may be leased before its container is there, and an interface lie on the host before its engine
/// takes it, in seconds.
const PATIENCE: u64 = 60;

/// How long an engine may take to move an interface into its container, in seconds: volumes are mounted meanwhile, and virtual machines begun.
const MOVING: u64 = 600;

/// Leases with which something is the matter, by their owners.
pub(crate) type Leaks = BTreeMap<Owner, (Lease, Leak)>;

/// What is the matter with a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leak {
    /// Its endpoint was begun and never finished.
    Unfinished,
    /// The namespace that its owner named is gone, and nothing of it is left.
    Gone(String),
    /// Nobody uses it, and nothing says that nobody will.
    Unused(String),
}

impl Leak {
    /// In words, for whoever lists the leases.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Unfinished => "its endpoint was never finished: it is undone in a moment",
            Self::Gone(reason) | Self::Unused(reason) => reason,
        }
    }
}

/// What is the matter with a lease, by what the kernel shows. Pure.
///
/// `namespace` says whether the namespace that its owner named is there; `now` is in seconds since 1970.
fn judge(lease: &Lease, shown: &Shown, namespace: Option<bool>, now: u64) -> Option<Leak> {
    let path = bound_to(lease).map(|named| named.path.display());
    let gone = || match &path {
        Some(path) => Leak::Gone(format!("its namespace {path} is gone")),
        None => Leak::Gone("its namespace is gone".to_owned()),
    };
    if let Some(endpoint) = &lease.endpoint {
        if !endpoint.settled {
            return Some(Leak::Unfinished);
        }
        // It goes with the namespace, whatever its path leads to by now.
        if shown.links.contains(&endpoint.link) {
            let waits = shown.handed_over.get(&endpoint.link);
            let in_vain = waits.is_some_and(|waits| waits.as_secs() >= MOVING);
            return (endpoint.moved_by_engine && in_vain).then(|| {
                let end = lease.owner.handed_over_name();
                Leak::Unused(format!(
                    "its engine never took it: {end} is on this host still"
                ))
            });
        }
        return Some(match namespace {
            Some(false) => gone(),
            _ => Leak::Unused(format!("its interface {} is gone", endpoint.link)),
        });
    }
    if shown.held.contains(&lease.address) {
        return None;
    }
    match namespace {
        Some(false) => Some(gone()),
        Some(true) => None,
        None if now.saturating_sub(lease.since) < PATIENCE => None,
        None => Some(Leak::Unused(
            "no container at the bridge holds it".to_owned(),
        )),
    }
}

/// The namespace with which a lease's endpoint goes, or the lease itself where it has none.
pub(crate) fn bound_to(lease: &Lease) -> Option<&NetworkNamespace> {
    match &lease.endpoint {
        Some(endpoint) => endpoint.namespace.as_ref(),
        None => lease.namespace.as_ref(),
    }
}

impl Registry {
    /// What is the matter with the leases at the moment.
    pub(crate) async fn leaks(&self) -> Result<Leaks, Status> {
        Ok(self.leaks_and_shown().await?.0)
    }

    /// The same, with what it was judged by.
    pub(crate) async fn leaks_and_shown(&self) -> Result<(Leaks, Shown), Status> {
        let shown = ask(&self.commands, |reply| Command::Shown { reply }).await?;
        // After the kernel was asked: a lease that is newer is not judged by what was older.
        let leases = self.ipam.leases();
        let named: Vec<NetworkNamespace> = leases.iter().filter_map(bound_to).cloned().collect();
        let there = look(move || -> BTreeMap<NetworkNamespace, bool> {
            let looked = named.into_iter().map(|named| {
                let there = is_there(&named);
                (named, there)
            });
            looked.collect()
        })
        .await?;
        let now = now();
        let judged = leases.iter().filter_map(|lease| {
            // Somebody is at it just now.
            let _turn = self.turns.try_take(&lease.owner)?;
            let namespace = bound_to(lease).map(|it| there.get(it).copied().unwrap_or_default());
            let leak = judge(lease, &shown, namespace, now)?;
            Some((lease.owner.clone(), (lease.clone(), leak)))
        });
        let judged = judged.collect();
        Ok((judged, shown))
    }

    /// Reclaims what is gone and was `gone` at the last look, and undoes what was never finished. Returns
    /// whose namespaces are gone now.
    pub(super) async fn sweep(&self, gone: &BTreeSet<Owner>) -> Result<BTreeSet<Owner>, Status> {
        let mut still = BTreeSet::new();
        for (owner, (_, leak)) in self.leaks().await? {
            let reclaim = match leak {
                Leak::Unfinished => true,
                Leak::Gone(_) => {
                    still.insert(owner.clone());
                    gone.contains(&owner)
                }
                Leak::Unused(_) => false,
            };
            if reclaim {
                self.reclaim(&owner).await?;
            }
        }
        Ok(still)
    }

    /// Reclaims what an owner has, if something is the matter with it by now.
    async fn reclaim(&self, owner: &Owner) -> Result<(), Status> {
        let Some(_turn) = self.turns.try_take(owner) else {
            return Ok(());
        };
        // Its owner may have come back while others were reclaimed, and nothing of that has to show in the lease.
        let Some((lease, leak)) = self.leak_of(owner).await? else {
            return Ok(());
        };
        if matches!(leak, Leak::Unused(_)) {
            return Ok(());
        }
        tracing::info!(name: "endpoint-reclaiming", %owner, address = %lease.address, reason = leak.reason(), "reclaiming");
        let reclaimed = async {
            self.unmake(&lease).await?;
            if matches!(leak, Leak::Gone(_)) && lease.endpoint.is_none() {
                self.ipam.release(owner, None).await?;
            }
            Ok::<(), CallError>(())
        };
        if let Err(error) = reclaimed.await {
            tracing::warn!(name: "cannot-reclaim-address-once", %owner, %error, "cannot reclaim an address at once: trying again in a moment");
        }
        Ok(())
    }

    /// What is the matter with an owner's lease at the moment. Nobody else may be at it.
    pub(super) async fn leak_of(&self, owner: &Owner) -> Result<Option<(Lease, Leak)>, Status> {
        let shown = ask(&self.commands, |reply| Command::Shown { reply }).await?;
        let Some(lease) = self.ipam.lease_of(owner) else {
            return Ok(None);
        };
        let there = match bound_to(&lease).cloned() {
            Some(named) => Some(look(move || is_there(&named)).await?),
            None => None,
        };
        Ok(judge(&lease, &shown, there, now()).map(|leak| (lease, leak)))
    }
}

/// In seconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// Looks at the leases again and again, until it is dropped.
#[derive(Debug)]
pub(crate) struct Sweeper(JoinHandle<()>);

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Sweeper {
    /// Begins to look. While nothing is leased, it sleeps.
    pub(crate) fn start(registry: Registry) -> Self {
        Self(tokio::spawn(async move {
            let mut news = registry.ipam.subscribe();
            let mut gone = BTreeSet::new();
            if let Err(status) = registry.bury_all().await {
                tracing::warn!(name: "cannot-look-who-taken-off",
                    reason = status.message(),
                    "cannot look who was taken off while no runtime ran"
                );
            }
            loop {
                while registry.ipam.usage().leased == 0 {
                    if news.changed().await.is_err() {
                        return;
                    }
                }
                match look_at(&registry, &mut gone).await {
                    Ok(()) => {}
                    Err(error) => {
                        tracing::warn!(name: "no-clock-look-leases", %error, "no clock to look at the leases by: trying again in a moment");
                        tokio::time::sleep(INTERVAL).await;
                    }
                }
            }
        }))
    }
}

/// Looks at the leases again and again, until there are none.
async fn look_at(registry: &Registry, gone: &mut BTreeSet<Owner>) -> io::Result<()> {
    let mut ticker = Ticker::every(INTERVAL)?;
    while registry.ipam.usage().leased > 0 {
        if let Err(status) = registry.bury_all().await {
            tracing::debug!(name: "cannot-look-for-tombstones", reason = status.message(), "cannot look for tombstones");
        }
        match registry.sweep(gone).await {
            Ok(still) => *gone = still,
            Err(status) => {
                tracing::debug!(name: "cannot-look-at-leases", reason = status.message(), "cannot look at the leases");
            }
        }
        ticker.tick().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mesh_ipam::{Endpoint, Lifetime, NamedLabels};

    use super::*;

    fn lease(namespace: Option<&str>, endpoint: Option<bool>) -> Lease {
        Lease {
            address: [10, 42, 1, 2].into(),
            owner: Owner::new("test", "quilt", "web", "eth0").unwrap(),
            named: NamedLabels::default(),
            namespace: namespace.map(|path| NetworkNamespace {
                path: path.into(),
                inode: 4_026_532_000,
            }),
            lifetime: Lifetime::Released,
            since: 1000,
            endpoint: endpoint.map(|settled| Endpoint {
                link: "qm1".to_owned(),
                mac: [2, 0x53, 10, 42, 1, 2],
                mtu: 1450,
                default_route: true,
                published: Vec::new(),
                settled,
                namespace: namespace.map(|path| NetworkNamespace {
                    path: path.into(),
                    inode: 4_026_532_000,
                }),
                moved_by_engine: false,
                leased_along: true,
            }),
        }
    }

    fn shown(links: &[&str], held: &[[u8; 4]]) -> Shown {
        Shown {
            links: links.iter().map(|&name| name.to_owned()).collect(),
            held: held.iter().map(|&address| address.into()).collect(),
            handed_over: BTreeMap::new(),
            probe_address: None,
        }
    }

    const NOTHING: (&[&str], &[[u8; 4]]) = (&[], &[]);

    #[test]
    fn what_was_never_finished_is_undone_whatever_is_there() {
        let lease = lease(Some("/run/netns/web"), Some(false));
        let leak = judge(&lease, &shown(&["qm1"], &[]), Some(true), 1000);
        assert_eq!(leak, Some(Leak::Unfinished));
    }

    #[test]
    fn only_a_named_namespace_that_is_gone_with_all_that_was_in_it_is_gone() {
        let nothing = shown(NOTHING.0, NOTHING.1);
        let named = lease(Some("/run/netns/web"), None);
        assert!(matches!(
            judge(&named, &nothing, Some(false), 9000),
            Some(Leak::Gone(_))
        ));
        assert_eq!(judge(&named, &nothing, Some(true), 9000), None);
        let held = shown(&[], &[[10, 42, 1, 2]]);
        assert_eq!(judge(&named, &held, Some(false), 9000), None);
        let attached = lease(Some("/run/netns/web"), Some(true));
        // The path is gone, the namespace is not.
        assert_eq!(
            judge(&attached, &shown(&["qm1"], &[]), Some(false), 9000),
            None
        );
        assert!(matches!(
            judge(&attached, &nothing, Some(false), 9000),
            Some(Leak::Gone(_))
        ));
        assert!(matches!(
            judge(&attached, &nothing, Some(true), 9000),
            Some(Leak::Unused(_))
        ));
    }

    /// One that its engine moves, whose other end has been on the host for so long; `None`: it is elsewhere, or gone.
    fn judge_moved(links: &[&str], handed_over: Option<u64>) -> Option<Leak> {
        let mut lease = lease(None, Some(true));
        lease.endpoint.as_mut().unwrap().moved_by_engine = true;
        let waits = handed_over.map(|waits| ("qm1".to_owned(), Duration::from_secs(waits)));
        let shown = Shown {
            handed_over: waits.into_iter().collect(),
            ..shown(links, &[])
        };
        // Its address has been leased for long, as those of Docker are.
        judge(&lease, &shown, None, 90_000)
    }

    #[test]
    fn an_interface_that_its_engine_moves_is_listed_after_ten_minutes_on_the_host_and_never_gone() {
        assert_eq!(judge_moved(&["qm1"], Some(599)), None);
        let Some(Leak::Unused(reason)) = judge_moved(&["qm1"], Some(600)) else {
            panic!("it is not listed");
        };
        assert!(reason.contains("its engine never took it: qe"), "{reason}");
        assert_eq!(judge_moved(&["qm1"], None), None, "it took it");
        // Its container is gone, and the engine will say so.
        let gone = judge_moved(&[], None);
        let words = "its interface qm1 is gone".to_owned();
        assert_eq!(gone, Some(Leak::Unused(words)));
        // Of one that nobody has to move, somebody's hand is in it.
        let lease = lease(Some("/run/netns/web"), Some(true));
        let mut shown = shown(&["qm1"], &[]);
        shown.handed_over = [("qm1".to_owned(), Duration::from_secs(600))].into();
        assert_eq!(judge(&lease, &shown, Some(true), 90_000), None);
    }

    #[test]
    fn an_address_that_nobody_holds_is_listed_after_a_minute_and_never_gone() {
        let nothing = shown(NOTHING.0, NOTHING.1);
        let unnamed = lease(None, None);
        assert_eq!(judge(&unnamed, &nothing, None, 1059), None);
        assert!(matches!(
            judge(&unnamed, &nothing, None, 1060),
            Some(Leak::Unused(_))
        ));
        assert_eq!(
            judge(&unnamed, &shown(&[], &[[10, 42, 1, 2]]), None, 9000),
            None
        );
    }
}
