//! How a host comes by a certificate, and by a new one.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use mesh_credentials::join_token::JoinToken;
use mesh_rest::join::{AuthorityList, Join, Joined, Renew};
use mesh_rest::problem_kind::Kind;

use super::asker::Asker;
use super::openapi::{WhenJoining, WhenListingAuthorities, WhenRenewing};
use super::problem::Problem;
use super::refusal::object;
use crate::access::origin::Certificate;
use crate::credentials::refusal::CredentialError;
use crate::http::body;
use crate::registry::Registry;

/// Join the mesh
///
/// A host that brings a join token gets a certificate that says which node it is. Only the key in its request counts. It
/// registers with that certificate.
#[utoipa::path(post, path = "/api/join", tag = "credentials", request_body = Join,
    responses((status = 200, body = Joined), WhenJoining))]
pub(super) async fn join(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<Json<Joined>, Problem> {
    let mut asker = Asker::of(&request);
    let json = body::json(request).await?;
    let join: Join = object(json)?;
    let joined = body::within_deadline(registry.join(&join, &asker.doer.source)).await?;
    match joined {
        Ok(joined) => Ok(Json(joined)),
        Err(error) => {
            // Its secret was right, or it would have been refused for that.
            if let CredentialError::NodeRevoked | CredentialError::TooOften(_) = error
                && let Ok(token) = join.token.parse::<JoinToken>()
            {
                asker.doer.who = format!("token {}", token.id);
            }
            let outcome = error.to_string();
            let problem = Problem::from(error);
            let what = format!("join: {outcome}");
            match problem.kind() {
                // It is kept as seldom as it is logged.
                Kind::TokenRefused | Kind::InvalidFields | Kind::Unauthorized => {
                    Err(asker.refuse(&what, problem))
                }
                Kind::SlowDown => Err(slowed_down(&asker, &what, problem)),
                _ => {
                    registry.note(asker.doer.tried("join", "", &outcome));
                    Err(problem)
                }
            }
        }
    }
}

/// Get a new certificate in the place of one
///
/// Over TLS with the certificate that is to be replaced, and for the same key. One that has expired is taken here for
/// another 30 days. What an authority of one's own has signed (`--tls-ca`) is not renewed here.
#[utoipa::path(post, path = "/api/renew", tag = "credentials", request_body = Renew,
    responses((status = 200, body = Joined), WhenRenewing))]
pub(super) async fn renew(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Result<Json<Joined>, Problem> {
    let asker = Asker::of(&request);
    let json = body::json(request).await?;
    let renew: Renew = object(json)?;
    let (Some(node), Some(certificate)) = (&asker.node, &asker.certificate) else {
        return Err(Problem::new(
            Kind::Unauthorized,
            "only who shows a certificate gets a new one in its place; a host without one joins (POST /api/join)",
        ));
    };
    let Certificate::Mesh(certificate) = certificate else {
        return Err(Problem::new(
            Kind::Forbidden,
            "this certificate is of an authority of your own, which makes the next one as well: put that in the place of \
             this one",
        ));
    };
    let renewed = registry.renew_certificate(node, certificate, &renew.request, &asker.doer);
    let renewed = body::within_deadline(renewed).await?;
    renewed.map(Json).map_err(|error| {
        let what = format!("renewal: {error}");
        let problem = Problem::from(error);
        match problem.kind() {
            Kind::SlowDown => slowed_down(&asker, &what, problem),
            _ => problem,
        }
    })
}

/// Notes, as seldom as other refusals, that a host was given no certificate because it was given so many. It is told when
/// there is one again, and not what its source would be told.
fn slowed_down(asker: &Asker, what: &str, problem: Problem) -> Problem {
    let _of_source = asker.refuse(what, problem.clone());
    problem
}

/// The mesh's certificate authorities
#[utoipa::path(get, path = "/api/ca", tag = "credentials", operation_id = "authorities",
    responses((status = 200, body = AuthorityList), WhenListingAuthorities))]
pub(super) async fn authorities(
    State(registry): State<Arc<Registry>>,
) -> Result<Json<AuthorityList>, Problem> {
    Ok(Json(registry.authority_list()?))
}
