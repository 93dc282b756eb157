//! What the registry refuses, as the client is told.

use mesh_credentials::authority::AuthorityError;
use mesh_rest::problem::{self, FieldError};
use mesh_rest::problem_kind::Kind;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::{error, warn};

use super::problem::Problem;
use crate::cluster::identity::Clash;
use crate::credentials::refusal::CredentialError;
use crate::registry::{ChangeError, Holder};
use crate::store::StoreError;

/// What came of a sign that a node lives: one that no node gives has to register.
pub(super) fn of_sign<T>(outcome: Result<T, ChangeError>, id: &str) -> Result<T, Problem> {
    outcome.map_err(|error| match error {
        ChangeError::UnknownNode => {
            let detail = format!(
                "no registered node has the id {id:?}; register again with POST /api/nodes/register"
            );
            Problem::new(Kind::UnknownNode, detail)
        }
        error => error.into(),
    })
}

/// A body that has to be an object with certain fields. (A list of their values would be one to serde, and is none here.)
pub(super) fn object<T: DeserializeOwned>(json: Value) -> Result<T, Problem> {
    let wrong = |detail: String| {
        Problem::invalid_fields(vec![FieldError {
            pointer: "#".to_owned(),
            detail,
        }])
    };
    if !json.is_object() {
        return Err(wrong("the body must be a JSON object".to_owned()));
    }
    serde_json::from_value(json).map_err(|error| wrong(error.to_string()))
}

impl From<CredentialError> for Problem {
    fn from(error: CredentialError) -> Self {
        let message = error.to_string();
        let field = |pointer: &str| {
            Self::invalid_fields(vec![FieldError {
                pointer: pointer.to_owned(),
                detail: message.clone(),
            }])
        };
        match error {
            CredentialError::NoToken(_)
            | CredentialError::OtherMesh(_)
            | CredentialError::UnknownToken
            | CredentialError::TokenExpired { .. }
            | CredentialError::TokenRevoked(_)
            | CredentialError::TokenUsedUp { .. }
            | CredentialError::Ambiguous { .. } => Self::new(Kind::TokenRefused, message),
            CredentialError::Authority(AuthorityError::Make(_))
            | CredentialError::NoRandomNumbers(_) => {
                error!(name: "certificate-secret-cannot-made", %error, "a certificate or a secret cannot be made; this is a bug");
                Self::bug()
            }
            CredentialError::Authority(_) | CredentialError::OtherKey => field("#/request"),
            CredentialError::Field { field: name, .. } => field(&format!("#/{name}")),
            CredentialError::TooOften(retry_after) => Self::slow_down(&message, retry_after),
            CredentialError::NodeRevoked => Self::new(Kind::Unauthorized, message),
            CredentialError::NoAuthority(_) => Self::new(Kind::NoAuthority, message),
            CredentialError::NothingToRevoke { .. } => Self::new(Kind::NoSuchCredential, message),
            CredentialError::NotNow(_) => Self::new(Kind::NotNow, message),
            CredentialError::NotAnyMore(refused) => refused.into(),
            CredentialError::Store(error) => Self::from(&*error),
        }
    }
}

impl From<Holder> for problem::Holder {
    fn from(holder: Holder) -> Self {
        Self {
            host_ip: Some(holder.host_ip),
            hostname: holder.hostname,
            node_id: holder.node_id,
        }
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let message = error.to_string();
        match error {
            ChangeError::BeatsTooSeldom { .. } => {
                warn!(name: "registration-refused", reason = message, "registration refused");
                let detail = format!(
                    "heartbeat_interval_ms: {message}. Leave --heartbeat-interval away, or start the control plane \
                     with a longer --node-timeout"
                );
                Self::invalid_fields(vec![FieldError {
                    pointer: "#/heartbeat_interval_ms".to_owned(),
                    detail,
                }])
            }
            ChangeError::AddressKept { holder, from } => {
                warn!(name: "registration-refused-address-kept", holder_node_id = %holder.node_id, holder_hostname = holder.hostname, holder_host_ip = %holder.host_ip, from = from.map(tracing::field::display),
                    "registration refused: the address is kept for a node that is down");
                Self::new(Kind::AddressKept, message).held_by(holder.into())
            }
            ChangeError::AddressRemembered {
                address, holder, ..
            } => {
                warn!(name: "registration-refused-address-remembered", holder_node_id = %holder.node_id, holder_hostname = holder.hostname, host_ip = %address,
                    "registration refused: the address is remembered as that of a node that the database has lost");
                Self::new(Kind::AddressKept, message).held_by(problem::Holder {
                    host_ip: Some(address),
                    hostname: holder.hostname,
                    node_id: holder.node_id,
                })
            }
            ChangeError::InUse { clash, holder } => {
                warn!(name: "registration-refused-in-use", holder_node_id = %holder.node_id, holder_hostname = holder.hostname, holder_host_ip = %holder.host_ip, ?clash, "registration refused: in use");
                let advice = match clash {
                    Clash::Address | Clash::AddressUnproven => {
                        "give this host another address. If it is that node and lost its state, it is let in once that has been \
                         silent for the node timeout; in a mesh with certificates, by a token for that node \
                         (quilt-mesh-control token create --node)"
                    }
                    Clash::Key => {
                        "if this host's disk is a copy of that one's, delete the key file of the agent here"
                    }
                };
                Self::new(Kind::InUse, format!("{message}; {advice}")).held_by(holder.into())
            }
            ChangeError::SubnetsExhausted {
                subnets,
                reserved,
                held_by_down_nodes,
                ..
            } => {
                warn!(name: "registration-refused-no-subnet",
                    subnets,
                    reserved, held_by_down_nodes, "registration refused: no subnet is free"
                );
                Self::new(Kind::SubnetsExhausted, message)
                    .with("subnets", subnets)
                    .with("reserved", reserved)
                    .with("held_by_down_nodes", held_by_down_nodes)
            }
            ChangeError::Held(_) => Self::new(Kind::DatabaseUnavailable, message),
            ChangeError::UnknownNode => Self::new(Kind::UnknownNode, message),
            ChangeError::Copy { holder } => {
                let detail = format!(
                    "{message}; if it shall be a node of its own, remove node-key and node-token from its agent's state \
                     directory and restart the agent. If it is the original, stop the copy: this host goes on by itself \
                     when that has been silent for the node timeout"
                );
                let problem = Self::new(Kind::Copy, detail);
                match holder {
                    Some(holder) => problem.held_by(holder.into()),
                    None => problem,
                }
            }
            ChangeError::NeedsCertificate(holder) => {
                warn!(name: "registration-refused-no-certificate",
                    reason = message,
                    "registration refused: it needs a certificate"
                );
                let problem = Self::new(Kind::Unauthorized, message);
                match holder {
                    Some(holder) => problem.held_by(holder.into()),
                    None => problem,
                }
            }
            ChangeError::OtherName { .. } => {
                warn!(name: "registration-refused-token-of-another",
                    reason = message,
                    "registration refused: the join token was made for another name"
                );
                Self::new(Kind::Forbidden, message)
            }
            ChangeError::OtherKey { .. } => Self::new(Kind::OtherKey, message),
            ChangeError::HolderUp(tenant) | ChangeError::Leased(tenant) => {
                Self::new(Kind::InUse, message).held_by(problem::Holder {
                    host_ip: None,
                    hostname: tenant.hostname,
                    node_id: tenant.node_id,
                })
            }
            ChangeError::ReservedAlready(reservation) => {
                Self::new(Kind::InUse, message).with("reservation", reservation.cidr)
            }
            ChangeError::TooManyReservations(_) => Self::new(Kind::LimitReached, message),
            ChangeError::NotLeased => Self::new(Kind::NotLeased, message),
            ChangeError::NotReserved => Self::new(Kind::NotReserved, message),
            ChangeError::NotAnyMore(refused) => refused.into(),
            ChangeError::Stopping => Self::new(Kind::Overloaded, message),
            ChangeError::Store(error) => Self::from(&*error),
        }
    }
}

impl From<&StoreError> for Problem {
    fn from(error: &StoreError) -> Self {
        if matches!(error, StoreError::Statement(_)) {
            error!(name: "database-refused-statement", %error, "the database refused a statement; this is a bug");
            return Self::bug();
        }
        warn!(name: "request-needs-database-unavailable", %error, "a request needs the database, which is unavailable");
        Self::new(Kind::DatabaseUnavailable, error.to_string())
    }
}
