//! The call `Trace`: from words to a question and back. Pure.

use std::net::Ipv4Addr;

use mesh_proto::mesh::{
    TraceRequest, TraceResponse,
    trace_response::{Hop, Verdict as Wire},
};

use crate::trace::{Protocol, Question, Trace, Verdict};

/// An echo request with the payload that ping(8) sends.
const LENGTH: u32 = 84;

/// The longest packet there is.
const LONGEST: u32 = 65_535;

/// Why a question is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum QuestionError {
    /// No address.
    #[error("{what} {text:?} is not an IPv4 address")]
    Address {
        /// Which of them.
        what: &'static str,
        /// As it was given.
        text: String,
    },
    /// No protocol that is known here.
    #[error("protocol {0:?} is not icmp, tcp or udp")]
    Protocol(String),
    /// No port, or none where one is needed.
    #[error("port {port} is not one for {protocol}: 1 to 65535 for tcp and udp, none for icmp")]
    Port {
        /// The port.
        port: u32,
        /// The protocol.
        protocol: String,
    },
    /// No length.
    #[error("length {0} is not one of 28 to {LONGEST} bytes, and 40 for tcp")]
    Length(u32),
}

/// Reads a question.
///
/// # Errors
///
/// [`QuestionError`].
pub(crate) fn read(request: &TraceRequest) -> Result<Question, QuestionError> {
    let address = |what, text: &str| {
        text.parse::<Ipv4Addr>()
            .map_err(|_| QuestionError::Address {
                what,
                text: text.chars().take(64).collect(),
            })
    };
    let protocol = match request.protocol.as_str() {
        "" | "icmp" => Protocol::Icmp,
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => return Err(QuestionError::Protocol(other.chars().take(64).collect())),
    };
    let port = u16::try_from(request.port).ok();
    let port = port.filter(|port| (protocol == Protocol::Icmp) == (*port == 0));
    let port = port.ok_or_else(|| QuestionError::Port {
        port: request.port,
        protocol: match request.protocol.as_str() {
            "" => "icmp".to_owned(),
            protocol => protocol.to_owned(),
        },
    })?;
    let shortest = match protocol {
        Protocol::Tcp => 40,
        Protocol::Icmp | Protocol::Udp => 28,
    };
    let length = match request.length {
        0 => LENGTH,
        length => length,
    };
    if !(shortest..=LONGEST).contains(&length) {
        return Err(QuestionError::Length(length));
    }
    Ok(Question {
        source: address("source", &request.source)?,
        destination: address("destination", &request.destination)?,
        protocol,
        port,
        length,
        may_be_fragmented: request.may_be_fragmented,
        from_interface: request.from_interface.clone(),
    })
}

/// The answer.
pub(crate) fn write(trace: Trace) -> TraceResponse {
    let verdict = |verdict| match verdict {
        Verdict::Passes => Wire::Passes,
        Verdict::Drops => Wire::Drops,
        Verdict::NotEvaluated => Wire::NotEvaluated,
        Verdict::Elsewhere => Wire::Elsewhere,
    };
    let whole = verdict(trace.verdict());
    let hops = trace.hops.into_iter().map(|hop| Hop {
        place: hop.place,
        decision: hop.decision,
        evidence: hop.evidence,
        verdict: verdict(hop.verdict).into(),
    });
    TraceResponse {
        hops: hops.collect(),
        verdict: whole.into(),
        path: trace.path.to_owned(),
        other_node: trace.other_node,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(protocol: &str, port: u32) -> TraceRequest {
        TraceRequest {
            source: "10.42.1.2".to_owned(),
            destination: "10.42.2.2".to_owned(),
            protocol: protocol.to_owned(),
            port,
            ..TraceRequest::default()
        }
    }

    #[test]
    fn a_question_is_read_with_what_is_usual_where_nothing_is_said() {
        let question = read(&request("", 0)).unwrap();
        assert_eq!((question.protocol, question.length), (Protocol::Icmp, 84));
        let question = read(&request("udp", 53)).unwrap();
        assert_eq!((question.protocol, question.port), (Protocol::Udp, 53));
    }

    #[test]
    fn what_is_no_question_is_refused_by_name() {
        for (request, words) in [
            (request("sctp", 1), "sctp"),
            (request("tcp", 0), "port 0"),
            (request("icmp", 7), "port 7"),
            (request("udp", 65_536), "65536"),
            (
                TraceRequest {
                    source: "host1".to_owned(),
                    ..request("", 0)
                },
                "source \"host1\"",
            ),
            (
                TraceRequest {
                    length: 27,
                    ..request("", 0)
                },
                "length 27",
            ),
            (
                TraceRequest {
                    length: 39,
                    ..request("tcp", 1)
                },
                "length 39",
            ),
        ] {
            let error = read(&request).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
