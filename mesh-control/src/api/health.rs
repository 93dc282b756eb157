//! Whether the control plane answers, lives, and can do its work.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use mesh_rest::health::{self, Health};
use mesh_rest::problem_kind::Kind;
use serde_json::json;

use crate::api::openapi::WhenReady;
use crate::api::problem::Problem;
use crate::registry::{ChangeError, Registry};
use crate::store::StoreError;

/// How long the database may take to answer.
const DATABASE_DEADLINE: Duration = Duration::from_secs(2);

/// How long ago this replica may have read what the others do: it does every second.
const MOST_LAG: Duration = Duration::from_secs(3);

/// Whether the control plane answers
#[utoipa::path(get, path = "/health", tag = "service", responses((status = 200, body = Health)))]
pub(super) async fn health() -> Json<Health> {
    Json(health::OK)
}

/// Whether the process serves
///
/// It looks at nothing else: restarting it because the database is away would help nobody.
#[utoipa::path(get, path = "/livez", tag = "service", responses((status = 200, body = Health)))]
pub(super) async fn livez() -> Json<Health> {
    Json(health::OK)
}

/// Whether clients should be sent here
///
/// The database answers, and this replica follows the others closely. Otherwise `failing` names what does not hold:
/// `database`, `follower` (no contact with the other replicas), `lag` (what they did is not known yet), `settings`
/// (another replica was started with other options than this one, and they have to be the same).
#[utoipa::path(get, path = "/readyz", tag = "service", responses((status = 200, body = Health), WhenReady))]
pub(super) async fn readyz(State(registry): State<Arc<Registry>>) -> Result<Json<Health>, Problem> {
    let failing = failing(&registry).await;
    if failing.is_empty() {
        return Ok(Json(health::OK));
    }
    let (names, details): (Vec<_>, Vec<_>) = failing.into_iter().unzip();
    Err(Problem::new(Kind::NotReady, details.join("; ")).with("failing", json!(names)))
}

/// What keeps clients from being sent here, each with its name.
pub(crate) async fn failing(registry: &Registry) -> Vec<(&'static str, String)> {
    let mut failing = Vec::new();
    // One read for all who ask at once.
    match tokio::time::timeout(DATABASE_DEADLINE, registry.try_catch_up()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => failing.push(("database", error.to_string())),
        Err(_) => {
            let seconds = DATABASE_DEADLINE.as_secs();
            failing.push((
                "database",
                format!("the database did not answer within {seconds} s"),
            ));
        }
    }
    failing.extend(following(registry));
    failing
}

/// What is wrong with how this replica follows the others, if there are any.
fn following(registry: &Registry) -> Option<(&'static str, String)> {
    let lag = registry.lag()?;
    let ago = format!(
        "what the other replicas do was last read {:.1} s ago",
        lag.as_secs_f64()
    );
    match registry.check_contact() {
        Err(ChangeError::Store(error)) if matches!(*error, StoreError::OtherSettings { .. }) => {
            Some(("settings", error.to_string()))
        }
        Err(_) => Some((
            "follower",
            format!("there is no contact with the other replicas: {ago}"),
        )),
        Ok(()) => (lag > MOST_LAG).then_some(("lag", ago)),
    }
}
