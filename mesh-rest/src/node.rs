//! A node as the control plane lists it.
//!
//! Addresses and words stay text: one that cannot be read must not make the whole list unreadable, and what proves the
//! list is made of the texts. An entry of a control plane of another version may lack what is optional here, and have
//! more.

use std::{borrow::Cow, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{digest::DigestedNode, lenient, mtu::mtu, status::Status};

/// One entry of `GET /api/nodes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeEntry<'a> {
    /// The node's id.
    #[cfg_attr(feature = "openapi", schema(value_type = crate::node_id::NodeId))]
    pub node_id: Cow<'a, str>,
    /// The name its operator gave the host.
    #[cfg_attr(feature = "openapi", schema(value_type = String, required))]
    #[serde(default)]
    pub hostname: Cow<'a, str>,
    /// Its underlay address: where peers send encapsulated packets.
    #[cfg_attr(
        feature = "openapi",
        schema(value_type = String, format = "ipv4", example = "192.0.2.11")
    )]
    pub host_ip: Cow<'a, str>,
    /// The subnet it leases.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10.42.1.0/24"))]
    pub subnet: Cow<'a, str>,
    /// Processor cores, if the agent told.
    #[cfg_attr(feature = "openapi", schema(required))]
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub cpu_cores: Option<u32>,
    /// Memory in MiB, if the agent told.
    #[cfg_attr(feature = "openapi", schema(required))]
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub ram_mb: Option<u64>,
    /// The largest packet that it takes out of the overlay, in bytes; absent if it has not told.
    #[cfg_attr(
        feature = "openapi",
        schema(minimum = 68, maximum = 65_535, example = 1450)
    )]
    #[serde(
        default,
        deserialize_with = "told_mtu",
        skip_serializing_if = "Option::is_none"
    )]
    pub overlay_mtu: Option<u32>,
    /// Whether its heartbeats arrive.
    #[cfg_attr(feature = "openapi", schema(value_type = Status))]
    pub status: Cow<'a, str>,
    /// Whether it is down because its agent was stopped, it left, or it lost its address to another
    /// node, and not because it fell silent: no heartbeat brings it back, only a registration.
    #[cfg_attr(feature = "openapi", schema(required))]
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub deregistered: bool,
    /// Whether it is down because it left for good: the other nodes take it out.
    #[cfg_attr(feature = "openapi", schema(required))]
    #[serde(default)]
    pub left: bool,
    /// Unix seconds of the node's first registration.
    #[cfg_attr(feature = "openapi", schema(required))]
    #[serde(default)]
    pub registered_at: i64,
    /// Stands for all of the entry but what follows. Whatever it looks like, only the control plane makes it.
    #[cfg_attr(feature = "openapi", schema(value_type = String, required))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<Cow<'a, str>>,
    /// Unix seconds of its last heartbeat; a registration counts as one.
    #[cfg_attr(feature = "openapi", schema(value_type = i64, required))]
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub last_heartbeat: Option<i64>,
    /// Unix seconds at which a copy of its host was held off last, while that goes on; only in the
    /// whole list, and only of the replica that the copy asks.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub copy_held_off_at: Option<i64>,
}

/// What cannot be one counts as not told.
fn told_mtu<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u32>, D::Error> {
    let told: Option<u64> = lenient::or_default(value)?;
    Ok(told.and_then(mtu))
}

impl NodeEntry<'_> {
    /// Its underlay address, if the text is one.
    #[must_use]
    pub fn host_ip(&self) -> Option<Ipv4Addr> {
        self.host_ip.parse().ok()
    }

    /// The subnet it leases, if the text is one.
    #[must_use]
    pub fn subnet(&self) -> Option<Ipv4Net> {
        self.subnet.parse().ok()
    }

    /// Whether its heartbeats arrive. `None`: a word that this version does not know.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        Status::of_word(&self.status)
    }

    /// Without what changes and is no news: only what the etag stands for, and the etag.
    #[must_use]
    pub fn without_beats(self) -> Self {
        Self {
            last_heartbeat: None,
            copy_held_off_at: None,
            ..self
        }
    }

    /// What of the node goes into the digest of the list.
    #[must_use]
    pub fn digested(&self) -> DigestedNode<'_> {
        DigestedNode {
            node_id: &self.node_id,
            hostname: &self.hostname,
            host_ip: &self.host_ip,
            subnet: &self.subnet,
            status: &self.status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(member: &str, told: &str) -> NodeEntry<'static> {
        let text = format!(
            r#"{{"node_id": "a", "host_ip": "192.0.2.1", "subnet": "10.42.1.0/24", "status": "up", "{member}": {told}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn an_mtu_that_cannot_be_one_is_as_if_it_was_not_told() {
        for (told, expected) in [
            ("1450", Some(1450)),
            ("null", None),
            ("0", None),
            ("65536", None),
            ("-1", None),
            ("1450.5", None),
            (r#""1450""#, None),
            ("[1450]", None),
        ] {
            assert_eq!(read("overlay_mtu", told).overlay_mtu, expected, "{told}");
        }
    }

    #[test]
    fn what_is_for_people_only_may_be_anything() {
        for member in ["cpu_cores", "ram_mb", "last_heartbeat", "copy_held_off_at"] {
            for told in ["-1.5", r#""many""#, "[1]", "{}", "null"] {
                assert_eq!(read(member, told), read("zone", "7"), "{member} {told}");
            }
        }
        assert!(!read("deregistered", r#""yes""#).deregistered);
    }

    #[test]
    fn addresses_and_words_that_are_none_are_told_apart_when_they_are_asked_for() {
        let mut entry = read("zone", "7");
        assert_eq!(entry.host_ip(), Some(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(entry.subnet(), "10.42.1.0/24".parse().ok());
        assert_eq!(entry.status(), Some(Status::Up));
        entry.host_ip = "here".into();
        entry.subnet = "there".into();
        entry.status = "draining".into();
        assert_eq!(
            (entry.host_ip(), entry.subnet(), entry.status()),
            (None, None, None)
        );
        assert_eq!(entry.digested().status, "draining");
    }
}
