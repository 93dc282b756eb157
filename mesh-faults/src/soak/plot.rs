//! Memory and file descriptors over time, as SVG.

use std::fmt::Write as _;

use super::samples::Samples;

const WIDTH: f64 = 900.0;
const PANEL: f64 = 260.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 250.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 30.0;
const COLOURS: [&str; 8] = [
    "#0969da", "#1a7f37", "#9a6700", "#cf222e", "#8250df", "#bf3989", "#57606a", "#0550ae",
];

/// One panel for each kind of figure.
pub(super) fn svg(samples: &Samples) -> String {
    let kinds = ["MiB of memory", "file descriptors", "map entries"];
    let height = PANEL * 3.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, 'DejaVu Sans', sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let mut top = 0.0;
    for kind in kinds {
        // Writing to a string cannot fail.
        let _ = panel(&mut svg, samples, kind, top);
        top += PANEL;
    }
    svg + "</svg>\n"
}

fn panel(svg: &mut String, samples: &Samples, kind: &str, top: f64) -> std::fmt::Result {
    let series: Vec<(&str, &Vec<f64>)> = samples
        .series
        .iter()
        .filter_map(|(name, figures)| {
            let name = name.strip_suffix(kind)?.trim_end_matches([':', ' ']);
            Some((name, figures))
        })
        .collect();
    let most = series
        .iter()
        .flat_map(|(_, figures)| figures.iter().copied())
        .fold(1.0, f64::max);
    let end = samples.times.last().map_or(1.0, |time| time.as_secs_f64());
    let (plot_width, plot_height) = (WIDTH - LEFT - RIGHT, PANEL - TOP - BOTTOM);
    let bottom = top + TOP + plot_height;
    writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-size=\"14\" font-weight=\"600\">{kind}</text>",
        top + 20.0
    )?;
    for (y, value) in [(bottom, 0.0), (top + TOP, most)] {
        writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#d0d7de\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{value:.0}</text>",
            LEFT + plot_width,
            LEFT - 6.0,
            y + 4.0
        )?;
    }
    writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{end:.0} s</text>",
        LEFT + plot_width,
        bottom + 18.0
    )?;
    let mut label = top + TOP + 8.0;
    for ((name, figures), colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<String> = samples
            .times
            .iter()
            .zip(*figures)
            .map(|(time, figure)| {
                let x = LEFT + time.as_secs_f64() / end * plot_width;
                let y = bottom - figure / most * plot_height;
                format!("{x:.1},{y:.1}")
            })
            .collect();
        writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
             <text x=\"{}\" y=\"{label}\" fill=\"{colour}\">{name}</text>",
            points.join(" "),
            LEFT + plot_width + 12.0
        )?;
        label += 15.0;
    }
    Ok(())
}
