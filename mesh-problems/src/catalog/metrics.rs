//! What keeps daemons from serving what they measure.

use crate::{Kind, Severity};

kinds! {
    METRICS_PORT_TAKEN = "metrics-port-taken", Warning, "The port for metrics is taken",
        breaks "Prometheus and health checks do not reach this daemon, which does its work all the same",
        remedy "end the other process (ss -ltnp shows it) and start the daemon again, or choose another address (--metrics-addr)";
}
