//! Figures with their goals, and how they are shown.

use std::time::Duration;

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use serde::Serialize;

pub(crate) const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// One measured quantity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// The measured value must stay below it; `None` where there is only something to know.
    pub(crate) goal: Option<f64>,
    pub(crate) measured: f64,
    pub(crate) smallest: f64,
    pub(crate) largest: f64,
    pub(crate) samples: usize,
}

/// A quantile of samples, with their range.
pub(crate) fn quantile(
    name: impl Into<String>,
    unit: &'static str,
    goal: Option<f64>,
    samples: &[f64],
    per_cent: usize,
) -> anyhow::Result<Figure> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(smallest), Some(largest)) = (sorted.first(), sorted.last()) else {
        anyhow::bail!("no samples");
    };
    Ok(Figure {
        name: name.into(),
        unit,
        goal,
        measured: sorted[nearest_rank(sorted.len(), per_cent)],
        smallest: *smallest,
        largest: *largest,
        samples: sorted.len(),
    })
}

/// By how much the median of the one is above that of the other, whose samples were taken in turns with it. The range is that
/// of the turns' own differences.
pub(crate) fn difference(
    name: impl Into<String>,
    unit: &'static str,
    goal: Option<f64>,
    one: &[f64],
    other: &[f64],
) -> anyhow::Result<Figure> {
    let turns: Vec<f64> = one
        .iter()
        .zip(other)
        .map(|(one, other)| one - other)
        .collect();
    let range = quantile(name, unit, goal, &turns, 50)?;
    let median = |samples| quantile("", unit, None, samples, 50).map(|it| it.measured);
    Ok(Figure {
        measured: median(one)? - median(other)?,
        ..range
    })
}

/// The nearest-rank definition: the smallest value that at least so many per cent are not
/// above. For an index into `len` sorted values.
fn nearest_rank(len: usize, per_cent: usize) -> usize {
    (len * per_cent).div_ceil(100).clamp(1, len.max(1)) - 1
}

/// A quantile of what is in ascending order, for people.
pub(crate) fn percentile(sorted: &[f64], per_cent: usize) -> String {
    sorted
        .get(nearest_rank(sorted.len(), per_cent))
        .map_or("none".to_owned(), |value| format!("{value:.1}"))
}

pub(crate) fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Figure {
    /// Whether the goal is met, if there is one.
    pub(crate) fn is_met(&self) -> Option<bool> {
        self.goal.map(|goal| self.measured < goal)
    }
}

/// The figures for other programs.
pub(crate) fn document(figures: &[Figure], circumstances: &str) -> serde_json::Value {
    let figures: Vec<serde_json::Value> = figures
        .iter()
        .map(|figure| {
            let mut value = serde_json::json!(figure);
            value["goal_met"] = serde_json::json!(figure.is_met());
            value
        })
        .collect();
    serde_json::json!({ "figures": figures, "circumstances": circumstances })
}

/// The figures for people.
pub(crate) fn table(figures: &[Figure]) -> Table {
    let mut table = Table::new();
    table
        .load_style(STYLE)
        .set_header(["figure", "goal", "measured", "", "range", "samples"]);
    for figure in figures {
        let number = |value: f64| match value.abs() {
            100.0.. => format!("{value:.0}"),
            10.0..100.0 => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        };
        table.add_row([
            figure.name.clone(),
            figure
                .goal
                .map_or(String::new(), |goal| format!("< {goal} {}", figure.unit)),
            format!("{} {}", number(figure.measured), figure.unit),
            match figure.is_met() {
                None => "",
                Some(true) => "met",
                Some(false) => "NOT MET",
            }
            .to_owned(),
            format!("{} – {}", number(figure.smallest), number(figure.largest)),
            figure.samples.to_string(),
        ]);
    }
    for column in [1, 2, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let at = |per_cent| {
            quantile("x", "ms", None, &samples, per_cent)
                .unwrap()
                .measured
        };
        assert_eq!((at(50), at(99), at(100)), (50.0, 99.0, 100.0));
        let one = quantile("x", "ms", None, &[7.0], 99).unwrap();
        assert_eq!((one.measured, one.smallest, one.largest), (7.0, 7.0, 7.0));
        assert!(quantile("x", "ms", None, &[], 50).is_err());
    }

    #[test]
    fn a_difference_is_that_of_the_medians_and_its_range_that_of_the_turns() {
        let (one, other) = ([7.0, 9.0, 30.0], [5.0, 10.0, 6.0]);
        let figure = difference("x", "ms", Some(4.0), &one, &other).unwrap();
        assert_eq!((figure.measured, figure.samples), (3.0, 3));
        assert_eq!((figure.smallest, figure.largest), (-1.0, 24.0));
        assert_eq!(figure.is_met(), Some(true));
        assert!(difference("x", "ms", None, &one, &[]).is_err());
    }

    #[test]
    fn a_goal_is_met_only_below_it() {
        let figure = |measured| quantile("x", "ms", Some(5.0), &[measured], 50).unwrap();
        assert_eq!(figure(4.9).is_met(), Some(true));
        assert_eq!(figure(5.0).is_met(), Some(false));
        assert_eq!(
            quantile("x", "ms", None, &[1.0], 50).unwrap().is_met(),
            None
        );
    }
}
