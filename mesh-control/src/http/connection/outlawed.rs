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
    // Of all that are let in hardly one is outlawed between that and its waiting. It is marked as seen in the same moment:
    // what changes after that is heard of below.
    let has_changed = changes.borrow_and_update().has_changed();
    let mut looks = has_changed || expiry == Expiry::Over;
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
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
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

    /// A node, and its question that was let in.
    struct Asks {
        known: Arc<Known>,
        access: Access,
        origin: Origin,
        asked: Asked,
        changes: watch::Receiver<u64>,
        /// How often the clock was looked at: once when a question begins to wait, and once whenever it is judged.
        looks: Arc<AtomicUsize>,
    }

    impl Asks {
        fn until(not_after: i64) -> Self {
            let known = Arc::new(Known::new(Stage::Secured));
            let looks = Arc::<AtomicUsize>::default();
            let counted = Arc::clone(&looks);
            let access =
                Access::new(known.clone(), false, Names::default()).with_clock(move || {
                    counted.fetch_add(1, Relaxed);
                    NOW
                });
            let certificate = Certificate::Mesh(Presented {
                name: Name::Node {
                    mesh: MeshId::make(),
                    node_id: "a".to_owned(),
                },
                key: KeyDigest::of(b"a"),
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
            let asks = Self {
                changes: access.changes(),
                known,
                access,
                origin,
                asked,
                looks,
            };
            asks.know("a", false);
            asks
        }

        fn know(&self, node_id: &str, revoked: bool) {
            let key = KeyDigest::of(node_id.as_bytes());
            let credential = NodeCredential { key, revoked };
            self.known.set_node(node_id, Some(credential));
        }

        /// What becomes of it at once when it begins to wait, if `meanwhile` happens after it was let in. `None`: it waits.
        async fn wait(&mut self, meanwhile: impl FnOnce(&Self)) -> Option<Kind> {
            self.changes.mark_unchanged();
            meanwhile(self);
            let ended = outlawed(&self.access, &self.origin, &self.asked, &mut self.changes);
            match futures_util::poll!(pin!(ended)) {
                Poll::Ready(problem) => Some(problem.kind()),
                Poll::Pending => None,
            }
        }
    }

    #[tokio::test]
    async fn who_is_revoked_between_being_let_in_and_waiting_does_not_wait() {
        let mut asks = Asks::until(NOW + 600);
        let ended = asks.wait(|asks| asks.know("a", true)).await;
        assert_eq!(ended, Some(Kind::Unauthorized));
    }

    #[tokio::test]
    async fn who_was_revoked_while_an_earlier_question_waited_does_not_wait() {
        let mut asks = Asks::until(NOW + 600);
        assert_eq!(asks.wait(|_| ()).await, None);
        let ended = asks.wait(|asks| asks.know("a", true)).await;
        assert_eq!(ended, Some(Kind::Unauthorized));
    }

    #[tokio::test]
    async fn whose_certificate_has_ended_by_then_does_not_wait() {
        let ended = Asks::until(NOW - 1).wait(|_| ()).await;
        assert_eq!(ended, Some(Kind::CertificateExpired));
    }

    #[tokio::test]
    async fn who_asks_is_judged_again_only_where_something_has_changed_and_waits_if_it_may() {
        let mut asks = Asks::until(NOW + 600);
        assert_eq!(asks.wait(|_| ()).await, None);
        assert_eq!(asks.looks.swap(0, Relaxed), 1);
        assert_eq!(asks.wait(|asks| asks.know("b", true)).await, None);
        assert_eq!(asks.looks.swap(0, Relaxed), 2);
    }
}
