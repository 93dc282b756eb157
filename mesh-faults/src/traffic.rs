//! Traffic that every fault happens under: numbered datagrams between all pairs of hosts in
//! both directions, and TCP connections between some.

use std::time::Duration;

use crate::pace::Pace;
use anyhow::Context as _;
use mesh_testbed::{
    Container, Deadline, Outage, TcpFlow, TcpFlowOptions, TcpFlowReport, UdpFlow, UdpFlowOptions,
};

/// Datagrams per second of each flow.
pub(crate) const RATE: u32 = 1000;

/// How long a datagram may be under way before it counts as lost.
const DRAIN: Duration = Duration::from_millis(300);

/// From and to which containers datagrams go, by index: all pairs.
const UDP: [(usize, usize); 6] = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];
/// From and to which containers connections go.
const TCP: [(usize, usize); 3] = [(0, 1), (2, 0), (1, 2)];

/// Traffic under way. Dropping it ends it.
pub(crate) struct Traffic {
    udp: Vec<(Pair, UdpFlow)>,
    tcp: Vec<(Pair, TcpFlow)>,
}

/// Between which containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) names: String,
    /// Whether one of them is on the host that things happen to.
    pub(crate) of_victim: bool,
}

impl Pair {
    fn of(containers: &[Container], (from, to): (usize, usize)) -> Self {
        Self {
            names: format!("{} → {}", containers[from].name(), containers[to].name()),
            of_victim: from == 0 || to == 0,
        }
    }
}

/// What became of the datagrams of one pair.
#[derive(Clone, Debug)]
pub(crate) struct FlowFate {
    pub(crate) pair: Pair,
    /// Handed to the kernel, or refused by it.
    pub(crate) sent: u64,
    pub(crate) outages: Vec<Outage>,
    pub(crate) corrupted: u64,
    /// Arrivals behind one with a higher number.
    pub(crate) reordered: u64,
    pub(crate) duplicates: u64,
}

/// What became of everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fates {
    pub(crate) flows: Vec<FlowFate>,
    pub(crate) connections: Vec<(Pair, TcpFlowReport)>,
}

impl Traffic {
    /// Starts all flows and waits until each has delivered.
    pub(crate) async fn start(containers: &[Container], pace: Pace) -> anyhow::Result<Self> {
        let options = UdpFlowOptions {
            rate: pace.rate(RATE),
            drain: pace.time(DRAIN),
            ..UdpFlowOptions::default()
        };
        let mut traffic = Self {
            udp: Vec::new(),
            tcp: Vec::new(),
        };
        let connection = TcpFlowOptions::default();
        let connection = TcpFlowOptions {
            interval: pace.time(connection.interval),
            ..connection
        };
        for ends in TCP {
            let (from, to) = (&containers[ends.0], &containers[ends.1]);
            let flow = TcpFlow::start(
                from.netns(),
                to.netns(),
                to.address(),
                connection,
                pace.time(Duration::from_secs(5)),
            );
            traffic.tcp.push((Pair::of(containers, ends), flow.await?));
        }
        for ends in UDP {
            let (from, to) = (&containers[ends.0], &containers[ends.1]);
            let flow = UdpFlow::start(from.netns(), to.netns(), to.address(), options)?;
            traffic.udp.push((Pair::of(containers, ends), flow));
        }
        traffic
            .flowing(pace.time(Duration::from_secs(5)))
            .await
            .context("before the fault")?;
        Ok(traffic)
    }

    /// Waits until every flow has delivered a datagram that was sent after this call.
    pub(crate) async fn flowing(&self, within: Duration) -> anyhow::Result<()> {
        let goals: Vec<u64> = self.udp.iter().map(|(_, flow)| flow.sent()).collect();
        let deadline = Deadline::after(within);
        loop {
            let stalled: Vec<&str> = self
                .udp
                .iter()
                .zip(&goals)
                .filter(|((_, flow), goal)| flow.arrived() <= **goal)
                .map(|((pair, _), _)| pair.names.as_str())
                .collect();
            if stalled.is_empty() {
                return Ok(());
            }
            if deadline.pause().await.is_err() {
                anyhow::bail!(
                    "nothing arrives within {:.1} s: {}",
                    within.as_secs_f64(),
                    stalled.join(", ")
                );
            }
        }
    }

    /// Waits until every flow has sent so many datagrams more.
    pub(crate) async fn sent_more(&self, datagrams: u64, within: Duration) -> anyhow::Result<()> {
        let goals: Vec<u64> = self.udp.iter().map(|(_, flow)| flow.sent()).collect();
        let deadline = Deadline::after(within);
        let sent = |((_, flow), goal): (&(Pair, UdpFlow), &u64)| flow.sent() >= goal + datagrams;
        while !self.udp.iter().zip(&goals).all(sent) {
            if deadline.pause().await.is_err() {
                anyhow::bail!("{datagrams} datagrams are not sent in {within:?}");
            }
        }
        Ok(())
    }

    /// Ends all flows and says what became of every datagram and connection.
    pub(crate) async fn stop(self, tcp_patience: Duration) -> anyhow::Result<Fates> {
        let connections = self
            .tcp
            .into_iter()
            .map(|(pair, flow)| async move { anyhow::Ok((pair, flow.stop(tcp_patience).await?)) });
        let flows = self.udp.into_iter().map(|(pair, flow)| async move {
            let report = flow.stop().await?;
            anyhow::Ok(FlowFate {
                pair,
                sent: report.sent + report.refused,
                outages: report.outages,
                corrupted: report.corrupted,
                reordered: report.reordered,
                duplicates: report.duplicates,
            })
        });
        let (connections, flows) = futures_util::future::try_join(
            futures_util::future::try_join_all(connections),
            futures_util::future::try_join_all(flows),
        )
        .await?;
        Ok(Fates { flows, connections })
    }
}
