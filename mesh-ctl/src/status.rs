//! `meshctl status`: is it fine, and if not, why not.

use std::{collections::BTreeMap, time::Duration};

use mesh_client::mesh::{
    AgentStatus, GetStatusResponse, ListPeersResponse, PeerStatus,
    fast_path_status::State as FastPathState,
};
use mesh_problems::{
    Finding, Problem,
    catalog::local::{AGENT_DOWN, RUNTIME_DOWN},
};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    Verdict, findings,
    output::{GOOD, age, now, printable, say, say_json, styled},
    place::{NoAgent, NoRuntime, Place},
};

/// How often `--wait` looks.
const AGAIN: Duration = Duration::from_millis(500);

/// Is this node fine, and if not, why not?
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Wait until nothing is wrong.
    #[arg(long)]
    wait: bool,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "wait")]
    timeout: u64,
    /// One line.
    #[arg(long)]
    brief: bool,
    /// Print a document for a machine.
    #[arg(long)]
    json: bool,
}

/// Prints the state of this node.
pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Verdict> {
    let end = Instant::now() + Duration::from_secs(options.timeout);
    let status = loop {
        let status = look(place).await?;
        if status.healthy || !options.wait || Instant::now() >= end {
            break status;
        }
        sleep(AGAIN).await;
    };
    match (options.json, options.brief) {
        (true, _) => say_json(&status)?,
        (false, true) => say(brief(&status))?,
        (false, false) => say(text(&status, now()))?,
    }
    Ok(match status.healthy {
        true => Verdict::Fine,
        false => Verdict::Wrong,
    })
}

/// The state of a node, as a document. Fields are added to it, and never taken away or changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Status {
    /// Whether everything works: no finding is an error.
    healthy: bool,
    /// `None`: there is no runtime.
    runtime: Option<Runtime>,
    /// `None`: there is no agent.
    agent: Option<Agent>,
    /// What is not as it should be, the gravest first.
    findings: Vec<Finding>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Runtime {
    version: String,
    /// Empty until the node has joined.
    subnet: String,
    host_address: String,
    underlay_interface: String,
    fast_path: FastPath,
    /// In bytes; 0 while there is no overlay.
    overlay_mtu: u32,
    vxlan_port: u32,
    vni: u32,
    generation: u64,
    peers: Peers,
    routes: u32,
    endpoints: usize,
    addresses: Addresses,
    /// Packets dropped by guards, by reason.
    drops: BTreeMap<String, u64>,
    grpc_address: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Agent {
    version: String,
    hostname: String,
    /// Empty until the node is registered.
    node_id: String,
    /// The replica that is used.
    control_plane: String,
    connected: bool,
    /// Milliseconds since the control plane answered anything.
    heard_ms_ago: Option<u64>,
    certificate: Certificate,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Certificate {
    /// `none`, `own` or `mesh`.
    source: String,
    /// When it expires, in Unix seconds.
    not_after: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct FastPath {
    /// `active`, `waiting`, `unavailable` or `off`.
    state: String,
    /// Why it is not active.
    reason: String,
    /// `tcx` or `clsact`.
    attach_mode: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Peers {
    total: usize,
    /// With route, neighbour and forwarding entry.
    reachable: usize,
    /// By the fast path.
    fast: usize,
    /// The control plane calls them down, and their packets arrive.
    suspect: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Addresses {
    leased: u32,
    capacity: u32,
}

async fn look(place: &Place) -> anyhow::Result<Status> {
    let (runtime, agent) = tokio::join!(look_at_runtime(place), place.agent());
    let mut findings = Vec::new();
    let runtime = match runtime? {
        Ok((told, peers)) => {
            findings.extend(told.findings.iter().cloned().map(Finding::from));
            Some(self::runtime(told, &peers))
        }
        Err(down) => {
            findings.push(down);
            None
        }
    };
    let agent = match agent {
        Ok(told) => {
            findings.extend(told.findings.iter().cloned().map(Finding::from));
            Some(self::agent(told))
        }
        Err(NoAgent::Down(error)) => {
            let problem = Problem::new(&AGENT_DOWN, error.to_string());
            findings.push(Finding::of(&problem, now()));
            None
        }
        Err(NoAgent::CannotTell(error)) => return Err(error),
    };
    Ok(status(runtime, agent, findings))
}

type Told = (GetStatusResponse, ListPeersResponse);

/// What the runtime tells, or that there is none.
async fn look_at_runtime(place: &Place) -> anyhow::Result<Result<Told, Finding>> {
    let mut inspector = match place.runtime().await {
        Ok(inspector) => inspector,
        Err(NoRuntime::Down(error)) => {
            let problem = Problem::new(&RUNTIME_DOWN, error.to_string());
            return Ok(Err(Finding::of(&problem, now())));
        }
        Err(NoRuntime::CannotTell(error)) => return Err(error),
    };
    let mut other = inspector.clone();
    let (told, peers) = tokio::join!(inspector.status(), other.peers());
    Ok(Ok((told?, peers?)))
}

fn status(runtime: Option<Runtime>, agent: Option<Agent>, mut findings: Vec<Finding>) -> Status {
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Status {
        healthy: runtime.is_some() && agent.is_some() && !findings::is_wrong(&findings),
        runtime,
        agent,
        findings,
    }
}

fn agent(told: AgentStatus) -> Agent {
    let control = told.control_plane.unwrap_or_default();
    let used = usize::try_from(control.used).ok();
    let certificate = told.certificate.unwrap_or_default();
    Agent {
        version: told.version,
        hostname: told.hostname,
        node_id: told.node_id,
        control_plane: used
            .and_then(|used| control.urls.get(used).cloned())
            .unwrap_or_default(),
        connected: control.connected,
        heard_ms_ago: control.heard_ms_ago,
        certificate: Certificate {
            source: certificate.source,
            not_after: (certificate.not_after != 0).then_some(certificate.not_after),
        },
    }
}

/// The word for where the fast path stands.
fn word(state: FastPathState) -> &'static str {
    match state {
        FastPathState::Active => "active",
        FastPathState::Waiting => "waiting",
        FastPathState::Unavailable => "unavailable",
        FastPathState::Off => "off",
        FastPathState::Unspecified => "unknown",
    }
}

fn runtime(told: GetStatusResponse, peers: &ListPeersResponse) -> Runtime {
    let fast_path = told.fast_path.unwrap_or_default();
    let count = |fits: fn(&&PeerStatus) -> bool| peers.peers.iter().filter(fits).count();
    Runtime {
        fast_path: FastPath {
            state: word(fast_path.state()).to_owned(),
            reason: fast_path.reason,
            attach_mode: fast_path.attach_mode,
        },
        version: told.version,
        subnet: told.subnet,
        host_address: told.host_address,
        underlay_interface: told.underlay_interface,
        overlay_mtu: told.overlay_mtu,
        vxlan_port: told.vxlan_port,
        vni: told.vni,
        generation: told.generation,
        peers: Peers {
            total: peers.peers.len(),
            reachable: count(|peer| peer.kernel_path_ready),
            fast: count(|peer| peer.fast_path_ready),
            suspect: count(|peer| peer.peer.as_ref().is_some_and(|it| it.suspect)),
        },
        routes: told.routes,
        endpoints: told.endpoints.len(),
        addresses: Addresses {
            leased: told.leased_addresses,
            capacity: told.address_capacity,
        },
        drops: told.drops.into_iter().collect(),
        grpc_address: told.grpc_address,
    }
}

fn brief(status: &Status) -> String {
    let word = match status.healthy {
        true => styled(GOOD, "ok"),
        false => styled(findings::style_of_worst(&status.findings), "not ok"),
    };
    let findings = findings::count(&status.findings);
    match &status.runtime {
        None => format!("{word}: the runtime is down"),
        Some(runtime) => {
            let Peers {
                total, reachable, ..
            } = runtime.peers;
            let path = &runtime.fast_path.state;
            let subnet = or(&runtime.subnet, "no subnet");
            format!(
                "{word}: {subnet}, {reachable} of {total} peers, fast path {path}, findings: {findings}"
            )
        }
    }
}

/// The text, or what stands for none.
fn or<'a>(text: &'a str, none: &'a str) -> &'a str {
    if text.is_empty() { none } else { text }
}

fn text(status: &Status, now: u64) -> String {
    let mut lines = Vec::new();
    match &status.runtime {
        None => lines.push(line("Runtime", "down")),
        Some(runtime) => lines.extend(lines_of(runtime)),
    }
    lines.extend(match &status.agent {
        None => vec![line("Agent", "down")],
        Some(agent) => lines_of_agent(agent, now),
    });
    lines.push(line("Findings", &findings::count(&status.findings)));
    if !status.findings.is_empty() {
        lines.push(String::new());
        lines.push(findings::text(&status.findings, now));
    }
    lines.join("\n")
}

fn line(label: &str, words: &str) -> String {
    format!("{label:<11} {}", printable(words))
}

fn lines_of(runtime: &Runtime) -> Vec<String> {
    let Runtime {
        version,
        subnet,
        host_address,
        underlay_interface,
        fast_path,
        overlay_mtu,
        peers,
        endpoints,
        addresses,
        ..
    } = runtime;
    let node = match host_address.is_empty() {
        true => or(
            subnet,
            "no subnet yet: it gets one when its agent has joined",
        )
        .to_owned(),
        false => format!(
            "{}, {host_address} on {}",
            or(subnet, "no subnet yet"),
            or(underlay_interface, "no interface")
        ),
    };
    let mut path = fast_path.state.clone();
    if !fast_path.attach_mode.is_empty() {
        path = format!("{path} ({})", fast_path.attach_mode);
    }
    if !fast_path.reason.is_empty() {
        path = format!("{path}: {}", fast_path.reason);
    }
    let overlay = match overlay_mtu {
        0 => "none yet".to_owned(),
        mtu => format!(
            "MTU {mtu}, UDP port {}, VNI {}",
            runtime.vxlan_port, runtime.vni
        ),
    };
    let mut reached = format!(
        "{} of {} reachable, {} by the fast path",
        peers.reachable, peers.total, peers.fast
    );
    if peers.suspect > 0 {
        reached = format!("{reached}, {} suspect", peers.suspect);
    }
    let leased = match addresses.capacity {
        0 => "not leased here".to_owned(),
        capacity => format!("{} of {capacity} leased", addresses.leased),
    };
    vec![
        line("Node", &node),
        line("Runtime", version),
        line("Fast path", &path),
        line("Overlay", &overlay),
        line("Peers", &reached),
        line("Containers", &format!("{endpoints}; addresses: {leased}")),
        line("Dropped", &dropped(&runtime.drops)),
    ]
}

fn lines_of_agent(agent: &Agent, now: u64) -> Vec<String> {
    let Agent {
        hostname, version, ..
    } = agent;
    let heard = match agent.heard_ms_ago {
        None => "not heard yet".to_owned(),
        Some(ago) => format!("heard {} ago", age(ago / 1000)),
    };
    let control = match agent.connected {
        true => format!("{}, {heard}", agent.control_plane),
        false => format!("{}, not reached, {heard}", agent.control_plane),
    };
    let Certificate { source, not_after } = &agent.certificate;
    let certificate = match not_after.map(|at| u64::try_from(at).unwrap_or_default()) {
        None => source.clone(),
        Some(at) if at < now => format!("{source}, expired {} ago", age(now - at)),
        Some(at) => format!("{source}, for {} more", age(at - now)),
    };
    vec![
        line("Agent", &format!("{version}, as {hostname}")),
        line("Control", &control),
        line("Certificate", &certificate),
    ]
}

/// The most frequent reason first.
fn dropped(drops: &BTreeMap<String, u64>) -> String {
    if drops.is_empty() {
        return "nothing".to_owned();
    }
    let mut reasons: Vec<_> = drops.iter().collect();
    reasons.sort_by(|a, b| b.1.cmp(a.1));
    let reasons: Vec<String> = reasons
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    reasons.join(", ")
}

#[cfg(test)]
mod tests;
