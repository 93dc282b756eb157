//! The report for a person at a terminal of 100 columns.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

use crate::{
    kept::KeptCluster,
    report::{LostHost, PeerTraffic, PeersMap, Ping, Report, ReturnedHost, Transfer},
};

const WIDTH: u16 = 98;

const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// More of the map than this is for a pager.
const MAP_LINES: usize = 60;

/// The whole report as text, with colours if asked for.
pub(crate) fn render(report: &Report, colours: bool) -> String {
    let mut out = String::new();
    section(
        &mut out,
        "Nodes",
        (!report.nodes.is_empty()).then(|| nodes(report)),
    );
    section(
        &mut out,
        "Ping between containers: median round trip in µs, from the left to the top",
        (!report.pings.is_empty()).then(|| ping_matrix(&report.pings)),
    );
    section(&mut out, "TCP", report.transfer.as_ref().map(tcp));
    section(
        &mut out,
        "What each node carried to (tx) and from (rx) each peer",
        (!report.peers.is_empty()).then(|| peers(&report.peers)),
    );
    section(
        &mut out,
        "The peers map in the kernel",
        report.peers_map.as_ref().map(peers_map),
    );
    section(
        &mut out,
        "A host is lost",
        report.lost_host.as_ref().map(lost),
    );
    section(
        &mut out,
        "And comes back",
        report.returned_host.as_ref().map(returned),
    );
    section(&mut out, "Checks", Some(checks(report, colours)));
    section(
        &mut out,
        "The cluster is still running",
        report.kept.as_ref().map(kept),
    );
    out
}

fn section(out: &mut String, title: &str, body: Option<String>) {
    if let Some(body) = body {
        // Writing to a String does not fail.
        let _ = writeln!(out, "\n{title}\n{}", body.trim_end_matches('\n'));
    }
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(STYLE)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(header);
    table
}

/// The table's lines, indented like everything below a title.
fn text(table: &Table) -> String {
    table
        .lines()
        .map(|line| format!(" {}\n", line.trim_end()))
        .collect()
}

fn align_right(table: &mut Table, columns: impl IntoIterator<Item = usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn nodes(report: &Report) -> String {
    let mut table = table([
        "node",
        "address",
        "subnet",
        "status",
        "fast path",
        "containers",
    ]);
    for node in &report.nodes {
        let containers: Vec<String> = report
            .containers
            .iter()
            .filter(|container| container.host == node.name)
            .map(|container| container.address.to_string())
            .collect();
        let fast_path = match &node.fast_path[..] {
            "ACTIVE" => format!("active ({})", node.attach_mode),
            other => format!("{other}: {}", node.fast_path_reason),
        };
        table.add_row([
            node.name.clone(),
            node.address.to_string(),
            node.subnet.to_string(),
            node.status.clone(),
            fast_path,
            containers.join(" "),
        ]);
    }
    text(&table)
}

fn ping_matrix(pings: &[Ping]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for ping in pings {
        if !names.contains(&ping.from.as_str()) {
            names.push(&ping.from);
        }
    }
    // A matrix of many containers does not fit on a terminal: one line per sender then.
    if names.len() > 8 {
        return ping_lines(pings, &names);
    }
    let mut table = table([""]);
    let header = std::iter::once("").chain(names.iter().copied());
    table.set_header(header);
    for from in &names {
        let cell = |to: &&str| {
            if to == from {
                return "·".to_owned();
            }
            match pings
                .iter()
                .find(|ping| ping.from == *from && ping.to == **to)
            {
                Some(ping) => ping_cell(ping),
                None => "?".to_owned(),
            }
        };
        table.add_row(std::iter::once((*from).to_owned()).chain(names.iter().map(cell)));
    }
    align_right(&mut table, 1..=names.len());
    text(&table)
}

fn ping_lines(pings: &[Ping], names: &[&str]) -> String {
    let mut table = table(["from", "answered by", "median", "slowest"]);
    for from in names {
        let mine: Vec<&Ping> = pings.iter().filter(|ping| ping.from == *from).collect();
        let mut times: Vec<f64> = mine.iter().filter_map(|ping| ping.median_us).collect();
        times.sort_by(f64::total_cmp);
        let time = |at: usize| {
            times
                .get(at)
                .map_or("-".to_owned(), |time| format!("{time:.0}"))
        };
        let answered = mine.iter().filter(|ping| ping.is_complete()).count();
        table.add_row([
            (*from).to_owned(),
            format!("{answered} of {}", mine.len()),
            time(times.len() / 2),
            time(times.len().saturating_sub(1)),
        ]);
    }
    align_right(&mut table, 1..=3);
    text(&table)
}

fn ping_cell(ping: &Ping) -> String {
    match (ping.is_complete(), ping.median_us) {
        (true, Some(median)) => format!("{median:.0}"),
        _ => format!("{}/{}", ping.received, ping.sent),
    }
}

fn tcp(transfer: &Transfer) -> String {
    let verdict = match transfer.sent_sha256 == transfer.received_sha256 {
        true => "the same on both sides".to_owned(),
        false => format!("but received {}", transfer.received_sha256),
    };
    format!(
        "  {} → {}: {} in {:.2} s, {:.2} Gbit/s\n  SHA-256 {} {verdict}\n",
        transfer.from,
        transfer.to,
        bytes(transfer.bytes as u64),
        transfer.seconds,
        transfer.gigabits_per_second,
        shortened(&transfer.sent_sha256),
    )
}

fn shortened(sum: &str) -> String {
    match sum.len() {
        64 => format!("{}…{}", &sum[..16], &sum[56..]),
        _ => sum.to_owned(),
    }
}

fn peers(peers: &[PeerTraffic]) -> String {
    let mut table = table([
        "node",
        "peer",
        "tx packets",
        "tx bytes",
        "rx packets",
        "rx bytes",
        "drops",
        "path",
    ]);
    for peer in peers {
        let (fast, kernel) = (peer.carried.fast_path, peer.carried.kernel_path);
        let path = match peer.carried.fast_per_mille() {
            None => "-".to_owned(),
            Some(1000) => "eBPF".to_owned(),
            Some(0) => "kernel".to_owned(),
            Some(share) => format!("eBPF {}.{} %", share / 10, share % 10),
        };
        table.add_row([
            peer.node.clone(),
            format!("{} {}", peer.peer, peer.subnet),
            (fast.tx_packets + kernel.tx_packets).to_string(),
            bytes(fast.tx_bytes + kernel.tx_bytes),
            (fast.rx_packets + kernel.rx_packets).to_string(),
            bytes(fast.rx_bytes + kernel.rx_bytes),
            peer.dropped_packets.to_string(),
            path,
        ]);
    }
    align_right(&mut table, 2..=6);
    text(&table)
}

fn peers_map(map: &PeersMap) -> String {
    let lines: Vec<&str> = map.output.lines().collect();
    let mut text = format!("  {}# {}\n", map.node, map.command);
    for line in lines.iter().take(MAP_LINES) {
        let _ = writeln!(text, "  {line}");
    }
    if let Some(more) = lines.len().checked_sub(MAP_LINES).filter(|more| *more > 0) {
        let _ = writeln!(text, "  … and {more} lines more");
    }
    text
}

fn lost(lost: &LostHost) -> String {
    let mut text = format!(
        "  {} was unplugged and its processes killed; {} was its subnet.\n",
        lost.name, lost.subnet
    );
    let when = |time: Option<f64>| match time {
        Some(seconds) => format!("gone after {seconds:.1} s"),
        None => "still there".to_owned(),
    };
    let mut table = table(["node", "route in the kernel", "entry in the peers map"]);
    for witness in &lost.witnesses {
        table.add_row([
            witness.name.clone(),
            when(witness.route_gone_after),
            when(witness.map_entry_gone_after),
        ]);
    }
    text.push_str(&self::text(&table));
    text
}

fn returned(back: &ReturnedHost) -> String {
    let answered = back.pings.iter().filter(|ping| ping.is_complete()).count();
    let mut text = format!(
        "  {} was plugged in and started. After {:.1} s all others had it as a peer, with {}\n  \
         (before: {}). {answered} of {} pairs of its containers with others ping each other.\n  \
         What was carried for that:\n",
        back.name,
        back.seconds,
        back.subnet_after,
        back.subnet_before,
        back.pings.len()
    );
    if !back.peers.is_empty() {
        text.push_str(&peers(&back.peers));
    }
    text
}

fn checks(report: &Report, colours: bool) -> String {
    let paint = |text: &str, code: &str| match colours {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    };
    let mut text = String::new();
    let width = report
        .checks
        .iter()
        .map(|check| check.what.chars().count())
        .max()
        .unwrap_or(0);
    for check in &report.checks {
        let verdict = match check.ok {
            true => paint("ok    ", "32"),
            false => paint("FAILED", "1;31"),
        };
        let _ = writeln!(text, "  {verdict}  {:width$}  {}", check.what, check.seen);
    }
    if let Some(error) = &report.error {
        let _ = writeln!(
            text,
            "\n  {} {error}",
            paint("The run ended early:", "1;31")
        );
    }
    let held = report.checks.iter().filter(|check| check.ok).count();
    let summary = format!(
        "{held} of {} held, {:.0} s",
        report.checks.len(),
        report.seconds
    );
    let _ = match report.ok {
        true => writeln!(text, "\n  {}", paint(&summary, "32")),
        false => writeln!(text, "\n  {}", paint(&summary, "1;31")),
    };
    text
}

fn kept(kept: &KeptCluster) -> String {
    let mut text = format!("  cluster {}, files in {}\n\n", kept.name, kept.directory);
    for place in &kept.enter {
        let _ = writeln!(text, "  {:<10} {}", place.name, place.command);
    }
    for hint in &kept.commands {
        let _ = writeln!(text, "\n  {}:\n    {}", hint.what, hint.command);
    }
    let _ = writeln!(text, "\n  remove it:\n    {}", kept.remove);
    text
}

/// Bytes with a decimal unit.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}
