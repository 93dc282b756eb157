//! The cost per agent as a picture: flat lines are what is wanted.

use std::fmt::Write as _;

use super::Report;
use crate::control::{
    agents::count,
    measure::{Cluster, Measured},
    server::Store,
};

const WIDTH: f64 = 1080.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 24.0;
const HEADER: f64 = 58.0;
/// Room for the numbers left of a panel.
const NUMBERS: f64 = 44.0;

const INK: &str = "#1f2328";
const PALE: &str = "#656d76";
const LINE: &str = "#d0d7de";
const SMALL: &str = "font-size=\"11\"";

/// One of the two pictures.
struct Panel {
    title: &'static str,
    value: fn(&Cluster) -> f64,
    left: f64,
}

impl Report {
    /// A picture of what one agent costs, by the number of agents, as SVG.
    pub(crate) fn svg(&self) -> String {
        let mut svg = String::new();
        // Writing to a string cannot fail.
        let _ = self.draw(&mut svg);
        svg
    }

    fn draw(&self, svg: &mut String) -> std::fmt::Result {
        writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"system-ui, 'DejaVu Sans', sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"
        )?;
        let title = "What one idle agent costs the control plane";
        let bold = "font-size=\"18\" font-weight=\"600\"";
        text(svg, [MARGIN, MARGIN + 12.0], title, "start", bold, INK)?;
        let machine = &self.machine;
        let subtitle = format!(
            "change feed with a wait of 5 s, heartbeat every 10 s. Linux {}, {} CPUs ({}{})",
            machine.kernel,
            machine.cpus,
            machine.cpu_model,
            if machine.virtual_machine {
                ", virtual machine"
            } else {
                ""
            }
        );
        text(svg, [MARGIN, MARGIN + 34.0], &subtitle, "start", "", PALE)?;
        for (number, measured) in self.measured.iter().enumerate() {
            let x = WIDTH - MARGIN - 110.0 * (count(number) + 1.0);
            let y = MARGIN + 8.0;
            dot(svg, [x, y], measured.store)?;
            text(
                svg,
                [x + 10.0, y + 4.0],
                &measured.store.to_string(),
                "start",
                "",
                INK,
            )?;
        }
        let width = (WIDTH - 3.0 * MARGIN) / 2.0;
        let panels = [
            Panel {
                title: "CPU per agent, µs per second",
                value: Cluster::processor_us_per_agent,
                left: MARGIN,
            },
            Panel {
                title: "resident memory per agent, kB",
                value: |cluster| cluster.bytes_per_agent() / 1e3,
                left: 2.0 * MARGIN + width,
            },
        ];
        for panel in panels {
            panel.draw(svg, &self.measured, width)?;
        }
        writeln!(svg, "</svg>")
    }
}

impl Panel {
    fn draw(&self, svg: &mut String, measured: &[Measured], width: f64) -> std::fmt::Result {
        let (left, right) = (self.left + NUMBERS, self.left + width - 20.0);
        let (top, bottom) = (MARGIN + HEADER + 24.0, HEIGHT - MARGIN - 36.0);
        let clusters = || measured.iter().flat_map(|it| &it.clusters);
        let mut numbers: Vec<usize> = clusters().map(|it| it.agents).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let few = numbers.first().copied().unwrap_or(1).max(1);
        let many = numbers.last().copied().unwrap_or(1).max(few + 1);
        let highest = round_up(clusters().map(self.value).fold(0.0, f64::max));
        // Agents on a logarithmic scale, costs on a linear one that begins at zero.
        let decades = |agents: usize| (count(agents) / count(few)).log10();
        let x = |agents: usize| left + decades(agents) / decades(many) * (right - left);
        let y = |value: f64| bottom - value / highest * (bottom - top);

        let bold = "font-size=\"13\" font-weight=\"600\"";
        text(svg, [self.left, top - 16.0], self.title, "start", bold, INK)?;
        for quarter in 0..=4_u8 {
            let value = highest * f64::from(quarter) / 4.0;
            let at = y(value);
            writeln!(
                svg,
                "<line x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"{LINE}\"/>"
            )?;
            text(
                svg,
                [left - 6.0, at + 4.0],
                &value.to_string(),
                "end",
                SMALL,
                PALE,
            )?;
        }
        for agents in numbers {
            let place = [x(agents), bottom + 18.0];
            text(svg, place, &agents.to_string(), "middle", SMALL, PALE)?;
        }
        let middle = [f64::midpoint(left, right), bottom + 36.0];
        text(svg, middle, "agents", "middle", SMALL, PALE)?;
        for measured in measured {
            let mut points = String::new();
            for cluster in &measured.clusters {
                let (x, y) = (x(cluster.agents), y((self.value)(cluster)));
                write!(points, "{x:.1},{y:.1} ")?;
                dot(svg, [x, y], measured.store)?;
            }
            writeln!(
                svg,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
                colour(measured.store)
            )?;
        }
        Ok(())
    }
}

fn dot(svg: &mut String, [x, y]: [f64; 2], store: Store) -> std::fmt::Result {
    let colour = colour(store);
    writeln!(
        svg,
        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>"
    )
}

fn colour(store: Store) -> &'static str {
    match store {
        Store::Sqlite => "#0969da",
        Store::Postgres => "#d4772c",
    }
}

/// The next of 1, 2, 4, 10, 20, 40 and so on, whose quarters are short numbers.
fn round_up(value: f64) -> f64 {
    let decade = 10_f64.powf(value.max(1e-3).log10().floor());
    [1.0, 2.0, 4.0, 10.0]
        .into_iter()
        .map(|step| step * decade)
        .find(|step| *step >= value)
        .unwrap_or(decade * 10.0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_ends_at_the_next_round_number() {
        for (value, end) in [
            (0.3, 0.4),
            (1.0, 1.0),
            (1.1, 2.0),
            (31.0, 40.0),
            (41.0, 100.0),
        ] {
            assert!(
                (round_up(value) - end).abs() < 1e-9,
                "{value}: {}",
                round_up(value)
            );
        }
    }
}
