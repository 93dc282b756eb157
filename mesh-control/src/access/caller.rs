//! Who asks: what was shown, held against what is known.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use mesh_credentials::authority::GRACE;
use mesh_credentials::certificate::Presented;
use mesh_credentials::name::Name;
use mesh_credentials::operator_token::OperatorToken;
use mesh_credentials::own_certificate::{self, OwnCertificate};
use mesh_rest::node_id::NodeId;
use mesh_rest::operator::Role;
use mesh_rest::problem_kind::Kind;
use time::OffsetDateTime;

use super::Refused;
use super::credentials::Credentials;
use super::origin::{Certificate, Origin, Way};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Root of this host, or the control plane's own user.
    Admin,
    /// A person, or a person's program.
    Operator {
        /// The id of the token.
        id: String,
        /// Who it is.
        name: String,
        /// What the operator may do.
        role: Role,
    },
    /// A node, whose certificate holds.
    Node(NodeId),
    /// A node whose certificate has expired, and not too long ago for another one.
    Renewing(NodeId),
    /// Somebody who has shown nothing.
    Nobody,
}

/// As it stands in the log and in the audit.
impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Admin => f.write_str("admin"),
            Self::Operator { id, name, .. } => write!(f, "operator {name} ({id})"),
            Self::Node(node_id) | Self::Renewing(node_id) => write!(f, "node {node_id}"),
            Self::Nobody => f.write_str("nobody"),
        }
    }
}

/// What a request shows beside its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Nothing.
    Nothing,
    /// An operator's token.
    Token(Box<OperatorToken>),
    /// A token that cannot be one.
    Garbage,
    /// The token of this operator, which was found right before.
    Operator(Box<str>),
}

impl Shown {
    /// What stands in `Authorization` (RFC 6750 section 2.1). Another scheme than `Bearer` is of somebody else, such as a
    /// proxy, and shows nothing here.
    pub fn in_headers(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Self::Nothing;
        };
        if values.next().is_some() {
            // Two servers may go by different ones.
            return Self::Garbage;
        }
        let Some((scheme, token)) = value.to_str().unwrap_or_default().split_once(' ') else {
            return Self::Garbage;
        };
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Self::Nothing;
        }
        match token.parse() {
            Ok(token) => Self::Token(Box::new(token)),
            Err(_) => Self::Garbage,
        }
    }
}

impl Caller {
    /// Who asks on a connection from `origin`, at `now` in Unix seconds; `renews`: for a new certificate.
    ///
    /// # Errors
    ///
    /// What was shown is no valid credential.
    pub fn identify(
        origin: &Origin,
        shown: &Shown,
        credentials: &dyn Credentials,
        now: i64,
        renews: bool,
    ) -> Result<Self, Refused> {
        if origin.way == Way::AdminSocket {
            return Ok(Self::Admin);
        }
        match (shown, &origin.certificate) {
            (Shown::Token(token), _) => {
                let known = credentials.operator(&token.id);
                let known = known.filter(|known| known.digest.is_of(&token.secret));
                operator(&token.id, known)
            }
            (Shown::Operator(id), _) => operator(id, credentials.operator(id)),
            (Shown::Garbage, _) => Err(Refused::new(
                Kind::Unauthorized,
                "what stands in Authorization is no operator's token (quilt-mesh-control operator create prints one)",
            )),
            (Shown::Nothing, Some(Certificate::Mesh(certificate))) => {
                node(certificate, credentials, now, renews)
            }
            (Shown::Nothing, Some(Certificate::Own(certificate))) => {
                own_node(certificate, credentials, now)
            }
            (Shown::Nothing, None) => Ok(Self::Nobody),
        }
    }
}

fn operator(
    id: &str,
    known: Option<super::credentials::OperatorCredential>,
) -> Result<Caller, Refused> {
    match known {
        Some(known) if !known.revoked => Ok(Caller::Operator {
            id: id.to_owned(),
            name: known.name,
            role: known.role,
        }),
        // One answer for both: who has not the secret learns nothing of the operator.
        _ => Err(Refused::new(
            Kind::Unauthorized,
            "the operator's token is not one of this cluster, or was revoked",
        )),
    }
}

fn node(
    certificate: &Presented,
    credentials: &dyn Credentials,
    now: i64,
    renews: bool,
) -> Result<Caller, Refused> {
    let refused = |kind, detail: String| Err(Refused::new(kind, detail));
    let Name::Node { node_id, .. } = &certificate.name else {
        let detail = format!(
            "the certificate is that of {}, not of a node",
            certificate.name
        );
        return refused(Kind::Unauthorized, detail);
    };
    if !credentials.trusts(certificate) {
        let detail = "the authority that signed the certificate is trusted no longer; join again with a token made for this node";
        return refused(Kind::Unauthorized, detail.to_owned());
    }
    let is_known = match credentials.node(node_id) {
        // What is revoked is known for as long as any certificate can be used: this one was given before the database was
        // lost, or went back to a backup. The authority has signed that it is the node's, which counts for the one that
        // signs now alone: of another one, the key may have been stolen.
        None if !credentials.signs(certificate) => return Err(unknown_by_another_authority()),
        None => false,
        Some(known) if known.revoked => {
            let detail =
                format!("the node {node_id} was revoked; join again with a token made for it");
            return refused(Kind::Unauthorized, detail);
        }
        Some(known) if known.key != certificate.key => {
            let detail =
                format!("another host has joined as the node {node_id} since, with another key");
            return refused(Kind::Unauthorized, detail);
        }
        Some(_) => true,
    };
    let (not_before, not_after) = (certificate.not_before, certificate.not_after);
    if now < not_before && is_known && renews {
        // The control plane's clock was ahead when it signed this, and is right again: who has the key gets another.
        return Ok(Caller::Renewing(NodeId::from(node_id.clone())));
    }
    if now < not_before {
        let detail = format!(
            "the certificate holds from {} on, and the clock of the control plane shows {}: set the control plane's clock, \
             or, if it was set back because it was wrong, join again with a token made for this node",
            clock(not_before),
            clock(now)
        );
        return refused(Kind::Clock, detail);
    }
    let node_id = NodeId::from(node_id.clone());
    if now <= not_after {
        return Ok(Caller::Node(node_id));
    }
    if is_known && now <= not_after.saturating_add(GRACE) {
        return Ok(Caller::Renewing(node_id));
    }
    let detail = format!(
        "the certificate has expired at {} ({} days before the control plane's clock), and cannot be renewed any more; \
         join again with a token (quilt-mesh-control token create, and the agent's --join)",
        clock(not_after),
        (now - not_after) / (24 * 60 * 60)
    );
    refused(Kind::CertificateExpired, detail)
}

/// What is answered to a certificate for a node that is not known, of an authority that does not sign any more.
pub(crate) fn unknown_by_another_authority() -> Refused {
    Refused::new(
        Kind::JoinAgain,
        "no node with this certificate is known here, and another authority has taken the place of the one that signed it: \
         join again with a token (quilt-mesh-control token create, and the agent's --join; no file has to be removed), made with \
         --node where there is a node that this host was",
    )
}

/// Whether it holds yet was seen by who verified it.
fn own_node(
    certificate: &OwnCertificate,
    credentials: &dyn Credentials,
    now: i64,
) -> Result<Caller, Refused> {
    let OwnCertificate {
        identity,
        not_after,
    } = certificate;
    let (name, called) = (identity.digest(), identity.as_str());
    let node_id = credentials
        .node_called(name)
        .unwrap_or_else(|| own_certificate::node_id(name));
    let refused = |kind, detail: String| Err(Refused::new(kind, detail));
    match credentials.node(&node_id) {
        Some(known) if known.revoked => refused(
            Kind::Unauthorized,
            format!("the node {node_id}, which this certificate calls {called:?}, was revoked"),
        ),
        Some(known) if known.key != name => refused(
            Kind::Unauthorized,
            format!(
                "a host has joined as the node {node_id} since, with a certificate of the mesh"
            ),
        ),
        _ if now > *not_after => refused(
            Kind::CertificateExpired,
            format!(
                "the certificate of {called:?} has expired at {}, and the control plane's clock shows {}: connect again with \
                 a new one of the same authority",
                clock(*not_after),
                clock(now)
            ),
        ),
        _ => Ok(Caller::Node(NodeId::from(node_id))),
    }
}

/// RFC 3339, in UTC.
pub(crate) fn clock(seconds: i64) -> String {
    match OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(time) => {
            let (date, (hour, minute, second)) = (time.date(), time.to_hms());
            format!("{date}T{hour:02}:{minute:02}:{second:02}Z")
        }
        Err(_) => format!("{seconds} s since 1970"),
    }
}

#[cfg(test)]
mod tests;
