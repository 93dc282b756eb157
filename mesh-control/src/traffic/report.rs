//! What a heartbeat carries, read from JSON and bounded.
//!
//! What a client gets wrong is refused; what is merely long (a text, a list of findings) is cut, because
//! a node must not go down for having much to tell.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use ipnet::Ipv4Net;
use mesh_problems::Finding;
use mesh_rest::check::{
    CheckReport, MOST_FINDINGS as MOST_OF_WAY, MOST_PEERS as MOST_WAYS, WayChecked, WayFinding,
};
use mesh_rest::heartbeat::{DataPlane, PeerTraffic};
use mesh_rest::mtu::{MTU_RANGE, mtu};
use mesh_rest::problem::FieldError;
use mesh_rest::problem_kind::Kind;
use mesh_rest::traffic::Counters;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_path_to_error::Segment;

use crate::api::problem::Problem;
use crate::http::body::Collected;

/// The most peers in a report: as many as the data plane has room for.
pub const MOST_PEERS: usize = 65_536;
/// The longest text that is kept of each that a report has, in characters.
const LONGEST_TEXT: usize = 1024;
/// How many findings are kept.
const MOST_FINDINGS: usize = 64;
/// How many reasons of drops are kept.
const MOST_REASONS: usize = 256;

/// What a node told with a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The state of its data plane, if it told.
    pub data_plane: Option<DataPlane>,
    /// Its traffic with each peer that it had any with, ordered by subnet, each subnet once.
    pub peers: Vec<(Ipv4Net, Counters)>,
    /// The MTU of its overlay in bytes, if it told. Of the node list, and not kept with the rest.
    pub overlay_mtu: Option<u32>,
    /// What it answers to a check. Kept with that, and not with the rest.
    pub check: Option<CheckReport>,
}

impl Report {
    /// Reads the body of a heartbeat, a large one where it keeps no other request waiting.
    pub(crate) async fn read(body: Collected) -> Result<Self, Problem> {
        if !body.is_large() {
            return Self::from_json(&body.bytes);
        }
        tokio::task::spawn_blocking(move || Self::from_json(&body.bytes))
            .await
            .unwrap_or_else(|error| Err(Problem::new(Kind::Internal, error.to_string())))
    }

    /// Reads a [`mesh_rest::heartbeat::Heartbeat`], or `null`, which is one without content.
    ///
    /// # Errors
    ///
    /// What is not JSON, and the first field that is wrong.
    pub fn from_json(json: &[u8]) -> Result<Self, Problem> {
        let heartbeat: Option<Object<StrictHeartbeat>> = match serde_json::from_slice(json) {
            Ok(heartbeat) => heartbeat,
            Err(error) => return Err(refusal(json, &error)),
        };
        let StrictHeartbeat {
            data_plane,
            peers,
            overlay_mtu,
            check,
        } = heartbeat
            .map(|Object(heartbeat)| heartbeat)
            .unwrap_or_default();
        if let Some(told) = overlay_mtu
            && mtu(told.into()).is_none()
        {
            let (least, most) = (MTU_RANGE.start(), MTU_RANGE.end());
            let detail = format!("overlay_mtu must be from {least} to {most}, but is {told}");
            return Err(invalid("#/overlay_mtu", &detail));
        }
        if peers.len() > MOST_PEERS {
            let detail = format!("peers has {} entries, more than {MOST_PEERS}", peers.len());
            return Err(invalid("#/peers", &detail));
        }
        let mut counted = Vec::new();
        for (position, Object(peer)) in peers.iter().enumerate() {
            let subnet = subnet(&peer.subnet).ok_or_else(|| {
                invalid(
                    &format!("#/peers/{position}/subnet"),
                    &format!(
                        "subnet must be a network such as \"10.42.2.0/24\", but is {:?}",
                        cut(peer.subnet.clone())
                    ),
                )
            })?;
            let counters = Counters::from(peer);
            if counters != Counters::default() {
                counted.push((subnet, counters));
            }
        }
        counted.sort_by_key(|(subnet, _)| *subnet);
        counted.dedup_by_key(|(subnet, _)| *subnet);
        counted.shrink_to_fit();
        Ok(Self {
            data_plane: data_plane.map(|Object(data_plane)| bounded(data_plane)),
            peers: counted,
            overlay_mtu,
            check: check.map(|Object(check)| checked(check)),
        })
    }
}

/// As [`mesh_rest::heartbeat::Heartbeat`], but from JSON objects only.
#[derive(Default, Deserialize)]
#[serde(default)]
struct StrictHeartbeat {
    data_plane: Option<Object<DataPlane>>,
    peers: Vec<Object<PeerTraffic>>,
    overlay_mtu: Option<u32>,
    check: Option<Object<CheckReport>>,
}

/// Reads a JSON object and nothing else. What `serde` derives for a structure takes an array as well, which
/// would let through what no schema allows.
struct Object<T>(T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);
        impl<'de, T: DeserializeOwned> Visitor<'de> for OfMap<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(OfMap(PhantomData))
    }
}

/// A network address with its prefix length, and nothing in the host's part.
fn subnet(text: &str) -> Option<Ipv4Net> {
    let subnet: Ipv4Net = text.parse().ok()?;
    (subnet.trunc() == subnet).then_some(subnet)
}

fn bounded(data_plane: DataPlane) -> DataPlane {
    let DataPlane {
        version,
        fast_path,
        reason,
        host_address,
        generation,
        findings,
        drops,
    } = data_plane;
    DataPlane {
        version: cut(version),
        fast_path: cut(fast_path),
        reason: cut(reason),
        host_address,
        generation,
        findings: findings
            .into_iter()
            .take(MOST_FINDINGS)
            .map(short)
            .collect(),
        drops: drops
            .into_iter()
            .take(MOST_REASONS)
            .map(|(reason, packets)| (cut(reason), packets))
            .collect::<BTreeMap<_, _>>(),
    }
}

fn checked(report: CheckReport) -> CheckReport {
    let CheckReport {
        id,
        error,
        mut peers,
        left_out,
    } = report;
    let beyond = peers.len().saturating_sub(MOST_WAYS);
    peers.truncate(MOST_WAYS);
    let peers = peers.into_iter().map(|way| WayChecked {
        error: way.error.map(cut),
        carried_by: way.carried_by.map(cut),
        findings: way
            .findings
            .into_iter()
            .take(MOST_OF_WAY)
            .map(|finding| WayFinding {
                code: cut(finding.code),
                severity: cut(finding.severity),
                observed: cut(finding.observed),
            })
            .collect(),
        ..way
    });
    CheckReport {
        id: cut(id),
        error: error.map(cut),
        peers: peers.collect(),
        left_out: left_out.saturating_add(u32::try_from(beyond).unwrap_or(u32::MAX)),
    }
}

fn short(finding: Finding) -> Finding {
    Finding {
        code: cut(finding.code),
        severity: finding.severity,
        title: cut(finding.title),
        observed: cut(finding.observed),
        breaks: cut(finding.breaks),
        remedy: cut(finding.remedy),
        since: finding.since,
    }
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST_TEXT) {
        text.truncate(end);
        text.shrink_to_fit();
    }
    text
}

/// Why `json` was not read. It is read once more to find where: keeping track of that costs time, which a
/// good report need not pay.
fn refusal(json: &[u8], error: &serde_json::Error) -> Problem {
    if !error.is_data() {
        return Problem::new(Kind::Malformed, format!("the body is not JSON: {error}"));
    }
    let mut again = serde_json::Deserializer::from_slice(json);
    let pointer =
        match serde_path_to_error::deserialize::<_, Option<Object<StrictHeartbeat>>>(&mut again) {
            Ok(_) => "#".to_owned(),
            Err(error) => pointer(error.path()),
        };
    invalid(&pointer, &error.to_string())
}

/// A JSON Pointer in URI fragment form (RFC 6901 section 6).
fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = "#".to_owned();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                // The names of fields need no escape; of what else stands here, none is more than a hint.
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Unknown => {}
        }
    }
    pointer
}

fn invalid(pointer: &str, detail: &str) -> Problem {
    Problem::invalid_fields(vec![FieldError {
        pointer: pointer.to_owned(),
        detail: detail.to_owned(),
    }])
}

#[cfg(test)]
mod tests;
