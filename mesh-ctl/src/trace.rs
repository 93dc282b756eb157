//! `meshctl trace`.

use std::path::Path;

use mesh_client::{
    ClientError, inspect,
    mesh::{
        TraceRequest, TraceResponse,
        trace_response::{Hop, Verdict as Wire},
    },
};
use serde_json::json;

use crate::{Verdict, output::say};

/// What would become of a packet on this node.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Trace {
    /// Who sends: the address of a container here or on another node, of this host, or of anybody else.
    #[arg(value_name = "SRC")]
    source: String,
    /// Whom it is for.
    #[arg(value_name = "DST")]
    destination: String,
    /// An echo request, or the first packet of a connection.
    #[arg(long, value_name = "PROTOCOL", value_parser = ["icmp", "tcp", "udp"], default_value = "icmp")]
    proto: String,
    /// The port that it is for.
    #[arg(
        long,
        value_name = "PORT",
        required_if_eq_any([("proto", "tcp"), ("proto", "udp")]),
        default_value_t,
        hide_default_value = true
    )]
    port: u16,
    /// Length of the packet from its IP header on, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 84)]
    size: u32,
    /// A router may cut the packet up.
    #[arg(long)]
    fragment: bool,
    /// The interface by which it comes, where that is not the one behind which SRC is known to be.
    #[arg(
        long,
        value_name = "INTERFACE",
        default_value_t,
        hide_default_value = true
    )]
    from: String,
    /// Print a document for a machine.
    #[arg(long)]
    json: bool,
}

/// Prints the way of the packet, and says what becomes of it.
pub(crate) async fn trace(socket: &Path, options: Trace) -> anyhow::Result<Verdict> {
    let request = TraceRequest {
        source: options.source,
        destination: options.destination,
        protocol: options.proto,
        port: options.port.into(),
        length: options.size,
        may_be_fragmented: options.fragment,
        from_interface: options.from,
    };
    let mut client = inspect(socket).await?;
    let answer = client.trace(request).await.map_err(ClientError::from)?;
    let answer = answer.into_inner();
    match options.json {
        true => say(format_args!("{:#}", document(&answer)))?,
        false => say(text(&answer))?,
    }
    Ok(match answer.verdict() {
        Wire::Passes => Verdict::Fine,
        Wire::Drops => Verdict::Wrong,
        Wire::NotEvaluated | Wire::Elsewhere | Wire::Unspecified => Verdict::Unknown,
    })
}

fn word(verdict: Wire) -> &'static str {
    match verdict {
        Wire::Passes => "passes",
        Wire::Drops => "drops",
        Wire::NotEvaluated => "not evaluated",
        Wire::Elsewhere => "elsewhere",
        Wire::Unspecified => "unknown",
    }
}

fn text(answer: &TraceResponse) -> String {
    let hops = answer
        .hops
        .iter()
        .enumerate()
        .map(|(number, hop)| lines(number + 1, hop));
    let mut text: String = hops.collect();
    text.push_str(&conclusion(answer));
    text
}

fn lines(number: usize, hop: &Hop) -> String {
    let mut lines = format!(
        "{number:2}  {:13}  {}: {}\n",
        word(hop.verdict()),
        hop.place,
        hop.decision
    );
    for evidence in &hop.evidence {
        lines.push_str(&format!("{:19}{evidence}\n", ""));
    }
    lines
}

fn conclusion(answer: &TraceResponse) -> String {
    let path = match answer.path.as_str() {
        "" => String::new(),
        path => format!(", by the {path} path"),
    };
    let other = match answer.other_node.as_str() {
        "" => String::new(),
        other => format!("; {other} decides its part"),
    };
    match answer.verdict() {
        Wire::Passes => format!("passes here{path}{other}"),
        Wire::Drops => "is dropped here".to_owned(),
        _ => "cannot be told: what is not evaluated decides".to_owned(),
    }
}

fn document(answer: &TraceResponse) -> serde_json::Value {
    let hops = answer.hops.iter().map(|hop| {
        json!({
            "place": hop.place,
            "decision": hop.decision,
            "evidence": hop.evidence,
            "verdict": word(hop.verdict()),
        })
    });
    json!({
        "verdict": word(answer.verdict()),
        "path": answer.path,
        "other_node": answer.other_node,
        "hops": hops.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(verdict: Wire) -> TraceResponse {
        let hop = Hop {
            place: "qm1, program encapsulate".to_owned(),
            decision: "carried by the fast path: out of eth0 to 192.0.2.3".to_owned(),
            evidence: vec!["map endpoints: 10.42.1.2 is behind qm1".to_owned()],
            verdict: Wire::Passes.into(),
        };
        TraceResponse {
            hops: vec![hop],
            verdict: verdict.into(),
            path: "fast".to_owned(),
            other_node: "host2".to_owned(),
        }
    }

    #[test]
    fn each_place_has_its_line_and_the_last_says_what_becomes_of_the_packet() {
        assert_eq!(
            text(&answer(Wire::Passes)),
            " 1  passes         qm1, program encapsulate: carried by the fast path: out of eth0 to 192.0.2.3\n\
             \x20                  map endpoints: 10.42.1.2 is behind qm1\n\
             passes here, by the fast path; host2 decides its part"
        );
        assert!(text(&answer(Wire::Drops)).ends_with("is dropped here"));
        assert!(text(&answer(Wire::NotEvaluated)).ends_with("what is not evaluated decides"));
    }
}
