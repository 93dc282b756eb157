//! `meshctl peers`: the other nodes, as this one reaches them.

mod probed;

use std::time::Duration;

use mesh_client::mesh::{PeerStatus, TrafficCounters};
use serde::Serialize;

use crate::{
    Verdict,
    output::{Table, age, bytes, say, say_json},
    place::{NoRuntime, Place},
};

/// The other nodes, and how this one reaches them.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Ask along the way to each, and tell its round trip and what is wrong; needs the runtime's socket.
    #[arg(long)]
    probe: bool,
    /// Print a document for a machine.
    #[arg(long)]
    json: bool,
}

/// Prints the peers.
pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Verdict> {
    if options.probe {
        return probed::run(place, options.json).await;
    }
    let mut inspector = place.runtime().await.map_err(NoRuntime::into_error)?;
    let peers: Vec<Peer> = inspector
        .peers()
        .await?
        .peers
        .into_iter()
        .map(peer)
        .collect();
    match options.json {
        true => say_json(&peers)?,
        false => say(table(&peers))?,
    }
    Ok(match peers.iter().all(|peer| peer.state == "up") {
        true => Verdict::Fine,
        false => Verdict::Wrong,
    })
}

/// A peer, as a document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Peer {
    pub(crate) hostname: String,
    pub(crate) subnet: String,
    pub(crate) host_address: String,
    /// `up`; `suspect`, whom the control plane calls down though packets arrive; `no route`, where the kernel does not show
    /// what leads there.
    pub(crate) state: String,
    /// `fast`, `kernel` or `none`.
    pub(crate) path: String,
    /// Largest packet that it takes, in bytes; absent where it has not told.
    pub(crate) mtu: Option<u32>,
    /// What was carried, by path.
    pub(crate) fast: Traffic,
    pub(crate) kernel: Traffic,
    /// Packets of the peer that guards dropped.
    pub(crate) dropped_packets: u64,
    /// Milliseconds since its last packet.
    pub(crate) last_packet_age_ms: Option<u64>,
}

/// What was carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Traffic {
    pub(crate) tx_packets: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
}

impl From<TrafficCounters> for Traffic {
    fn from(counters: TrafficCounters) -> Self {
        Self {
            tx_packets: counters.tx_packets,
            tx_bytes: counters.tx_bytes,
            rx_packets: counters.rx_packets,
            rx_bytes: counters.rx_bytes,
        }
    }
}

/// A peer as the runtime told it.
pub(crate) fn peer(told: PeerStatus) -> Peer {
    let peer = told.peer.unwrap_or_default();
    let state = match (told.kernel_path_ready, peer.suspect) {
        (false, _) => "no route",
        (true, true) => "suspect",
        (true, false) => "up",
    };
    let path = match (told.fast_path_ready, told.kernel_path_ready) {
        (true, _) => "fast",
        (false, true) => "kernel",
        (false, false) => "none",
    };
    Peer {
        hostname: peer.hostname,
        subnet: peer.subnet,
        host_address: peer.host_address,
        state: state.to_owned(),
        path: path.to_owned(),
        mtu: (peer.mtu > 0).then_some(peer.mtu),
        fast: told.fast_path.unwrap_or_default().into(),
        kernel: told.kernel_path.unwrap_or_default().into(),
        dropped_packets: told.dropped_packets,
        last_packet_age_ms: told.last_packet_age_ms,
    }
}

fn table(peers: &[Peer]) -> String {
    if peers.is_empty() {
        return "this node has no peers yet".to_owned();
    }
    let mut table = Table::new([
        "PEER", "ADDRESS", "SUBNET", "STATE", "PATH", "SENT", "RECEIVED", "DROPPED", "HEARD",
    ]);
    for peer in peers {
        let heard = peer.last_packet_age_ms.map(Duration::from_millis);
        let heard = heard.map(|ago| format!("{} ago", age(ago.as_secs())));
        table.row([
            peer.hostname.clone(),
            peer.host_address.clone(),
            peer.subnet.clone(),
            peer.state.clone(),
            peer.path.clone(),
            bytes(peer.fast.tx_bytes.saturating_add(peer.kernel.tx_bytes)),
            bytes(peer.fast.rx_bytes.saturating_add(peer.kernel.rx_bytes)),
            peer.dropped_packets.to_string(),
            heard.unwrap_or_else(|| "never".to_owned()),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use mesh_client::mesh;

    use super::*;
    use crate::output::held;

    fn told(hostname: &str, third: u8, ready: (bool, bool), suspect: bool) -> PeerStatus {
        let counters = TrafficCounters {
            tx_packets: 10,
            tx_bytes: 12_345,
            rx_packets: 5,
            rx_bytes: 999,
        };
        PeerStatus {
            peer: Some(mesh::Peer {
                subnet: format!("10.42.{third}.0/24"),
                host_address: format!("192.0.2.{third}"),
                hostname: hostname.to_owned(),
                suspect,
                mtu: 1450,
                ..mesh::Peer::default()
            }),
            fast_path: Some(counters),
            kernel_path: Some(counters),
            dropped_packets: 3,
            last_packet_age_ms: ready.0.then_some(61_000),
            kernel_path_ready: ready.0,
            fast_path_ready: ready.1,
        }
    }

    fn some() -> Vec<Peer> {
        [
            told("host2", 2, (true, true), false),
            told("host3", 3, (true, false), true),
            told("host4", 4, (false, false), false),
        ]
        .map(peer)
        .to_vec()
    }

    #[test]
    fn a_row_says_by_which_path_a_peer_is_reached_and_when_it_was_heard() {
        let table = table(&some());
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|it| it.split_whitespace().collect())
            .collect();
        assert_eq!(
            rows[1].join(" "),
            "host2 192.0.2.2 10.42.2.0/24 up fast 24 kB 1.9 kB 3 1 min ago"
        );
        assert_eq!(rows[2][3..5], ["suspect", "kernel"]);
        assert_eq!(rows[3][3..6], ["no", "route", "none"]);
        assert_eq!(rows[3].last(), Some(&"never"));
    }

    #[test]
    fn the_document_for_machines_is_as_it_was() {
        held::is_as_it_was("peers", &some()[..2].to_vec());
    }
}
