//! What runtime and agent tell.

use mesh_client::mesh::{
    AgentStatus, GetStatusResponse, ListPeersResponse, fast_path_status::State,
};
use mesh_doctor::{Area, Known, KnownPeer};
use mesh_problems::{
    Finding, Problem,
    catalog::{
        host::HOST_VERSIONS_DIFFER,
        local::{AGENT_DOWN, RUNTIME_DOWN},
    },
};

use super::NOT_KNOWN;
use crate::place::{NoAgent, NoRuntime, Place};

/// What was told.
pub(super) struct Daemons {
    /// What they find.
    pub(super) findings: Vec<Finding>,
    /// What of the host is the mesh's.
    pub(super) known: Known,
    /// Whether somebody has decided that the kernel path carries everything.
    pub(super) no_fast_path_wanted: bool,
    /// What was asked, and what could not be.
    pub(super) areas: Vec<Area>,
}

/// Asks both at once.
pub(super) async fn ask(place: &Place) -> Daemons {
    let (runtime, agent) = tokio::join!(runtime(place), place.agent());
    let mut findings = Vec::new();
    let mut areas = Vec::new();
    let mut known = Known::default();
    let mut no_fast_path_wanted = false;
    let mut versions = vec![("meshctl", env!("CARGO_PKG_VERSION").to_owned())];
    match runtime {
        Ok((status, peers)) => {
            known = self::known(&status, &peers);
            let path = status.fast_path.as_ref();
            no_fast_path_wanted = path.is_some_and(|it| it.state() == State::Off);
            areas.push(Area::looked("runtime", said_of(&status), Vec::new()));
            versions.push(("quilt-runtime", status.version));
            findings.extend(status.findings.into_iter().map(Finding::from));
        }
        Err(NoRuntime::Down(error)) => {
            let problem = Problem::new(&RUNTIME_DOWN, error.to_string());
            findings.push(Finding::of(&problem, NOT_KNOWN));
            areas.push(Area::looked("runtime", "does not run", Vec::new()));
        }
        Err(NoRuntime::CannotTell(error)) => {
            areas.push(Area::not_looked("runtime", format!("{error:#}")));
        }
    }
    match agent {
        Ok(status) => {
            areas.push(Area::looked("agent", said_of_agent(&status), Vec::new()));
            versions.push(("quilt-mesh-agent", status.version));
            findings.extend(status.findings.into_iter().map(Finding::from));
        }
        Err(NoAgent::Down(error)) => {
            let problem = Problem::new(&AGENT_DOWN, error.to_string());
            findings.push(Finding::of(&problem, NOT_KNOWN));
            areas.push(Area::looked("agent", "does not run", Vec::new()));
        }
        Err(NoAgent::CannotTell(error)) => {
            areas.push(Area::not_looked("agent", format!("{error:#}")));
        }
    }
    let problem = of_versions(&versions);
    areas.push(Area::looked(
        "versions",
        words(&versions),
        problem.into_iter().collect(),
    ));
    Daemons {
        findings,
        known,
        no_fast_path_wanted,
        areas,
    }
}

async fn runtime(place: &Place) -> Result<(GetStatusResponse, ListPeersResponse), NoRuntime> {
    let mut inspector = place.runtime().await?;
    let mut other = inspector.clone();
    let (status, peers) = tokio::join!(inspector.status(), other.peers());
    let cannot_tell = |error: mesh_client::ClientError| NoRuntime::CannotTell(error.into());
    Ok((status.map_err(cannot_tell)?, peers.map_err(cannot_tell)?))
}

fn known(status: &GetStatusResponse, peers: &ListPeersResponse) -> Known {
    let peer = |told: &mesh_client::mesh::PeerStatus| {
        let peer = told.peer.as_ref()?;
        Some(KnownPeer {
            hostname: peer.hostname.clone(),
            subnet: peer.subnet.parse().ok()?,
            address: peer.host_address.parse().ok()?,
        })
    };
    let port = u16::try_from(status.vxlan_port).ok();
    Known {
        runtime: true,
        subnet: status.subnet.parse().ok(),
        host_address: status.host_address.parse().ok(),
        vxlan: port.map(|port| (status.vni, port)),
        containers: status
            .endpoints
            .iter()
            .filter_map(|endpoint| endpoint.address.parse().ok())
            .collect(),
        peers: peers.peers.iter().filter_map(peer).collect(),
    }
}

fn said_of(status: &GetStatusResponse) -> String {
    let subnet = match status.subnet.is_empty() {
        true => "no subnet yet",
        false => &status.subnet,
    };
    let path = status.fast_path.as_ref().map_or_else(
        || "unknown".to_owned(),
        |path| match path.reason.is_empty() {
            true => path.attach_mode.clone(),
            false => format!("none ({})", path.reason),
        },
    );
    let peers = match status.peers {
        1 => "1 peer".to_owned(),
        count => format!("{count} peers"),
    };
    format!("{subnet}, {peers}, fast path: {path}")
}

fn said_of_agent(status: &AgentStatus) -> String {
    let connected = status.control_plane.as_ref().is_some_and(|it| it.connected);
    match connected {
        true => format!("{}, reaches the control plane", status.hostname),
        false => format!("{}, does not reach the control plane", status.hostname),
    }
}

fn words(versions: &[(&str, String)]) -> String {
    let words: Vec<String> = versions
        .iter()
        .map(|(part, version)| format!("{part} {version}"))
        .collect();
    words.join(", ")
}

fn of_versions(versions: &[(&str, String)]) -> Option<Problem> {
    let first = versions.first()?;
    let same = versions.iter().all(|(_, version)| *version == first.1);
    (!same).then(|| Problem::new(&HOST_VERSIONS_DIFFER, words(versions)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_other_versions_are_told_with_all_versions() {
        let same = [
            ("meshctl", "0.1.0".to_owned()),
            ("quilt-runtime", "0.1.0".to_owned()),
        ];
        assert_eq!(of_versions(&same), None);
        let other = [
            ("meshctl", "0.1.0".to_owned()),
            ("quilt-runtime", "0.2.0".to_owned()),
        ];
        let problem = of_versions(&other).unwrap();
        assert_eq!(problem.observed, "meshctl 0.1.0, quilt-runtime 0.2.0");
    }
}
