//! The definition of a metric.

/// What kind of metric it is, by the words of Prometheus.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// It only grows, and begins anew at zero when whoever counts does.
    Counter,
    /// It goes up and down.
    Gauge,
    /// So many observations were at most so large: the bounds, rising, without the last one, which is infinite.
    Histogram(&'static [f64]),
}

impl Kind {
    /// Its word in Prometheus' text format.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// The definition of a metric. All there are stand in [`crate::catalog`].
#[derive(Debug, PartialEq)]
pub struct Definition {
    /// With its unit, in base units: seconds, bytes.
    pub name: &'static str,
    /// What kind of metric it is.
    pub kind: Kind,
    /// By what its series differ.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence without a full stop, with what is to be known of its labels.
    pub help: &'static str,
}
