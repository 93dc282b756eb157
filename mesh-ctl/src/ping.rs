//! `meshctl ping`.

use std::{path::Path, time::Duration};

use mesh_client::{
    Pinger,
    mesh::{
        CarriedBy, PathFinding, PathLeg, PathResult, PathSubject, PingRequest, Pong,
        ping_event::Event,
    },
};
use serde_json::{Value, json};

use crate::{Verdict, output::say};

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

/// Whom it is about: `host2 (10.42.2.254)`.
fn name(subject: &PathSubject) -> String {
    match subject.hostname.as_str() {
        "" => subject.address.clone(),
        hostname => format!("{hostname} ({})", subject.address),
    }
}

fn line(subject: &PathSubject, pong: &Pong, timeout: Millis) -> String {
    let name = name(subject);
    if !pong.error.is_empty() {
        return format!("cannot ask {name}: {}", pong.error);
    }
    match pong.answered {
        true => format!(
            "pong from {name} by {} in {}",
            way(pong.out(), pong.r#in()),
            time(pong.round_trip_ns)
        ),
        false => format!(
            "nothing from {name} within {} s",
            Duration::from_millis(timeout.0.into()).as_secs_f64()
        ),
    }
}

/// What carried question and answer.
fn way(out: CarriedBy, back: CarriedBy) -> String {
    match out == back {
        true => path(out).to_owned(),
        false => format!("{} and back by {}", path(out), path(back)),
    }
}

fn path(carried_by: CarriedBy) -> &'static str {
    match carried_by {
        CarriedBy::Unknown => "a way that is not known",
        CarriedBy::FastPath => "the fast path",
        CarriedBy::KernelPath => "the kernel path",
        CarriedBy::Both => "both paths",
        CarriedBy::Bridge => "this node's bridge",
    }
}

fn time(nanoseconds: u64) -> String {
    // Exact to the nanosecond for the next hundred days.
    format!("{:.2} ms", nanoseconds as f64 / 1e6)
}

fn summary(subject: &PathSubject, pongs: &[Pong], result: &PathResult) -> String {
    let answered = answered(pongs);
    let mut lines = vec![String::new()];
    let times = round_trips(pongs).map_or_else(String::new, |[min, median, max]| {
        format!(
            ", min {}, median {}, max {}",
            time(min),
            time(median),
            time(max)
        )
    });
    lines.push(format!(
        "{} of {} answered ({} % lost){times}",
        answered.len(),
        pongs.len(),
        (pongs.len() - answered.len()) * 100 / pongs.len().max(1),
    ));
    let local = subject.subnet.is_empty();
    let container = result.container.clone().unwrap_or_default();
    let kernel = result.kernel.clone().unwrap_or_default();
    let legs = match local {
        true => vec![("this node", &container)],
        false => vec![("as containers", &container), ("kernel path", &kernel)],
    };
    lines.extend(
        legs.into_iter()
            .map(|(name, leg)| format!("  {name:<14}{}", about(leg))),
    );
    if let Some(underlay) = &result.underlay {
        lines.push(format!(
            "  {:<14}{}",
            "underlay",
            about_underlay(subject, underlay)
        ));
    }
    if !local {
        lines.push(format!("  {:<14}{}", "overlay MTU", mtu(result)));
    }
    let findings = result.findings.iter();
    lines.extend(findings.map(|it| format!("{}: {}", it.severity, told(it))));
    lines.join("\n")
}

fn told(finding: &PathFinding) -> String {
    format!(
        "{}: {}; {}",
        finding.observed, finding.breaks, finding.remedy
    )
}

fn about(leg: &PathLeg) -> String {
    if !leg.error.is_empty() {
        return format!("not asked: {}", leg.error);
    }
    if leg.answered == 0 {
        return "no answer".to_owned();
    }
    let largest = match leg.largest {
        0 => "no large packet passes with DF".to_owned(),
        bytes => format!("up to {bytes} bytes pass with DF"),
    };
    format!(
        "answers by {} in {}, {largest}",
        path(leg.carried_by()),
        time(leg.round_trip_median_ns)
    )
}

fn about_underlay(subject: &PathSubject, underlay: &mesh_client::mesh::Underlay) -> String {
    let host = &subject.host_address;
    let over = match underlay.interface.as_str() {
        "" => String::new(),
        interface => format!(" over {interface}"),
    };
    if !underlay.error.is_empty() && !underlay.answered {
        return format!("{host}{over} not asked: {}", underlay.error);
    }
    if !underlay.answered {
        return format!("{host}{over} does not answer");
    }
    let largest = match underlay.largest {
        0 => String::new(),
        bytes => format!(", up to {bytes} bytes pass with DF"),
    };
    format!(
        "{host}{over} answers in {}{largest}",
        time(underlay.round_trip_ns)
    )
}

fn mtu(result: &PathResult) -> String {
    match result.peer_mtu {
        0 => format!("{} here, the peer has not told", result.mtu),
        peer => format!("{} here, {peer} there", result.mtu),
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

fn word(carried_by: CarriedBy) -> &'static str {
    match carried_by {
        CarriedBy::Unknown => "unknown",
        CarriedBy::FastPath => "fast",
        CarriedBy::KernelPath => "kernel",
        CarriedBy::Both => "mixed",
        CarriedBy::Bridge => "bridge",
    }
}

/// The path of all that was answered.
fn path_of(pongs: &[Pong]) -> &'static str {
    let answered = pongs.iter().filter(|pong| pong.answered);
    let ways = answered.flat_map(|pong| [word(pong.out()), word(pong.r#in())]);
    let ways: std::collections::BTreeSet<&str> = ways.collect();
    match ways.iter().next() {
        None => "unknown",
        Some(_) if ways.contains("unknown") => "unknown",
        Some(way) if ways.len() == 1 => way,
        Some(_) => "mixed",
    }
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

fn document(subject: &PathSubject, pongs: &[Pong], result: &PathResult) -> Value {
    let none_if_zero = |value: u32| (value != 0).then_some(value);
    let none_if_empty = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let leg = |leg: &PathLeg| {
        let there = leg.answered > 0;
        json!({
            "sent": leg.sent,
            "answered": leg.answered,
            "round_trip_us": there.then(|| microseconds(leg.round_trip_median_ns)),
            "path": word(leg.carried_by()),
            "largest_with_df": none_if_zero(leg.largest),
            "error": none_if_empty(&leg.error),
        })
    };
    let each = pongs.iter().map(|pong| {
        json!({
            "sequence": pong.sequence,
            "answered": pong.answered,
            "round_trip_us": pong.answered.then(|| microseconds(pong.round_trip_ns)),
            "out": word(pong.out()),
            "in": word(pong.r#in()),
            "error": none_if_empty(&pong.error),
        })
    });
    let times = round_trips(pongs);
    json!({
        "target": subject.target,
        "address": subject.address,
        "hostname": none_if_empty(&subject.hostname),
        "subnet": none_if_empty(&subject.subnet),
        "host_address": none_if_empty(&subject.host_address),
        "source": subject.source,
        "probe_endpoint": subject.probe_endpoint,
        "ok": verdict(pongs, result) == Verdict::Fine,
        "sent": pongs.len(),
        "answered": answered(pongs).len(),
        "path": path_of(pongs),
        "round_trip_us": times.map(|[min, median, max]| json!({
            "min": microseconds(min),
            "median": microseconds(median),
            "max": microseconds(max),
        })),
        "pongs": each.collect::<Vec<_>>(),
        "as_containers": result.container.as_ref().map(leg),
        "kernel_path": result.kernel.as_ref().map(leg),
        "underlay": result.underlay.as_ref().map(|underlay| json!({
            "answered": underlay.answered,
            "round_trip_us": underlay.answered.then(|| microseconds(underlay.round_trip_ns)),
            "largest_with_df": none_if_zero(underlay.largest),
            "port_unserved": underlay.port_unserved,
            "interface": none_if_empty(&underlay.interface),
            "error": none_if_empty(&underlay.error),
        })),
        "without_fast_path": none_if_empty(&result.without_fast_path),
        "mtu": result.mtu,
        "peer_mtu": none_if_zero(result.peer_mtu),
        "findings": result.findings.iter().map(|finding| json!({
            "code": finding.code,
            "severity": finding.severity,
            "title": finding.title,
            "observed": finding.observed,
            "breaks": finding.breaks,
            "remedy": finding.remedy,
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pong(out: CarriedBy, back: CarriedBy, nanoseconds: u64) -> Pong {
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

    fn subject() -> PathSubject {
        PathSubject {
            target: "host2".to_owned(),
            address: "10.42.2.254".to_owned(),
            subnet: "10.42.2.0/24".to_owned(),
            hostname: "host2".to_owned(),
            host_address: "192.0.2.2".to_owned(),
            source: "10.42.1.254".to_owned(),
            probe_endpoint: true,
        }
    }

    #[test]
    fn each_answer_is_a_line_that_tells_path_and_time() {
        let line = |pong: &Pong| line(&subject(), pong, Millis(1000));
        let fast = pong(CarriedBy::FastPath, CarriedBy::FastPath, 210_000);
        assert_eq!(
            line(&fast),
            "pong from host2 (10.42.2.254) by the fast path in 0.21 ms"
        );
        let mixed = pong(CarriedBy::FastPath, CarriedBy::KernelPath, 1_000_000);
        assert_eq!(
            line(&mixed),
            "pong from host2 (10.42.2.254) by the fast path and back by the kernel path in 1.00 ms"
        );
        assert_eq!(
            line(&Pong::default()),
            "nothing from host2 (10.42.2.254) within 1 s"
        );
        let error = Pong {
            error: "Network is unreachable".to_owned(),
            ..Pong::default()
        };
        assert_eq!(
            line(&error),
            "cannot ask host2 (10.42.2.254): Network is unreachable"
        );
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

    #[test]
    fn the_path_of_many_answers_is_one_if_all_took_it() {
        use CarriedBy::{FastPath, KernelPath, Unknown};
        let fast = pong(FastPath, FastPath, 1);
        let kernel = pong(KernelPath, KernelPath, 1);
        assert_eq!(path_of(&[]), "unknown");
        assert_eq!(path_of(&[fast.clone(), Pong::default()]), "fast");
        assert_eq!(path_of(&[fast.clone(), kernel]), "mixed");
        assert_eq!(path_of(&[fast, pong(FastPath, Unknown, 1)]), "unknown");
    }
}
