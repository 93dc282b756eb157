//! `meshctl monitor`.

use std::{
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use mesh_client::{
    ClientError, inspect,
    mesh::{
        MonitorEvent, MonitorRequest,
        monitor_event::{Path as PacketPath, Verdict},
    },
};
use serde_json::json;
use tokio::time::Instant;

use crate::moment::Moment;

/// What becomes of packets on this node.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Monitor {
    /// Drops alone.
    #[arg(long)]
    drops: bool,
    /// Packets from and to one peer alone: its host's name, subnet, underlay address, or an address in its subnet.
    #[arg(long, value_name = "PEER", default_value_t, hide_default_value = true)]
    peer: String,
    /// Go on until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// How long to look, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, conflicts_with = "follow", value_parser = seconds)]
    seconds: f64,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

/// A number of seconds that is neither nothing nor more than a day.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(seconds),
        _ => Err(format!(
            "{text:?} is no number of seconds above 0 and up to 86400"
        )),
    }
}

/// Prints what comes.
pub(crate) async fn monitor(socket: &Path, options: Monitor) -> anyhow::Result<()> {
    let request = MonitorRequest {
        drops_only: options.drops,
        peer: options.peer.clone(),
    };
    let mut client = inspect(socket).await?;
    let answer = client.monitor(request).await.map_err(ClientError::from)?;
    let mut answers = answer.into_inner();
    let ends = (!options.follow).then(|| Instant::now() + Duration::from_secs_f64(options.seconds));
    let mut printer = Printer {
        json: options.json,
        out: io::stdout(),
        shown: 0,
    };
    if !printer.begin()? {
        return Ok(());
    }
    let (mut not_sampled, mut lost) = (0, 0);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let response = tokio::select! {
            response = answers.message() => response.map_err(ClientError::from)?,
            () = until(ends) => break,
            interrupted = &mut interrupted => {
                interrupted.context("cannot hear Ctrl-C")?;
                break;
            }
        };
        let Some(response) = response else {
            eprintln!("meshctl: the runtime ends");
            break;
        };
        for note in &response.notes {
            eprintln!("meshctl: {note}");
        }
        for event in &response.events {
            if !printer.print(event)? {
                return Ok(());
            }
        }
        let missed = (response.not_sampled, response.lost);
        if missed != (not_sampled, lost) {
            (not_sampled, lost) = missed;
            if !printer.missed(not_sampled, lost)? {
                return Ok(());
            }
        }
    }
    eprintln!("{}", summary(printer.shown, not_sampled, lost));
    Ok(())
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

fn summary(shown: u64, not_sampled: u64, lost: u64) -> String {
    let more = match (not_sampled, lost) {
        (0, 0) => "none was missed".to_owned(),
        (not_sampled, lost) => format!(
            "{not_sampled} more packets were seen and not told of (at most 1000 a second are), {lost} events were lost"
        ),
    };
    format!("{shown} events; {more}")
}

struct Printer {
    json: bool,
    out: io::Stdout,
    shown: u64,
}

impl Printer {
    fn begin(&mut self) -> anyhow::Result<bool> {
        match self.json {
            true => Ok(true),
            false => self.line(&columns(
                [
                    "TIME (UTC)",
                    "VERDICT",
                    "SRC",
                    "DST",
                    "PROTO",
                    "LEN",
                    "PATH",
                ]
                .map(str::to_owned),
                "REASON",
            )),
        }
    }

    fn print(&mut self, event: &MonitorEvent) -> anyhow::Result<bool> {
        self.shown += 1;
        match self.json {
            true => self.line(&document(event).to_string()),
            false => self.line(&row(event)),
        }
    }

    /// For machines alone: people are told at the end.
    fn missed(&mut self, not_sampled: u64, lost: u64) -> anyhow::Result<bool> {
        match self.json {
            true => self.line(&json!({"not_sampled": not_sampled, "lost": lost}).to_string()),
            false => Ok(true),
        }
    }

    /// Prints a line at once. Returns whether anybody still reads.
    fn line(&mut self, line: &str) -> anyhow::Result<bool> {
        let written = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("cannot write to standard output"),
        }
    }
}

fn columns([time, verdict, from, to, protocol, length, path]: [String; 7], reason: &str) -> String {
    let line = format!(
        "{time:12}  {verdict:9}  {from:21}  {to:21}  {protocol:5}  {length:>5}  {path:6}  {reason}"
    );
    line.trim_end().to_owned()
}

fn row(event: &MonitorEvent) -> String {
    let or_dash = |text: String| match text.is_empty() {
        true => "-".to_owned(),
        false => text,
    };
    let length = match event.length {
        0 => "-".to_owned(),
        length => length.to_string(),
    };
    columns(
        [
            Moment::of(event.time_ns).time(),
            verdict(event).to_owned(),
            or_dash(end(&event.source, event.source_port)),
            or_dash(end(&event.destination, event.destination_port)),
            or_dash(event.protocol.clone()),
            length,
            path(event).to_owned(),
        ],
        &reason(event),
    )
}

/// An address with its port, where it has one.
fn end(address: &str, port: u32) -> String {
    match port {
        0 => address.to_owned(),
        port => format!("{address}:{port}"),
    }
}

fn verdict(event: &MonitorEvent) -> &'static str {
    match event.verdict() {
        Verdict::Forwarded => "forwarded",
        Verdict::Delivered => "delivered",
        Verdict::Passed => "passed",
        Verdict::Dropped => "dropped",
        Verdict::Unspecified => "unknown",
    }
}

fn path(event: &MonitorEvent) -> &'static str {
    match event.path() {
        PacketPath::Fast => "fast",
        PacketPath::Kernel => "kernel",
        PacketPath::Unspecified => "unknown",
    }
}

fn reason(event: &MonitorEvent) -> String {
    if event.reason == "rule" {
        let packets = match event.packets {
            1 => "1 packet".to_owned(),
            packets => format!("{packets} packets"),
        };
        return format!("{packets} by rule of {}: {}", event.program, event.rule);
    }
    match event.verdict() {
        // Who sent it is not who it says it is.
        Verdict::Dropped if !event.outer_source.is_empty() => {
            format!("{} from {}", event.reason, event.outer_source)
        }
        _ => event.reason.clone(),
    }
}

fn document(event: &MonitorEvent) -> serde_json::Value {
    json!({
        "time": Moment::of(event.time_ns).to_string(),
        "verdict": verdict(event),
        "path": path(event),
        "reason": event.reason,
        "program": event.program,
        "peer": event.peer,
        "peer_name": event.peer_name,
        "outer_source": event.outer_source,
        "outer_destination": event.outer_destination,
        "source": event.source,
        "source_port": event.source_port,
        "destination": event.destination,
        "destination_port": event.destination_port,
        "protocol": event.protocol,
        "vni": event.vni,
        "length": event.length,
        "interface": event.interface,
        "packets": event.packets,
        "rule": event.rule,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> MonitorEvent {
        MonitorEvent {
            time_ns: 1_795_000_000_123_456_789,
            verdict: Verdict::Dropped.into(),
            path: PacketPath::Fast.into(),
            reason: "unknown_vtep".to_owned(),
            program: "decapsulate".to_owned(),
            outer_source: "192.0.2.9".to_owned(),
            source: "10.42.2.5".to_owned(),
            source_port: 4444,
            destination: "10.42.1.5".to_owned(),
            destination_port: 80,
            protocol: "tcp".to_owned(),
            length: 60,
            packets: 1,
            ..MonitorEvent::default()
        }
    }

    #[test]
    fn a_line_says_what_became_of_a_packet_and_why() {
        assert_eq!(
            row(&event()),
            "11:06:40.123  dropped    10.42.2.5:4444         10.42.1.5:80           tcp       60  fast    \
             unknown_vtep from 192.0.2.9"
        );
    }

    #[test]
    fn what_a_rule_dropped_has_no_addresses_and_a_number() {
        let event = MonitorEvent {
            reason: "rule".to_owned(),
            program: "inet quilt_mesh routed".to_owned(),
            rule: "ip saddr 10.42.0.0/16".to_owned(),
            packets: 3,
            path: PacketPath::Kernel.into(),
            verdict: Verdict::Dropped.into(),
            ..MonitorEvent::default()
        };
        let row = row(&event);
        assert!(
            row.ends_with(
                "kernel  3 packets by rule of inet quilt_mesh routed: ip saddr 10.42.0.0/16"
            ),
            "{row}"
        );
    }

    #[test]
    fn a_machine_gets_every_field_and_the_whole_time() {
        let document = document(&event());
        assert_eq!(document["time"], "2026-11-18T11:06:40.123456789Z");
        assert_eq!(document["reason"], "unknown_vtep");
        assert_eq!(document["destination_port"], 80);
    }

    #[test]
    fn what_is_no_time_to_look_is_refused() {
        for text in ["0", "-1", "nan", "inf", "x", "86401"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert_eq!(seconds("0.5"), Ok(0.5));
    }
}
