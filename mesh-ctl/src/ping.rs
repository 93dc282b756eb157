//! `meshctl ping`.

mod document;
mod text;

use std::path::Path;

use mesh_client::{
    Pinger,
    mesh::{PathResult, PathSubject, PingRequest, Pong, ping_event::Event},
};

use crate::{Verdict, output::say};
use document::document;
use text::{line, summary};

/// Asks a peer or an address of the overlay, and tells which path answered how fast, what does not come through and why.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Ping {
    /// A peer's host name, subnet or underlay address, or an address of the overlay, here or on another node.
    #[arg(value_name = "PEER|ADDRESS")]
    pub(crate) target: String,
    /// How often to ask.
    #[arg(long, short = 'c', value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) count: u32,
    /// Seconds between two questions, at least 0.1.
    #[arg(long, short = 'i', value_name = "SECONDS", default_value = "1", value_parser = seconds::<100, 60_000>)]
    pub(crate) interval: Millis,
    /// Length of the packets, in bytes of IPv4; up to this node's overlay MTU.
    #[arg(long, short = 's', value_name = "BYTES", default_value_t = 84, value_parser = clap::value_parser!(u32).range(44..=65_535))]
    pub(crate) size: u32,
    /// Seconds that each answer is waited for, at most 10.
    #[arg(long, short = 'W', value_name = "SECONDS", default_value = "1", value_parser = seconds::<10, 10_000>)]
    pub(crate) timeout: Millis,
    /// Print a document for a machine.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Millis(u32);

/// Seconds as a person writes them, between two bounds in milliseconds.
fn seconds<const LEAST: u32, const MOST: u32>(text: &str) -> Result<Millis, String> {
    let bounds = || {
        let [least, most] = [LEAST, MOST].map(|it| f64::from(it) / 1e3);
        format!("{text:?} is not a number of seconds between {least} and {most}")
    };
    let seconds: f64 = text.parse().map_err(|_| bounds())?;
    let millis = (seconds * 1e3).round();
    match (f64::from(LEAST)..=f64::from(MOST)).contains(&millis) {
        // Within bounds that are u32.
        true => Ok(Millis(millis as u32)),
        false => Err(bounds()),
    }
}

/// Asks, tells each answer as it comes, and then what is known of the way.
pub(crate) async fn ping(socket: &Path, options: Ping) -> anyhow::Result<Verdict> {
    let mut pinger = Pinger::connect(socket).await?;
    let request = PingRequest {
        target: options.target,
        count: options.count,
        interval_ms: options.interval.0,
        size: options.size,
        timeout_ms: options.timeout.0,
    };
    let mut pings = pinger.ping(request).await?;
    let mut subject = PathSubject::default();
    let mut pongs = Vec::new();
    while let Some(event) = pings.next().await? {
        match event {
            Event::Subject(it) => subject = it,
            Event::Pong(pong) => {
                if !options.json {
                    say(line(&subject, &pong, options.timeout))?;
                }
                pongs.push(pong);
            }
            Event::Result(result) => {
                if options.json {
                    say(format_args!("{:#}", document(&subject, &pongs, &result)))?;
                } else {
                    say(summary(&subject, &pongs, &result))?;
                }
                return Ok(verdict(&pongs, &result));
            }
        }
    }
    anyhow::bail!("the runtime ended before the ping did")
}

/// Fine is what was answered every time, and has nothing that keeps containers' packets from passing.
fn verdict(pongs: &[Pong], result: &PathResult) -> Verdict {
    let broken = result.findings.iter().any(|it| it.severity == "error");
    match pongs.iter().all(|pong| pong.answered) && !broken {
        true => Verdict::Fine,
        false => Verdict::Wrong,
    }
}

fn answered(pongs: &[Pong]) -> Vec<u64> {
    let answered = pongs.iter().filter(|pong| pong.answered);
    let mut times: Vec<u64> = answered.map(|pong| pong.round_trip_ns).collect();
    times.sort_unstable();
    times
}

/// The shortest, the median and the longest.
fn round_trips(pongs: &[Pong]) -> Option<[u64; 3]> {
    let times = answered(pongs);
    Some([
        *times.first()?,
        *times.get(times.len() / 2)?,
        *times.last()?,
    ])
}

#[cfg(test)]
mod tests {
    use mesh_client::mesh::{CarriedBy, PathFinding};

    use super::*;

    pub(super) fn pong(out: CarriedBy, back: CarriedBy, nanoseconds: u64) -> Pong {
        let mut pong = Pong {
            sequence: 1,
            answered: true,
            round_trip_ns: nanoseconds,
            ..Pong::default()
        };
        pong.set_out(out);
        pong.set_in(back);
        pong
    }

    #[test]
    fn seconds_are_taken_within_bounds() {
        let interval = seconds::<100, 60_000>;
        assert_eq!(interval("0.1"), Ok(Millis(100)));
        assert_eq!(interval("60"), Ok(Millis(60_000)));
        for bad in ["0.09", "61", "x", "-1", "NaN", "inf"] {
            assert!(
                interval(bad).unwrap_err().contains("between 0.1 and 60"),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_way_on_which_large_packets_vanish_is_not_fine_although_all_was_answered() {
        let pongs = [pong(CarriedBy::FastPath, CarriedBy::FastPath, 1)];
        let finding = |severity: &str| PathResult {
            findings: vec![PathFinding {
                severity: severity.to_owned(),
                ..PathFinding::default()
            }],
            ..PathResult::default()
        };
        assert_eq!(verdict(&pongs, &finding("error")), Verdict::Wrong);
        assert_eq!(verdict(&pongs, &finding("warning")), Verdict::Fine);
        assert_eq!(
            verdict(&[Pong::default()], &PathResult::default()),
            Verdict::Wrong
        );
    }
}
