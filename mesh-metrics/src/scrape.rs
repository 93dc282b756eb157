//! What one scrape collects.

use std::collections::{BTreeMap, BTreeSet};

use prometheus::{
    Error, TextEncoder,
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

use crate::{Definition, Kind};

/// What one scrape collects, by the names of the metrics.
#[derive(Debug, Default)]
pub struct Scrape {
    families: BTreeMap<&'static str, MetricFamily>,
    /// The series that are there: Prometheus refuses a page with one that is there twice as a whole.
    seen: BTreeSet<(&'static str, String)>,
}

impl Scrape {
    /// Notes the value of a metric, for these values of its labels, in the order of the definition. Of a series that is
    /// noted twice the first counts.
    #[expect(
        clippy::cast_precision_loss,
        reason = "every number of Prometheus is a double: from 2^53 on to the nearest"
    )]
    pub fn set(&mut self, definition: &'static Definition, values: &[&str], value: u64) {
        self.set_fraction(definition, values, value as f64);
    }

    /// As [`set`](Self::set), of what is no whole number, or below zero.
    pub fn set_fraction(&mut self, definition: &'static Definition, values: &[&str], value: f64) {
        debug_assert_eq!(definition.labels.len(), values.len(), "{}", definition.name);
        // No value of a label holds this character unescaped by accident: it is none of UTF-8's texts that people write.
        if !self.seen.insert((definition.name, values.join("\u{0}"))) {
            return;
        }
        let mut metric = Metric::default();
        let labels = definition.labels.iter().zip(values).map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value((*value).to_owned());
            label
        });
        metric.set_label(labels.collect());
        match definition.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            // Observed where it happens, see `Timings`.
            Kind::Histogram(_) => return,
        }
        self.family(definition).mut_metric().push(metric);
    }

    /// What was counted where it happens.
    pub(crate) fn take_over(&mut self, definition: &'static Definition, of: Vec<MetricFamily>) {
        for mut collected in of {
            let metrics = collected.take_metric();
            self.family(definition).mut_metric().extend(metrics);
        }
    }

    fn family(&mut self, definition: &'static Definition) -> &mut MetricFamily {
        self.families.entry(definition.name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(definition.name.to_owned());
            family.set_help(definition.help.to_owned());
            family.set_field_type(match definition.kind {
                Kind::Counter => MetricType::COUNTER,
                Kind::Gauge => MetricType::GAUGE,
                Kind::Histogram(_) => MetricType::HISTOGRAM,
            });
            family
        })
    }

    /// The page, in Prometheus' text format 0.0.4.
    ///
    /// # Errors
    ///
    /// The library's, which has none for what is collected here.
    pub fn into_text(self) -> Result<String, Error> {
        let families = self.families.into_values();
        let families: Vec<_> = families
            .filter(|family| !family.get_metric().is_empty())
            .collect();
        TextEncoder::new().encode_to_string(&families)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{common::PROBLEMS, runtime};

    #[test]
    fn a_page_has_each_series_once_and_nothing_of_what_was_not_noted() {
        let mut scrape = Scrape::default();
        let labels = ["host\"1\n\\", "fast"];
        scrape.set(&runtime::PEER_TRANSMIT_BYTES, &labels, 7);
        scrape.set(&runtime::PEER_TRANSMIT_BYTES, &labels, 8);
        scrape.set(&runtime::PEER_TRANSMIT_BYTES, &["host\"1\n\\", "kernel"], 0);
        scrape.set_fraction(&PROBLEMS, &["small-mtu", "warning"], 1.0);
        let text = scrape.into_text().unwrap();
        let series: Vec<_> = text.lines().filter(|it| !it.starts_with('#')).collect();
        assert_eq!(
            series,
            [
                r#"quilt_mesh_peer_transmit_bytes_total{peer="host\"1\n\\",path="fast"} 7"#,
                r#"quilt_mesh_peer_transmit_bytes_total{peer="host\"1\n\\",path="kernel"} 0"#,
                r#"quilt_mesh_problems{code="small-mtu",severity="warning"} 1"#,
            ]
        );
        assert!(text.contains("# TYPE quilt_mesh_peer_transmit_bytes_total counter\n"));
    }
}
