//! Who asks: what was shown, held against what is known.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use mesh_credentials::authority::GRACE;
use mesh_credentials::certificate::Presented;
use mesh_credentials::name::Name;
use mesh_credentials::operator_token::OperatorToken;
use mesh_rest::node_id::NodeId;
use mesh_rest::operator::Role;
use mesh_rest::problem_kind::Kind;
use time::OffsetDateTime;

use super::Refused;
use super::credentials::Credentials;
use super::origin::{Origin, Way};

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
    /// Who asks on a connection from `origin`, at `now` in Unix seconds.
    ///
    /// # Errors
    ///
    /// What was shown is no valid credential.
    pub fn identify(
        origin: &Origin,
        shown: &Shown,
        credentials: &dyn Credentials,
        now: i64,
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
            (Shown::Nothing, Some(certificate)) => node(certificate, credentials, now),
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
) -> Result<Caller, Refused> {
    let refused = |kind, detail: String| Err(Refused::new(kind, detail));
    let Name::Node { node_id, .. } = &certificate.name else {
        let detail = format!(
            "the certificate is that of {}, not of a node",
            certificate.name
        );
        return refused(Kind::Unauthorized, detail);
    };
    let is_known = match credentials.node(node_id) {
        // What is revoked is known for as long as any certificate can be used: this one was given before the database was
        // lost, or went back to a backup. The authority has signed that it is the node's.
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
         join again with a token made for this node (quilt-mesh-control token create --node NAME)",
        clock(not_after),
        (now - not_after) / (24 * 60 * 60)
    );
    refused(Kind::CertificateExpired, detail)
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
mod tests {
    use axum::http::HeaderValue;
    use mesh_credentials::key_digest::KeyDigest;
    use mesh_credentials::name::MeshId;
    use mesh_credentials::secret::Secret;
    use mesh_rest::security::Stage;

    use super::super::credentials::{NodeCredential, OperatorCredential};
    use super::super::known::Known;
    use super::*;

    const NOW: i64 = 1_900_000_000;

    fn certificate(node_id: &str, key: &[u8], from: i64, until: i64) -> Presented {
        Presented {
            name: Name::Node {
                mesh: MeshId::make(),
                node_id: node_id.to_owned(),
            },
            key: KeyDigest::of(key),
            issuer: "authority".to_owned(),
            not_before: NOW + from,
            not_after: NOW + until,
        }
    }

    fn known() -> Known {
        let known = Known::new(Stage::Secured);
        for (node_id, revoked) in [("a", false), ("gone", true)] {
            let key = KeyDigest::of(b"key");
            known.set_node(node_id, Some(NodeCredential { key, revoked }));
        }
        known
    }

    fn by(certificate: Presented) -> Result<Caller, Kind> {
        let origin = Origin {
            certificate: Some(certificate),
            way: Way::Tls,
            ..Origin::plain("192.0.2.1:1".parse().unwrap())
        };
        Caller::identify(&origin, &Shown::Nothing, &known(), NOW).map_err(|refused| refused.kind)
    }

    #[test]
    fn a_node_is_its_key_in_its_time() {
        let node = NodeId::from("a".to_owned());
        assert_eq!(
            by(certificate("a", b"key", 0, 0)),
            Ok(Caller::Node(node.clone()))
        );
        assert_eq!(by(certificate("a", b"key", 1, 9)), Err(Kind::Clock));
        let renewing = Ok(Caller::Renewing(node));
        assert_eq!(by(certificate("a", b"key", -9, -1)), renewing);
        assert_eq!(by(certificate("a", b"key", -9 - GRACE, -GRACE)), renewing);
        let expired = Err(Kind::CertificateExpired);
        assert_eq!(
            by(certificate("a", b"key", -9 - GRACE, -GRACE - 1)),
            expired
        );
        let no = Err(Kind::Unauthorized);
        assert_eq!(by(certificate("a", b"other", 0, 9)), no);
        // Given before the database was lost: it holds as long as it says, and is not renewed afterwards.
        let unknown = Caller::Node(NodeId::from("b".to_owned()));
        assert_eq!(by(certificate("b", b"key", 0, 9)), Ok(unknown));
        assert_eq!(by(certificate("b", b"key", -9, -1)), expired);
        assert_eq!(by(certificate("gone", b"key", 0, 9)), no);
        let mut other = certificate("a", b"key", 0, 9);
        other.name = Name::ControlPlane {
            mesh: MeshId::make(),
        };
        assert_eq!(by(other), no);
    }

    #[test]
    fn times_that_do_not_fit_are_said_with_both_clocks() {
        let origin = Origin {
            certificate: Some(certificate("a", b"key", 60, 90)),
            ..Origin::plain("192.0.2.1:1".parse().unwrap())
        };
        let refused = Caller::identify(&origin, &Shown::Nothing, &known(), NOW).unwrap_err();
        for time in ["2030-03-17T17:46:40Z", "2030-03-17T17:47:40Z"] {
            assert!(refused.detail.contains(time), "{}", refused.detail);
        }
    }

    #[test]
    fn an_operator_is_the_secret_of_a_token_that_was_not_revoked() {
        let token = |id: &str| OperatorToken {
            id: id.to_owned(),
            secret: Secret::make().unwrap(),
        };
        let (a, gone) = (token("a"), token("gone"));
        let known = Known::new(Stage::Secured);
        for (token, revoked) in [(&a, false), (&gone, true)] {
            let credential = OperatorCredential {
                digest: token.secret.digest(),
                role: Role::Read,
                name: "Ada".to_owned(),
                revoked,
            };
            known.set_operator(&token.id, credential);
        }
        let origin = Origin::plain("192.0.2.1:1".parse().unwrap());
        let by = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
            let shown = Shown::in_headers(&headers);
            Caller::identify(&origin, &shown, &known, NOW).map_err(|refused| refused.kind)
        };
        let ada = Caller::Operator {
            id: "a".to_owned(),
            name: "Ada".to_owned(),
            role: Role::Read,
        };
        assert_eq!(by(&format!("Bearer {a}")), Ok(ada.clone()));
        assert_eq!(by(&format!("bearer {a}")), Ok(ada));
        let other = OperatorToken {
            secret: gone.secret.clone(),
            ..a.clone()
        };
        for wrong in [
            format!("Bearer {gone}"),
            format!("Bearer {other}"),
            format!("Bearer {}", token("b")),
            format!("Bearer {}x", a),
            format!("Bearer{a}"),
            "Bearer ".to_owned(),
            "Bearer".to_owned(),
            String::new(),
        ] {
            assert_eq!(by(&wrong), Err(Kind::Unauthorized), "{wrong}");
        }
        assert_eq!(by("Basic YTpi"), Ok(Caller::Nobody));
        let twice = [&a, &gone].map(|token| {
            let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
            (AUTHORIZATION, value)
        });
        let mut headers = HeaderMap::new();
        for (name, value) in twice {
            headers.append(name, value);
        }
        assert_eq!(Shown::in_headers(&headers), Shown::Garbage);
    }

    #[test]
    fn whoever_opens_the_admin_socket_is_the_admin() {
        let caller = Caller::identify(&Origin::admin(), &Shown::Garbage, &known(), NOW);
        assert_eq!(caller, Ok(Caller::Admin));
    }
}
