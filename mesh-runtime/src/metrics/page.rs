//! Pure: from what the loop tells to the page.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ipnet::Ipv4Net;
use mesh_layout::{DropReason, PassReason, PeerStats};
use mesh_metrics::{
    Scrape,
    catalog::{
        common,
        runtime::{
            DROPS, ENDPOINTS, FAST, FAST_PATH_ACTIVE, GENERATION, KERNEL, LAST_SYNC,
            LEASED_ADDRESSES, MOST_PEERS, OTHER_PEERS, OVERLAY_MTU, PASSES, PEER_DROPS,
            PEER_FAST_PATH, PEER_LAST_RECEIVE, PEER_RECEIVE_BYTES, PEER_RECEIVE_PACKETS,
            PEER_TRANSMIT_BYTES, PEER_TRANSMIT_PACKETS, PEER_UP, PEERS, POOL_ADDRESSES,
        },
    },
};

use super::Measured;
use crate::{
    api::command::{FastPathView, PeerShown},
    ebpf::FastPathReport,
    wanted::peer::Peer,
};

/// The page of what was measured `now`.
pub(super) fn page(measured: &Measured, now: SystemTime) -> Scrape {
    let mut scrape = common::begin(
        "quilt-runtime",
        env!("CARGO_PKG_VERSION"),
        &measured.problems,
    );
    show_peers(&mut scrape, &measured.list.peers, now);
    show_fast_path(&mut scrape, &measured.fast_path);
    scrape.set(&ENDPOINTS, &[], count(measured.endpoints));
    if let Some(usage) = &measured.addresses {
        scrape.set(&LEASED_ADDRESSES, &[], usage.leased.into());
        scrape.set(&POOL_ADDRESSES, &[], usage.capacity.into());
    }
    scrape.set(&OVERLAY_MTU, &[], measured.overlay_mtu.into());
    scrape.set(&GENERATION, &[], measured.list.generation);
    if let Some(sync) = measured.last_sync {
        scrape.set_fraction(&LAST_SYNC, &[], unix_seconds(sync));
    }
    measured.tally.repairs.show(&mut scrape);
    measured.tally.rounds.show(&mut scrape);
    scrape
}

fn show_fast_path(scrape: &mut Scrape, view: &FastPathView) {
    let (active, report) = match view {
        FastPathView::Active(report) => (true, Some(report)),
        FastPathView::Off(report) | FastPathView::Waiting { report, .. } => {
            (false, report.as_ref())
        }
        FastPathView::Unavailable(_) => (false, None),
    };
    let mode = match (view, report) {
        (FastPathView::Off(_), _) => "off",
        (_, Some(report)) => report.attach_mode,
        (_, None) => "none",
    };
    scrape.set(&FAST_PATH_ACTIVE, &[mode], active.into());
    let Some(report) = report else { return };
    let FastPathReport { drops, passes, .. } = &**report;
    let of = |counts: &BTreeMap<&str, u64>, name| counts.get(name).copied().unwrap_or_default();
    // Also those that have not occurred: a series that begins with its first packet shows no increase.
    for name in DropReason::ALL.iter().map(|reason| reason.name()) {
        scrape.set(&DROPS, &[name], of(drops, name));
    }
    for name in PassReason::ALL.iter().map(|reason| reason.name()) {
        scrape.set(&PASSES, &[name], of(passes, name));
    }
}

type Shown = BTreeMap<Ipv4Net, (Peer, PeerShown)>;

fn show_peers(scrape: &mut Scrape, peers: &Shown, now: SystemTime) {
    scrape.set(&PEERS, &[], count(peers.len()));
    let labels = labels(peers);
    for (label, (peer, shown)) in labels.iter().zip(peers.values()).take(MOST_PEERS) {
        let reached = shown.kernel_path_ready || shown.fast_path_ready;
        scrape.set(&PEER_UP, &[label], (reached && !peer.suspect).into());
        scrape.set(&PEER_FAST_PATH, &[label], shown.fast_path_ready.into());
        if let Some(age) = shown.counters.last_packet_age_ms {
            let at = now.checked_sub(Duration::from_millis(age)).unwrap_or(now);
            scrape.set_fraction(&PEER_LAST_RECEIVE, &[label], unix_seconds(at));
        }
        show_traffic(scrape, label, &shown.counters.stats);
    }
    if peers.len() > MOST_PEERS {
        let rest = peers.values().skip(MOST_PEERS);
        let sum = rest.fold(PeerStats::default(), |sum, (_, shown)| {
            plus(&sum, &shown.counters.stats)
        });
        show_traffic(scrape, OTHER_PEERS, &sum);
    }
}

fn show_traffic(scrape: &mut Scrape, peer: &str, stats: &PeerStats) {
    for (metric, fast, kernel) in [
        (&PEER_TRANSMIT_BYTES, stats.tx_bytes, stats.kernel_tx_bytes),
        (
            &PEER_TRANSMIT_PACKETS,
            stats.tx_packets,
            stats.kernel_tx_packets,
        ),
        (&PEER_RECEIVE_BYTES, stats.rx_bytes, stats.kernel_rx_bytes),
        (
            &PEER_RECEIVE_PACKETS,
            stats.rx_packets,
            stats.kernel_rx_packets,
        ),
    ] {
        scrape.set(metric, &[peer, FAST], fast);
        scrape.set(metric, &[peer, KERNEL], kernel);
    }
    scrape.set(&PEER_DROPS, &[peer], stats.drops);
}

/// What the peers are called, in the order of their subnets: by their host names, or by their subnets where several share
/// one, or it is none or stands for others.
fn labels(peers: &Shown) -> Vec<String> {
    let mut shared: BTreeMap<&str, usize> = BTreeMap::new();
    for (peer, _) in peers.values() {
        *shared.entry(&peer.hostname).or_default() += 1;
    }
    let label = |(subnet, (peer, _)): (&Ipv4Net, &(Peer, PeerShown))| {
        let name = peer.hostname.as_str();
        let is_own = shared.get(name) == Some(&1);
        match is_own && !name.is_empty() && name != OTHER_PEERS {
            true => name.to_owned(),
            false => subnet.to_string(),
        }
    };
    peers.iter().map(label).collect()
}

fn plus(sum: &PeerStats, other: &PeerStats) -> PeerStats {
    PeerStats {
        tx_packets: sum.tx_packets + other.tx_packets,
        tx_bytes: sum.tx_bytes + other.tx_bytes,
        rx_packets: sum.rx_packets + other.rx_packets,
        rx_bytes: sum.rx_bytes + other.rx_bytes,
        kernel_tx_packets: sum.kernel_tx_packets + other.kernel_tx_packets,
        kernel_tx_bytes: sum.kernel_tx_bytes + other.kernel_tx_bytes,
        kernel_rx_packets: sum.kernel_rx_packets + other.kernel_rx_packets,
        kernel_rx_bytes: sum.kernel_rx_bytes + other.kernel_rx_bytes,
        drops: sum.drops + other.drops,
        last_seen_ns: sum.last_seen_ns.max(other.last_seen_ns),
    }
}

/// In Unix seconds; a clock from before 1970 is taken for 1970.
fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{api::command::PeerList, ebpf::PeerCounters, reconcile::Tally};

    fn peer(hostname: &str, tx_bytes: u64) -> (Peer, PeerShown) {
        let peer = Peer {
            address: Ipv4Addr::new(192, 0, 2, 1),
            hostname: hostname.to_owned(),
            suspect: false,
            mtu: None,
        };
        let stats = PeerStats {
            tx_bytes,
            kernel_rx_packets: 3,
            drops: 1,
            ..PeerStats::default()
        };
        let shown = PeerShown {
            counters: PeerCounters {
                stats,
                last_packet_age_ms: Some(1500),
            },
            kernel_path_ready: true,
            fast_path_ready: false,
        };
        (peer, shown)
    }

    fn measured(peers: Vec<(Peer, PeerShown)>) -> Measured {
        let subnets = (1_u32..).map(|number| {
            let network = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + (number << 8));
            Ipv4Net::new_assert(network, 24)
        });
        Measured {
            list: PeerList {
                generation: 7,
                peers: subnets.zip(peers).collect(),
            },
            fast_path: FastPathView::Unavailable("no kernel".to_owned()),
            endpoints: 2,
            addresses: None,
            overlay_mtu: 1450,
            last_sync: None,
            problems: Vec::new(),
            tally: Tally::default(),
        }
    }

    fn lines(measured: &Measured) -> Vec<String> {
        let now = UNIX_EPOCH + Duration::from_millis(100_000);
        let text = page(measured, now).into_text().unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_peer_is_shown_by_its_host_name_with_what_it_and_this_node_sent() {
        let lines = lines(&measured(vec![peer("host2", 4711)]));
        for line in [
            r#"quilt_mesh_peer_transmit_bytes_total{peer="host2",path="fast"} 4711"#,
            r#"quilt_mesh_peer_receive_packets_total{peer="host2",path="kernel"} 3"#,
            r#"quilt_mesh_peer_drops_total{peer="host2"} 1"#,
            r#"quilt_mesh_peer_up{peer="host2"} 1"#,
            r#"quilt_mesh_peer_fast_path_ready{peer="host2"} 0"#,
            r#"quilt_mesh_peer_last_receive_timestamp_seconds{peer="host2"} 98.5"#,
            r#"quilt_mesh_fast_path_active{mode="none"} 0"#,
            "quilt_mesh_overlay_mtu_bytes 1450",
            "quilt_mesh_generation 7",
        ] {
            assert!(lines.iter().any(|it| it == line), "{line}: {lines:#?}");
        }
        // Nothing is known of these.
        for name in ["quilt_mesh_drops_total", "quilt_mesh_leased_addresses"] {
            assert!(!lines.iter().any(|it| it.contains(name)), "{name}");
        }
    }

    #[test]
    fn peers_that_share_a_name_or_have_none_are_shown_by_their_subnets() {
        let named = ["host2", "same", "same", "", "other"].map(|name| peer(name, 1));
        let lines = lines(&measured(named.to_vec()));
        let up: Vec<_> = lines
            .iter()
            .filter_map(|it| it.strip_prefix("quilt_mesh_peer_up"))
            .collect();
        let expected = [
            "host2",
            "10.0.2.0/24",
            "10.0.3.0/24",
            "10.0.4.0/24",
            "10.0.5.0/24",
        ];
        assert_eq!(up, expected.map(|peer| format!("{{peer=\"{peer}\"}} 1")));
    }

    #[test]
    fn a_peer_in_doubt_or_without_a_way_to_it_is_not_up() {
        let (mut suspect, shown) = peer("host2", 1);
        suspect.suspect = true;
        let (other, mut lost) = peer("host3", 1);
        lost.kernel_path_ready = false;
        let lines = lines(&measured(vec![(suspect, shown), (other, lost)]));
        for peer in ["host2", "host3"] {
            let line = format!("quilt_mesh_peer_up{{peer=\"{peer}\"}} 0");
            assert!(lines.contains(&line), "{lines:#?}");
        }
    }

    #[test]
    fn of_many_peers_the_rest_is_summed_and_nothing_is_lost() {
        let many: u32 = 5000;
        let peers = (1..=many).map(|number| peer(&format!("host{number}"), number.into()));
        let lines = lines(&measured(peers.collect()));
        let sent: Vec<(&str, u64)> = lines
            .iter()
            .filter_map(|it| it.strip_prefix("quilt_mesh_peer_transmit_bytes_total"))
            .filter(|it| it.contains("path=\"fast\""))
            .filter_map(|it| it.rsplit_once(' '))
            .map(|(labels, value)| (labels, value.parse().unwrap()))
            .collect();
        assert_eq!(sent.len(), MOST_PEERS + 1);
        let total: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(total, u64::from(many) * (u64::from(many) + 1) / 2);
        assert_eq!(
            sent.iter().filter(|it| it.0.contains("\"other\"")).count(),
            1
        );
        assert!(lines.contains(&"quilt_mesh_peers 5000".to_owned()));
        assert!(lines.len() < 20 * MOST_PEERS, "{}", lines.len());
    }
}
