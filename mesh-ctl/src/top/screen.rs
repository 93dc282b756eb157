//! How rates are shown: on a terminal, or as text.

use ratatui::{
    Frame,
    layout::{Constraint, Layout},
    style::{Modifier, Style},
    text::Line,
    widgets::{Cell, Paragraph, Row, Table},
};

use super::rates::{Flow, Rates};
use crate::output::{self, printable};

/// Heads of the columns.
const HEAD: [&str; 9] = [
    "PEER",
    "STATE",
    "PATH",
    "SENT/S",
    "RECEIVED/S",
    "PACKETS OUT/S",
    "IN/S",
    "DROPPED/S",
    "FAST",
];

/// As text, for a pipe.
pub(super) fn text(rates: &Rates) -> String {
    let mut table = output::Table::new(HEAD);
    for row in rows(rates) {
        table.row(row);
    }
    let mut lines = vec![heading(rates), table.text()];
    lines.extend(drops(rates));
    lines.join("\n")
}

/// Draws them, from the `skip`th peer on.
pub(super) fn draw(frame: &mut Frame<'_>, rates: &Rates, skip: usize) {
    let drops = drops(rates);
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(u16::from(drops.is_some())),
        Constraint::Length(1),
    ]);
    let [top, middle, bottom, keys] = areas.areas(frame.area());
    let bold = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(Line::styled(heading(rates), bold), top);
    let rows = rows(rates).into_iter().skip(skip);
    let rows = rows.map(|row| Row::new(row.map(|cell| Cell::from(printable(&cell)))));
    let mut widths = [Constraint::Length(13); HEAD.len()];
    widths[0] = Constraint::Min(16);
    widths[1] = Constraint::Length(8);
    widths[2] = Constraint::Length(6);
    widths[8] = Constraint::Length(6);
    let table = Table::new(rows, widths).header(Row::new(HEAD).style(bold));
    frame.render_widget(table, middle);
    if let Some(drops) = drops {
        frame.render_widget(Paragraph::new(drops), bottom);
    }
    let dim = Style::new().add_modifier(Modifier::DIM);
    frame.render_widget(Line::styled("q ends, ↑ and ↓ move", dim), keys);
}

fn heading(rates: &Rates) -> String {
    let Flow {
        tx_bits,
        rx_bits,
        tx_packets,
        rx_packets,
        ..
    } = rates.total;
    format!(
        "{} peers: {} out, {} in, {:.0} and {:.0} packets/s, by the fast path {}",
        rates.peers.len(),
        bits(tx_bits),
        bits(rx_bits),
        tx_packets,
        rx_packets,
        share(rates.total.fast_share)
    )
}

fn rows(rates: &Rates) -> Vec<[String; HEAD.len()]> {
    let row = |peer: &super::rates::PeerRates| {
        let name = match peer.hostname.as_str() {
            "" => &peer.subnet,
            name => name,
        };
        let Flow {
            tx_bits,
            rx_bits,
            tx_packets,
            rx_packets,
            dropped,
            fast_share,
        } = peer.flow;
        [
            name.to_owned(),
            peer.state.clone(),
            peer.path.clone(),
            bits(tx_bits),
            bits(rx_bits),
            format!("{tx_packets:.0}"),
            format!("{rx_packets:.0}"),
            format!("{dropped:.0}"),
            share(fast_share),
        ]
    };
    rates.peers.iter().map(row).collect()
}

/// The most frequent reason first; `None` where nothing was dropped.
fn drops(rates: &Rates) -> Option<String> {
    let mut reasons: Vec<_> = rates.drops.iter().collect();
    reasons.sort_by(|one, other| other.1.total_cmp(one.1));
    let reasons: Vec<String> = reasons
        .iter()
        .map(|(reason, count)| format!("{count:.1} {}", printable(reason)))
        .collect();
    (!reasons.is_empty()).then(|| format!("dropped in a second: {}", reasons.join(", ")))
}

fn share(share: Option<f64>) -> String {
    // Down: not quite all is not all.
    share.map_or("-".to_owned(), |share| {
        format!("{:.0} %", (share * 100.0).floor())
    })
}

/// So many bits in a second.
fn bits(count: f64) -> String {
    const UNITS: [&str; 5] = ["bit", "kbit", "Mbit", "Gbit", "Tbit"];
    let mut rest = count;
    let mut unit = 0;
    while rest >= 1000.0 && unit + 1 < UNITS.len() {
        rest /= 1000.0;
        unit += 1;
    }
    match unit > 0 && rest < 10.0 {
        true => format!("{rest:.1} {}", UNITS[unit]),
        false => format!("{rest:.0} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::top::rates::PeerRates;

    fn some() -> Rates {
        let flow = Flow {
            tx_bits: 9_400_000_000.0,
            rx_bits: 1500.0,
            tx_packets: 812_000.0,
            rx_packets: 3.0,
            dropped: 2.0,
            fast_share: Some(0.995),
        };
        let peer = |name: &str| PeerRates {
            hostname: name.to_owned(),
            subnet: "10.42.2.0/24".to_owned(),
            state: "up".to_owned(),
            path: "fast".to_owned(),
            flow,
        };
        Rates {
            seconds: 1.0,
            total: flow,
            peers: vec![peer("host\u{1b}2"), peer("")],
            drops: [("foreign_source".to_owned(), 2.0)].into(),
        }
    }

    #[test]
    fn a_pipe_gets_text() {
        let text = text(&some());
        println!("{text}");
        assert!(
            text.starts_with("2 peers: 9.4 Gbit out, 1.5 kbit in"),
            "{text}"
        );
        assert!(text.contains("10.42.2.0/24"), "{text}");
        assert!(
            text.ends_with("dropped in a second: 2.0 foreign_source"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_terminal_gets_the_same_in_its_size() {
        for (width, height) in [(120, 10), (40, 5), (1, 1)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &some(), 1)).unwrap();
            let shown = terminal.backend().to_string();
            println!("{shown}");
            if width == 120 {
                assert!(shown.contains("10.42.2.0/24"), "{shown}");
                // The first peer was moved past.
                assert!(!shown.contains("host"), "{shown}");
                assert!(shown.contains("foreign_source"), "{shown}");
            }
        }
    }
}
