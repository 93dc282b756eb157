//! What is measured, and the rounds in which it is.

use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::{
    statistics::Spread,
    topology::{Topology, bed::Bed},
    traffic::{Window, bulk, cpus::Cpus, flood, request_response},
};

/// The MTU of most networks.
pub(crate) const MTU: u32 = 1500;
/// Jumbo frames, as far as every network card has them.
pub(crate) const JUMBO_MTU: u32 = 9000;
/// How many pairs of containers "many" is.
pub(crate) const MANY: usize = 8;

/// One quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub(crate) enum Measure {
    /// Small datagrams per second that arrive.
    PacketRate { pairs: usize },
    /// The median time of a request and its response.
    ResponseP50 { one_cpu: bool },
    /// What 99 of 100 exchanges do not exceed.
    ResponseP99 { one_cpu: bool },
    /// TCP's throughput.
    Bulk { pairs: usize, mtu: u32 },
}

impl Measure {
    /// Every measure, in the order of the report.
    pub(crate) const ALL: [Self; 10] = [
        Self::PacketRate { pairs: 1 },
        Self::PacketRate { pairs: MANY },
        Self::ResponseP50 { one_cpu: true },
        Self::ResponseP99 { one_cpu: true },
        Self::ResponseP50 { one_cpu: false },
        Self::ResponseP99 { one_cpu: false },
        Self::Bulk { pairs: 1, mtu: MTU },
        Self::Bulk {
            pairs: MANY,
            mtu: MTU,
        },
        Self::Bulk {
            pairs: 1,
            mtu: JUMBO_MTU,
        },
        Self::Bulk {
            pairs: MANY,
            mtu: JUMBO_MTU,
        },
    ];

    /// For people.
    pub(crate) fn title(self) -> String {
        let pairs = |pairs| match pairs {
            1 => "1 container pair".to_owned(),
            more => format!("{more} container pairs"),
        };
        let ends = |one_cpu| match one_cpu {
            true => "both ends on one CPU",
            false => "a CPU for each end",
        };
        match self {
            Self::PacketRate { pairs: count } => format!("64-byte UDP, {}", pairs(count)),
            Self::ResponseP50 { one_cpu } => format!("UDP request/response p50, {}", ends(one_cpu)),
            Self::ResponseP99 { one_cpu } => format!("UDP request/response p99, {}", ends(one_cpu)),
            Self::Bulk { pairs: count, mtu } => {
                format!("TCP bulk, underlay MTU {mtu}, {}", pairs(count))
            }
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::PacketRate { .. } => "kpps",
            Self::ResponseP50 { .. } | Self::ResponseP99 { .. } => "µs",
            Self::Bulk { .. } => "Gbit/s",
        }
    }

    /// Whether more is better.
    pub(crate) fn is_rate(self) -> bool {
        !matches!(self, Self::ResponseP50 { .. } | Self::ResponseP99 { .. })
    }
}

/// What one measure showed.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) measure: Measure,
    /// One value per round for each topology.
    pub(crate) samples: Vec<(Topology, Vec<f64>)>,
}

impl Series {
    fn of(&self, topology: Topology) -> &[f64] {
        self.samples
            .iter()
            .find(|(other, _)| *other == topology)
            .map_or(&[], |(_, samples)| samples)
    }

    /// The values of a topology.
    pub(crate) fn spread(&self, topology: Topology) -> Option<Spread> {
        Spread::of(self.of(topology))
    }

    /// The ratio of two topologies, round by round.
    pub(crate) fn ratio(&self, topology: Topology, reference: Topology) -> Option<Spread> {
        Spread::of_ratio(self.of(topology), self.of(reference))
    }
}

/// How often and how long.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Schedule {
    pub(crate) rounds: usize,
    pub(crate) warm_up_ms: u64,
    pub(crate) measured_ms: u64,
}

impl Schedule {
    fn window(self) -> Window {
        Window {
            warm_up: Duration::from_millis(self.warm_up_ms),
            measured: Duration::from_millis(self.measured_ms),
        }
    }
}

/// A run of traffic, which may give several measures.
#[derive(Debug, Clone, Copy)]
enum Workload {
    Flood { pairs: usize },
    RequestResponse { one_cpu: bool },
    Bulk { pairs: usize, mtu: u32 },
}

impl Workload {
    /// What runs at an MTU of the underlay.
    fn at(mtu: u32) -> Vec<Self> {
        let bulk = [1, MANY].map(|pairs| Self::Bulk { pairs, mtu });
        match mtu {
            MTU => [
                Self::Flood { pairs: 1 },
                Self::Flood { pairs: MANY },
                Self::RequestResponse { one_cpu: true },
                Self::RequestResponse { one_cpu: false },
            ]
            .into_iter()
            .chain(bulk)
            .collect(),
            _ => bulk.to_vec(),
        }
    }

    fn run(self, bed: &Bed, cpus: &Cpus, window: Window) -> anyhow::Result<Vec<(Measure, f64)>> {
        Ok(match self {
            Self::Flood { pairs } => {
                let rate = flood::flood(&bed.paths(pairs), cpus, window)?;
                vec![(Measure::PacketRate { pairs }, rate / 1e3)]
            }
            Self::RequestResponse { one_cpu } => {
                let path = &bed.paths(1)[0];
                let times = request_response::exchange(path, cpus, one_cpu, window)?;
                vec![
                    (Measure::ResponseP50 { one_cpu }, times.p50),
                    (Measure::ResponseP99 { one_cpu }, times.p99),
                ]
            }
            Self::Bulk { pairs, mtu } => {
                let rate = bulk::transfer(&bed.paths(pairs), cpus, window)?;
                vec![(Measure::Bulk { pairs, mtu }, rate)]
            }
        })
    }
}

/// Runs every workload over every topology, in rounds. Within a round the topologies take
/// turns, and each round begins with another one, so that none always follows the same.
pub(crate) async fn rounds(
    beds: &[Bed],
    cpus: &Cpus,
    schedule: Schedule,
) -> anyhow::Result<Vec<Series>> {
    let mut series: Vec<Series> = Measure::ALL
        .iter()
        .map(|measure| Series {
            measure: *measure,
            samples: beds.iter().map(|bed| (bed.topology, Vec::new())).collect(),
        })
        .collect();
    for mtu in [MTU, JUMBO_MTU] {
        for bed in beds {
            let failed = || format!("{} at an MTU of {mtu}", bed.topology.name());
            bed.set_mtu(mtu).await.with_context(failed)?;
        }
        for round in 0..schedule.rounds {
            eprintln!("MTU {mtu}: round {} of {}", round + 1, schedule.rounds);
            for workload in Workload::at(mtu) {
                for turn in 0..beds.len() {
                    let index = (turn + round) % beds.len();
                    let bed = &beds[index];
                    // Blocks this thread: nothing else is to happen meanwhile.
                    let values = workload
                        .run(bed, cpus, schedule.window())
                        .with_context(|| format!("{workload:?} over {}", bed.topology.name()))?;
                    for (measure, value) in values {
                        for series in &mut series {
                            if series.measure == measure {
                                series.samples[index].1.push(value);
                            }
                        }
                    }
                }
            }
        }
    }
    for bed in beds {
        bed.check_fast_path().await?;
    }
    Ok(series)
}
