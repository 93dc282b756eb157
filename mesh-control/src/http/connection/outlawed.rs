//! Questions that wait, and whose senders may not ask any more.

use std::time::Duration;

use tokio::sync::watch;

use crate::access::origin::Origin;
use crate::access::{Access, Asked, Expiry};
use crate::api::problem::Problem;
use crate::http::admission;

/// How often questions that wait are looked at again while credentials change, at most. With what the answer takes it is
/// below a second.
const BETWEEN_LOOKS: Duration = Duration::from_millis(400);

/// Waits until what was let in may not ask any more. What has changed since is seen in `changes`.
pub(super) async fn outlawed(
    access: &Access,
    origin: &Origin,
    standing: &Asked,
    changes: &mut watch::Receiver<u64>,
) -> Box<Problem> {
    let mut expiry = access.until_expiry(origin);
    // Of all that are let in hardly one is outlawed between that and its waiting.
    let mut looks = expiry == Expiry::Over || changes.has_changed().unwrap_or(true);
    changes.mark_unchanged();
    loop {
        if looks && let Err(refused) = access.judge(origin, standing) {
            let what = "a question that waited";
            return Box::new(admission::refuse(
                access,
                origin,
                &standing.shown,
                what,
                refused,
            ));
        }
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    // Nobody changes them any more.
                    return std::future::pending().await;
                }
            }
            () = expired(expiry) => {}
        }
        // Ten thousand that wait do not all look at once, nor at each of a thousand changes.
        tokio::time::sleep(rand::random_range(Duration::ZERO..BETWEEN_LOOKS)).await;
        changes.mark_unchanged();
        expiry = access.until_expiry(origin);
        looks = true;
    }
}

async fn expired(expiry: Expiry) {
    match expiry {
        Expiry::In(left) => tokio::time::sleep(left).await,
        // What has expired already was taken for another reason.
        Expiry::Over | Expiry::NotInSight => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::Poll;

    use axum::http::{HeaderMap, Method, Uri};
    use mesh_credentials::certificate::Presented;
    use mesh_credentials::key_digest::KeyDigest;
    use mesh_credentials::name::{MeshId, Name};
    use mesh_rest::problem_kind::Kind;
    use mesh_rest::security::Stage;

    use super::*;
    use crate::access::credentials::NodeCredential;
    use crate::access::known::Known;
    use crate::access::names::Names;
    use crate::access::origin::{Certificate, Way};
    use crate::api::access::Needs;

    const NOW: i64 = 1_900_000_000;

    /// A node's question that was let in, and what becomes of it at once if `meanwhile` happens before it waits; `None`: it
    /// waits.
    async fn ask(not_after: i64, meanwhile: impl FnOnce(&Known)) -> Option<Kind> {
        let known = Arc::new(Known::new(Stage::Secured));
        let key = KeyDigest::of(b"key");
        let revoked = false;
        known.set_node("a", Some(NodeCredential { key, revoked }));
        let access = Access::new(known.clone(), false, Names::default()).with_clock(|| NOW);
        let name = Name::Node {
            mesh: MeshId::make(),
            node_id: "a".to_owned(),
        };
        let certificate = Certificate::Mesh(Presented {
            name,
            key,
            issuer: "authority".to_owned(),
            not_before: NOW - 9,
            not_after,
        });
        let origin = Origin {
            certificate: Some(certificate),
            way: Way::Tls,
            ..Origin::plain("192.0.2.1:1".parse().unwrap())
        };
        let uri = Uri::from_static("/api/nodes?since=1&wait=60&node=a");
        let asked = Asked::new(Needs::of(&Method::GET, &uri), &HeaderMap::new());
        let mut changes = access.changes();
        meanwhile(&known);
        let ended = pin!(outlawed(&access, &origin, &asked, &mut changes));
        match futures_util::poll!(ended) {
            Poll::Ready(problem) => Some(problem.kind()),
            Poll::Pending => None,
        }
    }

    fn revoke(known: &Known) {
        let key = KeyDigest::of(b"key");
        let revoked = true;
        known.set_node("a", Some(NodeCredential { key, revoked }));
    }

    #[tokio::test]
    async fn who_is_revoked_between_being_let_in_and_waiting_does_not_wait() {
        let ended = ask(NOW + 600, revoke).await;
        assert_eq!(ended, Some(Kind::Unauthorized));
    }

    #[tokio::test]
    async fn whose_certificate_has_ended_by_then_does_not_wait() {
        let ended = ask(NOW - 1, |_| ()).await;
        assert_eq!(ended, Some(Kind::CertificateExpired));
    }

    #[tokio::test]
    async fn of_whom_nothing_has_changed_waits() {
        let others = |known: &Known| {
            let key = KeyDigest::of(b"other");
            known.set_node("b", Some(NodeCredential { key, revoked: true }));
        };
        for meanwhile in [(|_| ()) as fn(&Known), others] {
            assert_eq!(ask(NOW + 600, meanwhile).await, None);
        }
    }
}
