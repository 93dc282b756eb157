//! What is counted where it happens: plain atomics, which cost nothing while nobody asks.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, core::Collector as _};

use crate::{Definition, Kind, Scrape};

/// A counter, for each combination of its labels that has occurred.
#[derive(Clone, Debug)]
pub struct Counters {
    definition: &'static Definition,
    counted: IntCounterVec,
}

impl Counters {
    /// With nothing counted yet.
    ///
    /// # Panics
    ///
    /// If the name of the metric or of a label is none: a test makes one of each metric that is defined.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test makes one of each definition")]
    pub fn new(definition: &'static Definition) -> Self {
        let options = Opts::new(definition.name, definition.help);
        let counted =
            IntCounterVec::new(options, definition.labels).expect("a name for Prometheus");
        Self {
            definition,
            counted,
        }
    }

    /// Has a combination shown although it has not occurred: a series that begins with its first count shows no increase.
    #[must_use]
    pub fn beginning_with(self, values: &[&str]) -> Self {
        self.add(values, 0);
        self
    }

    /// Adds to what is counted with these values of the labels, in the definition's order.
    pub fn add(&self, values: &[&str], count: u64) {
        match self.counted.get_metric_with_label_values(values) {
            Ok(counter) => counter.inc_by(count),
            // A defect of the caller's, of which its metric alone suffers.
            Err(error) => {
                tracing::debug!(name: "measure-not-counted", %error, metric = self.definition.name, "not counted")
            }
        }
    }

    /// Puts all of it into what is shown.
    pub fn show(&self, scrape: &mut Scrape) {
        scrape.take_over(self.definition, self.counted.collect());
    }
}

/// How long something took, each time.
#[derive(Clone, Debug)]
pub struct Timings {
    definition: &'static Definition,
    observed: Histogram,
}

impl Timings {
    /// With nothing observed yet.
    ///
    /// # Panics
    ///
    /// If the definition is none of a histogram without labels: a test makes one of each that is.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test makes one of each definition")]
    pub fn new(definition: &'static Definition) -> Self {
        let Kind::Histogram(buckets) = definition.kind else {
            panic!("{} is no histogram", definition.name);
        };
        let options = HistogramOpts::new(definition.name, definition.help);
        let options = options.buckets(buckets.to_vec());
        Self {
            definition,
            observed: Histogram::with_opts(options).expect("a name for Prometheus"),
        }
    }

    /// Notes that it took so long.
    pub fn observe(&self, duration: std::time::Duration) {
        self.observed.observe(duration.as_secs_f64());
    }

    /// Puts all of it into what is shown.
    pub fn show(&self, scrape: &mut Scrape) {
        scrape.take_over(self.definition, self.observed.collect());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::catalog;

    #[test]
    fn each_definition_can_be_counted_or_observed() {
        for definition in catalog::all() {
            match definition.kind {
                Kind::Histogram(_) => drop(Timings::new(definition)),
                Kind::Counter | Kind::Gauge => drop(Counters::new(definition)),
            }
        }
    }

    #[test]
    fn what_was_counted_and_observed_is_shown() {
        let counters = Counters::new(&catalog::runtime::REPAIRS).beginning_with(&["route"]);
        counters.add(&["bridge"], 2);
        // A defect in the number of labels spoils nothing else.
        counters.add(&["bridge", "route"], 1);
        let timings = Timings::new(&catalog::runtime::RECONCILE_DURATION);
        timings.observe(Duration::from_millis(3));
        let mut scrape = Scrape::default();
        counters.show(&mut scrape);
        timings.show(&mut scrape);
        let text = scrape.into_text().unwrap();
        for line in [
            "quilt_mesh_repairs_total{what=\"bridge\"} 2\n",
            "quilt_mesh_repairs_total{what=\"route\"} 0\n",
            "quilt_mesh_reconcile_duration_seconds_count 1\n",
            "quilt_mesh_reconcile_duration_seconds_bucket{le=\"+Inf\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
