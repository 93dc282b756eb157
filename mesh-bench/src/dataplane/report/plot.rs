//! The figures as a picture: bars of the ratios to the kernel's VXLAN.

use std::fmt::Write as _;

use super::{Line, Report, lines, number};
use crate::dataplane::{measure::Series, topology::Topology};

const WIDTH: f64 = 1080.0;
const MARGIN: f64 = 24.0;
const HEADER: f64 = 58.0;
const COLUMNS: usize = 2;
const PANEL_HEIGHT: f64 = 216.0;
const PANEL_TITLE: f64 = 48.0;
const BAR: f64 = 16.0;
const STEP: f64 = 25.0;
/// Room for the topologies' names, left of the bars.
const NAMES: f64 = 146.0;
/// Room for the values, right of the bars.
const VALUES: f64 = 128.0;

const INK: &str = "#1f2328";
const PALE: &str = "#656d76";
const LINE: &str = "#d0d7de";

impl Report {
    /// A picture of all measures, as SVG.
    pub(crate) fn svg(&self) -> String {
        let mut svg = String::new();
        // Writing to a string cannot fail.
        let _ = self.draw(&mut svg);
        svg
    }

    fn draw(&self, svg: &mut String) -> std::fmt::Result {
        let rows = count(self.series.len().div_ceil(COLUMNS));
        let height = HEADER + rows * PANEL_HEIGHT + 2.0 * MARGIN;
        writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, 'DejaVu Sans', sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"
        )?;
        let title = format!(
            "Container to container, ratio to {}",
            Topology::REFERENCE.name()
        );
        let machine = &self.machine;
        let subtitle = format!(
            "{} rounds in turns; bar: median, whisker: quartiles. Linux {}, {} CPUs ({}{})",
            self.setting.schedule.rounds,
            machine.kernel,
            machine.cpus,
            machine.cpu_model,
            if machine.virtual_machine {
                ", virtual machine"
            } else {
                ""
            }
        );
        text(
            svg,
            [MARGIN, MARGIN + 12.0],
            &title,
            "start",
            "font-size=\"18\" font-weight=\"600\"",
            INK,
        )?;
        text(svg, [MARGIN, MARGIN + 34.0], &subtitle, "start", "", PALE)?;
        let width = (WIDTH - 3.0 * MARGIN) / count(COLUMNS);
        for (index, series) in self.series.iter().enumerate() {
            let x = MARGIN + count(index % COLUMNS) * (width + MARGIN);
            let y = MARGIN + HEADER + count(index / COLUMNS) * PANEL_HEIGHT;
            panel(svg, series, [x, y], width)?;
        }
        writeln!(svg, "</svg>")
    }
}

fn panel(svg: &mut String, series: &Series, [x, y]: [f64; 2], width: f64) -> std::fmt::Result {
    let better = match series.measure.is_rate() {
        true => "longer is better",
        false => "shorter is better",
    };
    let style = "font-size=\"13\" font-weight=\"600\"";
    text(
        svg,
        [x, y + 16.0],
        &series.measure.title(),
        "start",
        style,
        INK,
    )?;
    text(
        svg,
        [x + width, y + 16.0],
        better,
        "end",
        "font-size=\"11\"",
        PALE,
    )?;

    let lines = lines(series);
    let from = x + NAMES;
    let room = width - NAMES - VALUES;
    let longest = lines
        .iter()
        .map(|line| line.ratio.upper)
        .fold(1.0, f64::max);
    let at = |ratio: f64| from + ratio / longest * room;
    let top = y + PANEL_TITLE - 14.0;
    let bottom = top + count(lines.len()) * STEP;
    for tick in ticks(longest) {
        let (colour, dash) = match tick {
            1.0 => (PALE, " stroke-dasharray=\"3 3\""),
            _ => (LINE, ""),
        };
        vertical(svg, at(tick), [top, bottom], colour, dash)?;
        text(
            svg,
            [at(tick), bottom + 13.0],
            &format!("{tick}"),
            "middle",
            "font-size=\"10\"",
            PALE,
        )?;
    }
    for (index, line) in lines.iter().enumerate() {
        let middle = top + (count(index) + 0.5) * STEP;
        let name = line.topology.name();
        text(svg, [from - 8.0, middle + 4.0], name, "end", "", INK)?;
        writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{}\"/>",
            middle - BAR / 2.0,
            at(line.ratio.median) - from,
            colour(line.topology)
        )?;
        whisker(svg, line, at, middle)?;
        let value = format!("{:.2}×", line.ratio.median);
        let absolute = format!("{} {}", number(line.value.median), series.measure.unit());
        let right = x + width;
        text(
            svg,
            [right - VALUES + 54.0, middle + 4.0],
            &value,
            "end",
            "font-weight=\"600\"",
            INK,
        )?;
        text(
            svg,
            [right, middle + 4.0],
            &absolute,
            "end",
            "font-size=\"11\"",
            PALE,
        )?;
    }
    Ok(())
}

/// From quartile to quartile.
fn whisker(
    svg: &mut String,
    line: &Line,
    at: impl Fn(f64) -> f64,
    middle: f64,
) -> std::fmt::Result {
    let ends = [at(line.ratio.lower), at(line.ratio.upper)];
    writeln!(
        svg,
        "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"{INK}\"/>",
        ends[0], ends[1]
    )?;
    for end in ends {
        vertical(svg, end, [middle - 3.5, middle + 3.5], INK, "")?;
    }
    Ok(())
}

fn vertical(
    svg: &mut String,
    x: f64,
    [from, to]: [f64; 2],
    colour: &str,
    more: &str,
) -> std::fmt::Result {
    writeln!(
        svg,
        "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{from:.1}\" y2=\"{to:.1}\" stroke=\"{colour}\"{more}/>"
    )
}

fn text(
    svg: &mut String,
    [x, y]: [f64; 2],
    content: &str,
    anchor: &str,
    style: &str,
    colour: &str,
) -> std::fmt::Result {
    let content = content
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\" {style}>{content}</text>"
    )
}

/// Grey for what is compared with, orange for the kernel's VXLAN, blue for ours; pale with
/// the rules.
fn colour(topology: Topology) -> &'static str {
    match topology {
        Topology::BareUnderlay => "#afb8c1",
        Topology::BareRedirects => "#d0d7de",
        Topology::PlainRouting => "#8c959f",
        Topology::KernelVxlan => "#d4772c",
        Topology::KernelVxlanWithRules => "#f0b27a",
        Topology::QuiltMesh => "#0969da",
        Topology::QuiltMeshWithRules => "#6cb6ff",
        Topology::QuiltMeshBefore => "#57606a",
    }
}

/// Round numbers from 0 to the longest bar, a handful.
fn ticks(longest: f64) -> impl Iterator<Item = f64> {
    let step = match longest {
        4.0.. => 1.0,
        _ => 0.5,
    };
    (0_u8..20)
        .map(move |number| f64::from(number) * step)
        .take_while(move |tick| *tick <= longest)
}

#[expect(clippy::cast_precision_loss, reason = "a handful of panels and bars")]
fn count(things: usize) -> f64 {
    things as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_always_among_the_ticks() {
        for longest in [1.0, 1.2, 2.7, 6.3] {
            let ticks: Vec<f64> = ticks(longest).collect();
            assert!(ticks.contains(&1.0), "{ticks:?}");
            assert!(ticks.iter().all(|tick| *tick <= longest), "{ticks:?}");
        }
    }
}
