//! Removes what this project made on a host.

use std::{io, sync::Arc};

use crate::{
    apply::{self, Applier, firewall, qdisc::remove_unused, veth},
    desired::devices::is_own_bridge_mac,
    diff::removal::removal,
    ebpf::{FastPathError, detach_leftovers},
    instance_lock::{InstanceLock, LockError},
    netlink::Netlink,
    observed::{
        self, LinkKind, Observed,
        dirty::Dirty,
        read::{Scope, observe},
    },
    options::{OptionsError, RuntimeOptions},
    privileges::{self, MissingPrivilege},
    probe_endpoint,
    settings::Settings,
    wanted::{node_settings::NodeSettings, state, subnet::Cluster},
};

/// Why cleaning up did not take place, or not in full.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// Options that contradict each other.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A privilege is missing.
    #[error(transparent)]
    Privilege(#[from] MissingPrivilege),
    /// A runtime is still there.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The kernel could not be read.
    #[error("cannot read the kernel's network state: {0}")]
    Read(#[source] io::Error),
    /// Something is left; everything else is gone.
    #[error("not everything could be removed: {}", .0.join("; "))]
    Left(Vec<String>),
}

/// What was removed, and what was left on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanupReport {
    /// One line for each thing that was removed.
    pub removed: Vec<String>,
    /// One line for each thing that was left, with the reason.
    pub kept: Vec<String>,
}

/// Removes everything of this project's from this network namespace: programs, pins, routes,
/// the VXLAN device, the interfaces that were made for containers, the state directory's files, and the bridge
/// if it is ours and nothing else is attached to it.
///
/// # Errors
///
/// A runtime that still works, a missing privilege, or what could not be removed. The rest
/// is removed all the same.
pub async fn cleanup(options: &RuntimeOptions) -> Result<CleanupReport, CleanupError> {
    options.check()?;
    privileges::check()?;
    let _lock = InstanceLock::take()?;
    let settings = Settings::from(options);
    let netlink = Netlink::connect().map_err(CleanupError::Read)?;
    let mut left = Vec::new();
    let mut removed = Vec::new();
    let observed = look(&netlink, options).await?;
    delete_endpoints(options, &observed, &mut removed, &mut left).await;
    delete_probe_endpoint(&observed, &mut removed, &mut left).await;
    let observed = look(&netlink, options).await?;
    // Programs first: they would carry on with what the maps say.
    match detach(options, &observed).await {
        Ok(qdiscs) => {
            for link in qdiscs {
                let name = observed.name_of(link);
                match remove_unused(&netlink, link).await {
                    Ok(true) => removed.push(format!("remove the clsact qdisc of {name}")),
                    Ok(false) => {}
                    Err(error) => left.push(format!("the clsact qdisc of {name}: {error}")),
                }
            }
        }
        Err(error) => left.push(error),
    }
    // Before the rules: they keep everybody else away from what the bridge routes then.
    if let Err(error) = close_loopback(&settings, &observed, &mut removed) {
        left.push(format!("route_localnet of {}: {error}", settings.bridge));
    }
    match tokio::task::spawn_blocking(firewall::remove).await {
        Ok(Ok(true)) => removed.push("remove the nftables tables quilt_mesh".to_owned()),
        Ok(Ok(false)) => {}
        Ok(Err(error)) => left.push(format!("the nftables tables quilt_mesh: {error}")),
        Err(error) => left.push(error.to_string()),
    }
    let removal = removal(&settings, &observed);
    let failed = Applier::new(&netlink, &settings, &observed)
        .apply(&removal.changes)
        .await;
    left.extend(failed.iter().map(ToString::to_string));
    // Last: what is left would be wanted again by the next start otherwise.
    removed.extend(removal.changes.iter().map(ToString::to_string));
    if let Some(path) = &options.state_dir {
        match state::remove(path, settings.cluster) {
            Ok(true) => removed.push(format!("remove the state in {}", path.display())),
            Ok(false) => {}
            Err(error) => left.push(error.to_string()),
        }
    }
    if !left.is_empty() {
        return Err(CleanupError::Left(left));
    }
    Ok(CleanupReport {
        removed,
        kept: removal.kept,
    })
}

/// Has our bridge route loopback no more, which may be kept for its ports.
fn close_loopback(
    settings: &Settings,
    observed: &Observed,
    removed: &mut Vec<String>,
) -> io::Result<()> {
    let bridge = observed.link_named(&settings.bridge);
    let ours = bridge.is_some_and(|link| is_own_bridge_mac(&settings.cluster, link.mac));
    if ours && observed::sysctl::route_localnet(&settings.bridge) == Some(true) {
        apply::sysctl::route_localnet(&settings.bridge, false)?;
        removed.push(format!("let {} route 127.0.0.0/8 no more", settings.bridge));
    }
    Ok(())
}

async fn look(netlink: &Netlink, options: &RuntimeOptions) -> Result<Observed, CleanupError> {
    let scope = Scope {
        cluster: options.cluster_cidr,
        bridge: &options.bridge,
        overlay: &options.overlay_interface,
        peers: &Arc::default(),
        source: None,
        vxlan_port: NodeSettings::default().vxlan_port,
    };
    observe(netlink, Observed::default(), Dirty::all(), scope)
        .await
        .map_err(|error| CleanupError::Read(io::Error::other(error)))
}

/// Deletes the interfaces that were made for containers, by what the registry says.
async fn delete_endpoints(
    options: &RuntimeOptions,
    observed: &Observed,
    removed: &mut Vec<String>,
    left: &mut Vec<String>,
) {
    let Some(path) = options.state_dir.clone() else {
        return;
    };
    let cluster = Cluster::from(options);
    let found = tokio::task::spawn_blocking(move || state::leases(&path, cluster)).await;
    let leases = match found {
        Ok(Ok(leases)) => leases,
        Ok(Err(error)) => return left.push(format!("containers' interfaces: {error}")),
        Err(error) => return left.push(error.to_string()),
    };
    let bridge = observed.link_named(&options.bridge).map(|link| link.index);
    for lease in leases {
        let link = lease.endpoint.as_ref().and_then(|endpoint| {
            let link = observed.link_named(&endpoint.link)?;
            let ours = link.kind == LinkKind::Veth && link.master == bridge;
            ours.then_some(link)
        });
        let Some(link) = link else { continue };
        match veth::delete(link.index).await {
            Ok(()) => removed.push(format!("delete interface {} of {}", link.name, lease.owner)),
            Err(error) => left.push(format!(
                "interface {} of {}: {error}",
                link.name, lease.owner
            )),
        }
    }
}

/// Deletes the endpoint for probes of a runtime that has ended just now: the kernel takes its time with the namespace.
async fn delete_probe_endpoint(
    observed: &Observed,
    removed: &mut Vec<String>,
    left: &mut Vec<String>,
) {
    let link = observed.link_named(probe_endpoint::NAME);
    let Some(link) = link.filter(|link| probe_endpoint::is_ours(link)) else {
        return;
    };
    match veth::delete(link.index).await {
        Ok(()) => removed.push(format!("delete interface {}", link.name)),
        Err(error) => left.push(format!("interface {}: {error}", link.name)),
    }
}

/// Detaches, and returns the interfaces whose clsact qdisc is ours.
async fn detach(options: &RuntimeOptions, observed: &Observed) -> Result<Vec<u32>, String> {
    let bpffs = options.bpffs.clone();
    let interfaces: Vec<String> = observed
        .links
        .values()
        .map(|link| link.name.clone())
        .collect();
    let result: Result<Result<Vec<u32>, FastPathError>, _> =
        tokio::task::spawn_blocking(move || detach_leftovers(&bpffs, &interfaces, true)).await;
    match result {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
