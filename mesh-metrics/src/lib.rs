//! What the daemons measure, as Prometheus reads it.
//!
//! A daemon implements [`Source`]: asked for its metrics, it collects them into a [`Scrape`]. Nothing is gathered while
//! nobody asks, but for a few counters that are added to where something happens ([`Counters`], [`Timings`]). Every metric
//! is defined in [`catalog`], from which docs/METRICS.md is held to what is served.
//!
//! [`MetricsOptions`] say where: on a port of the daemon's own ([`Door`]), on which [`serve`] answers `/metrics`, `/livez`
//! and `/readyz` over HTTP 1.1.
//!
//! # Why the crate `prometheus`
//!
//! The text that `prometheus` 0.14 writes passes `promtool check metrics` (2.42) as it is. `prometheus-client` 0.26, tried
//! beside it with the same metrics, writes OpenMetrics, whose families of counters are named without `_total`: `promtool`
//! takes their samples for metrics without help, and exits with 3 (`quilt_mesh_peer_transmit_bytes_total no help text`).
//! Of `prometheus` the registry, which is one for the process, is not used, nor the format of protocol buffers.

mod answer;
pub mod catalog;
mod counted;
mod definition;
mod door;
mod options;
mod scrape;
mod serve;
mod source;
mod tls;
mod token;

pub use counted::{Counters, Timings};
pub use definition::{Definition, Kind};
pub use door::{Door, DoorError, Opened};
pub use options::{MetricsAddress, MetricsOptions};
pub use scrape::Scrape;
pub use serve::serve;
pub use source::{Source, Unavailable};
