//! How a node joins the cluster.

use std::{net::Ipv4Addr, ops::RangeInclusive, time::Duration};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The longest hostname in characters: the limit of a DNS name (RFC 1035 section 2.3.4) in its text form.
pub const LONGEST_HOSTNAME: usize = 253;

/// The longest node key, in bytes.
pub const LONGEST_NODE_KEY: usize = 128;

/// More cores than any host has; a larger number is a mistake.
pub const MOST_CPU_CORES: u64 = 1 << 20;

/// 2^40 MiB, an exbibyte: a larger number is a mistake.
pub const MOST_RAM_MB: u64 = 1 << 40;

/// The time between two heartbeats in milliseconds: up to a day.
pub const HEARTBEAT_INTERVAL_MS: RangeInclusive<u64> = 1..=86_400_000;

/// The body of `POST /api/nodes/register`: what a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Registration {
    /// The host's name: 1 to 253 characters without control characters.
    #[cfg_attr(
        feature = "openapi",
        schema(min_length = 1, max_length = 253, example = "alpha")
    )]
    pub hostname: String,
    /// The host's underlay address.
    #[cfg_attr(
        feature = "openapi",
        schema(value_type = String, format = "ipv4", example = "192.0.2.11")
    )]
    pub host_ip: Ipv4Addr,
    /// Processor cores.
    #[cfg_attr(feature = "openapi", schema(maximum = 1_048_576, example = 8))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<u32>,
    /// Memory in MiB.
    #[cfg_attr(
        feature = "openapi",
        schema(maximum = 1_099_511_627_776_u64, example = 16384)
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram_mb: Option<u64>,
    /// The stable identity that the agent keeps on disk: 1 to 128 printable ASCII characters. Without one, its address
    /// identifies the node.
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 1,
            max_length = 128,
            pattern = "^[!-~]+$",
            example = "3b0f5a0e"
        )
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_key: Option<String>,
    /// The subnet that the node holds from an earlier registration. It counts only where the node has
    /// no lease, because the database is new or older than that lease: the node is then leased this
    /// subnet, unless another node leases it, it is reserved, or this cluster does not have it.
    #[cfg_attr(
        feature = "openapi",
        schema(
            value_type = Option<String>,
            pattern = r"^([0-9]{1,3}\.){3}[0-9]{1,3}/[0-9]{1,2}$",
            example = "10.42.7.0/24"
        )
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Ipv4Net>,
    /// The MTU of the node's overlay in bytes, as heartbeats tell it, too; absent if it has none yet.
    #[cfg_attr(
        feature = "openapi",
        schema(minimum = 68, maximum = 65_535, example = 1450)
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlay_mtu: Option<u32>,
    /// The time between the node's heartbeats in milliseconds, where it does not follow what it is
    /// answered.
    #[cfg_attr(
        feature = "openapi",
        schema(minimum = 1, maximum = 86_400_000, example = 10_000)
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval_ms: Option<u64>,
}

impl Registration {
    /// One that says only what every registration has to.
    #[must_use]
    pub fn new(hostname: impl Into<String>, host_ip: Ipv4Addr) -> Self {
        Self {
            hostname: hostname.into(),
            host_ip,
            cpu_cores: None,
            ram_mb: None,
            node_key: None,
            subnet: None,
            overlay_mtu: None,
            heartbeat_interval_ms: None,
        }
    }

    /// The time between the node's heartbeats, where it does not follow what it is answered.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Option<Duration> {
        self.heartbeat_interval_ms.map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_told_is_left_out() {
        let mut registration = Registration::new("a", Ipv4Addr::new(192, 0, 2, 1));
        fn text(registration: &Registration) -> String {
            serde_json::to_string(registration).unwrap()
        }
        assert_eq!(
            text(&registration),
            r#"{"hostname":"a","host_ip":"192.0.2.1"}"#
        );
        registration.subnet = "10.42.7.0/24".parse().ok();
        registration.heartbeat_interval_ms = Some(5000);
        assert_eq!(
            text(&registration),
            r#"{"hostname":"a","host_ip":"192.0.2.1","subnet":"10.42.7.0/24","heartbeat_interval_ms":5000}"#
        );
    }
}
