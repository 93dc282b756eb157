//! The figures for other programs.

use serde_json::{Value, json};

use super::{Report, goals, lines};
use crate::dataplane::{programs, topology::Topology};

impl Report {
    /// One document with every sample.
    pub(crate) fn json(&self) -> Value {
        let topologies: Vec<Value> = Topology::ALL
            .iter()
            .map(|it| json!({ "id": it, "name": it.name(), "description": it.description() }))
            .collect();
        let measures: Vec<Value> = self
            .series
            .iter()
            .map(|series| {
                let lines: Vec<Value> = lines(series)
                    .into_iter()
                    .zip(&series.samples)
                    .map(|(line, (_, samples))| {
                        json!({
                            "topology": line.topology,
                            "value": line.value,
                            "ratio": line.ratio,
                            "rounds": samples,
                        })
                    })
                    .collect();
                json!({
                    "measure": series.measure,
                    "title": series.measure.title(),
                    "unit": series.measure.unit(),
                    "more_is_better": series.measure.is_rate(),
                    "ratio_to": Topology::REFERENCE,
                    "results": lines,
                })
            })
            .collect();
        json!({
            "machine": self.machine,
            "setting": self.setting,
            "topologies": topologies,
            "measures": measures,
            "programs": { "peers": programs::PEERS, "costs": self.programs },
            "goals": goals::goals(self),
        })
    }
}
