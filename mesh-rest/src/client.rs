//! A client of the REST interface.
//!
//! It asks one control plane, once: which of several replicas is asked, and how often, is up to who uses it. It makes
//! no use of proxies and follows no redirects, every wait has a deadline, and no answer is read beyond a limit.

use std::{
    fmt::{self, Debug},
    sync::Arc,
    time::Duration,
};

use reqwest::{Method, Url};
use serde::Serialize;

use crate::{
    admitted::Admitted,
    check::{CheckOrdered, CheckState},
    feed_query::FeedQuery,
    health::Health,
    heartbeat::Heartbeat,
    heartbeat_token::HeartbeatToken,
    join::{AuthorityList, Join, Joined, Renew},
    leave::Leave,
    node_list::NodesAnswer,
    registration::Registration,
    release::{AllReleased, Release, ReleaseDeparted, Released},
    reservation::{Reserve, Unreserve},
    subnets::SubnetList,
    traffic::TrafficMatrix,
};

mod call;
mod connections;
mod error;
mod notice;

use call::Call;
pub use call::{ANSWER_LIMIT, TRAFFIC_LIMIT};
pub use connections::{Connections, trusting_nobody};
pub use error::{CallError, with_causes};
pub use notice::{Notice, Notices};

/// Keeps the token by which a host shows that it is no copy of a node.
pub trait Tokens: Debug + Send + Sync {
    /// What to come with next.
    fn token(&self) -> Option<HeartbeatToken>;

    /// Takes what was answered.
    fn keep(&self, token: HeartbeatToken);
}

/// What is shown with each call in `Authorization`, and nowhere else.
#[derive(Clone)]
struct Bearer(Arc<str>);

impl Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer")
    }
}

/// A client of one control plane.
#[derive(Debug, Clone)]
pub struct Client {
    connections: Connections,
    base: Url,
    deadline: Duration,
    tokens: Option<Arc<dyn Tokens>>,
    notices: Option<Arc<dyn Notices>>,
    bearer: Option<Bearer>,
}

impl Client {
    /// A client of the control plane at `base`, a URL of http or https, whose path is kept. `deadline` bounds each call,
    /// body included.
    #[must_use]
    pub fn new(connections: Connections, base: Url, deadline: Duration) -> Self {
        Self {
            connections,
            base,
            deadline,
            tokens: None,
            notices: None,
            bearer: None,
        }
    }

    /// The same, over other connections.
    #[must_use]
    pub fn over(self, connections: Connections) -> Self {
        Self {
            connections,
            ..self
        }
    }

    /// Shows the token of this host in a node's calls, and keeps those that are answered.
    #[must_use]
    pub fn showing(self, tokens: Arc<dyn Tokens>) -> Self {
        Self {
            tokens: Some(tokens),
            ..self
        }
    }

    /// Hands on what answers say beside their bodies.
    #[must_use]
    pub fn noticing(self, notices: Arc<dyn Notices>) -> Self {
        Self {
            notices: Some(notices),
            ..self
        }
    }

    /// Shows an operator's token with each call.
    #[must_use]
    pub fn bearing(self, token: &str) -> Self {
        Self {
            bearer: Some(Bearer(token.into())),
            ..self
        }
    }

    /// Where a path of the interface is.
    #[must_use]
    pub fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // A URL that cannot be a base has no segments; one of http can.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// Whether the control plane answers.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn health(&self) -> Result<Health, CallError> {
        self.get(&["health"]).json().await
    }

    /// Whether the process serves.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn livez(&self) -> Result<Health, CallError> {
        self.get(&["livez"]).json().await
    }

    /// Whether clients should be sent there.
    ///
    /// # Errors
    /// [`CallError::Status`] with 503 if they should not.
    pub async fn readyz(&self) -> Result<Health, CallError> {
        self.get(&["readyz"]).json().await
    }

    /// The authorities of the mesh, for whoever asks.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn authorities(&self) -> Result<AuthorityList, CallError> {
        self.get(&["api", "ca"]).json().await
    }

    /// Lets this host join, by a token. What is answered is not judged.
    ///
    /// # Errors
    /// [`CallError`]; its kind is [`crate::problem_kind::Kind::TokenRefused`] if the token is not one that does.
    pub async fn join(&self, join: &Join) -> Result<Joined, CallError> {
        self.post(&["api", "join"], Some(join)).json().await
    }

    /// Has the certificate that the connection shows made anew. What is answered is not judged.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn renew(&self, renew: &Renew) -> Result<Joined, CallError> {
        self.post(&["api", "renew"], Some(renew)).json().await
    }

    /// Registers a node. What is answered is not judged.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn register(&self, node: &Registration) -> Result<Admitted, CallError> {
        let call = self.post(&["api", "nodes", "register"], Some(node));
        call.showing(self.tokens.as_deref()).json().await
    }

    /// Every node; or, asked by a query, what changed, for which the control plane is given the query's wait beside
    /// the deadline.
    ///
    /// # Errors
    /// [`CallError::UnknownNode`] if the node that asks has to register again.
    pub async fn nodes(
        &self,
        query: Option<&FeedQuery>,
    ) -> Result<NodesAnswer<'static>, CallError> {
        let mut url = self.url(&["api", "nodes"]);
        let Some(query) = query else {
            return self.call(Method::GET, url).json().await;
        };
        url.query_pairs_mut().extend_pairs(query.parameters());
        let call = self.call(Method::GET, url).waiting(query.wait);
        call.showing(self.tokens.as_deref()).json().await
    }

    /// Says that a node lives, and perhaps how its data plane fares.
    ///
    /// # Errors
    /// [`CallError::UnknownNode`] if the node has to register again.
    pub async fn heartbeat(
        &self,
        node_id: &str,
        report: Option<&Heartbeat>,
    ) -> Result<(), CallError> {
        self.about_node(node_id, "heartbeat", report).await
    }

    /// Takes a node down at once, because its agent stops.
    ///
    /// # Errors
    /// [`CallError::UnknownNode`] if there is no such node.
    pub async fn deregister(&self, node_id: &str) -> Result<(), CallError> {
        self.about_node(node_id, "deregister", None::<&()>).await
    }

    /// Lets a node leave for good.
    ///
    /// # Errors
    /// [`CallError::UnknownNode`] if there is no such node.
    pub async fn leave(&self, node_id: &str, leave: &Leave) -> Result<(), CallError> {
        self.about_node(node_id, "leave", Some(leave)).await
    }

    /// Who sends how much to whom. Read as a whole, of at most [`TRAFFIC_LIMIT`].
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn traffic(&self) -> Result<TrafficMatrix<'static>, CallError> {
        let call = self.get(&["api", "traffic"]);
        call.json_within(TRAFFIC_LIMIT).await
    }

    /// Has every node ask its peers.
    ///
    /// # Errors
    /// [`CallError`]; its kind is [`crate::problem_kind::Kind::SlowDown`] if that was ordered a moment ago.
    pub async fn order_check(&self) -> Result<CheckOrdered, CallError> {
        self.post(&["api", "checks"], None::<&()>).json().await
    }

    /// What came of that. Read as a whole, of at most [`TRAFFIC_LIMIT`].
    ///
    /// # Errors
    /// [`CallError`]; its kind is [`crate::problem_kind::Kind::NoSuchCheck`] if there is none of that id, or no more.
    pub async fn check(&self, id: &str) -> Result<CheckState, CallError> {
        let call = self.get(&["api", "checks", id]);
        call.json_within(TRAFFIC_LIMIT).await
    }

    /// Leases and reservations.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn subnets(&self) -> Result<SubnetList, CallError> {
        self.get(&["api", "subnets"]).json().await
    }

    /// Ends the lease of a node that does not come back.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn release(&self, release: &Release) -> Result<Released, CallError> {
        self.of_subnets("release", release).json().await
    }

    /// Ends the leases of all nodes that left for good.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn release_departed(
        &self,
        release: &ReleaseDeparted,
    ) -> Result<AllReleased, CallError> {
        self.of_subnets("release-departed", release).json().await
    }

    /// Keeps a range from being handed out.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn reserve(&self, reserve: &Reserve) -> Result<(), CallError> {
        self.of_subnets("reserve", reserve).done().await
    }

    /// Lets a reserved range be handed out again.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn unreserve(&self, unreserve: &Unreserve) -> Result<(), CallError> {
        self.of_subnets("unreserve", unreserve).done().await
    }

    /// What is answered to a request as it is, status and body, be it success or not: for who goes by other doors as
    /// well. `path` begins with `/`, and may have a query; `body` is JSON.
    ///
    /// # Errors
    /// [`CallError`], other than [`CallError::Status`], [`CallError::UnknownNode`] and [`CallError::Copy`].
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&str>,
    ) -> Result<(u16, Vec<u8>), CallError> {
        let url = self.url_of(path);
        let call = self.call(method, url);
        match body {
            Some(body) => call.with_json(body).status_and_body().await,
            None => call.status_and_body().await,
        }
    }

    /// Where a path is that begins with `/`, and may have a query.
    fn url_of(&self, path: &str) -> Url {
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let mut url = self.url(&segments);
        url.set_query(query);
        url
    }

    async fn about_node(
        &self,
        node_id: &str,
        verb: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(), CallError> {
        let call = self.post(&["api", "nodes", node_id, verb], body);
        call.showing(self.tokens.as_deref()).about_node().await
    }

    fn of_subnets(&self, verb: &str, body: &impl Serialize) -> Call<'_> {
        self.post(&["api", "subnets", verb], Some(body))
    }

    fn get(&self, path: &[&str]) -> Call<'_> {
        self.call(Method::GET, self.url(path))
    }

    fn post(&self, path: &[&str], body: Option<&impl Serialize>) -> Call<'_> {
        let call = self.call(Method::POST, self.url(path));
        match body {
            Some(body) => call.with(body),
            None => call,
        }
    }

    fn call(&self, method: Method, url: Url) -> Call<'_> {
        let call = Call::new(self.connections.client(), method, url, self.deadline);
        let bearer = self.bearer.as_ref().map(|bearer| &*bearer.0);
        call.bearing(bearer).noticing(self.notices.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(base: &str) -> Client {
        let second = Duration::from_secs(1);
        let connections = Connections::new(second, "test").unwrap();
        Client::new(connections, base.parse().unwrap(), second)
    }

    #[test]
    fn a_path_of_the_base_url_is_kept() {
        for base in ["http://c/mesh", "http://c/mesh/"] {
            let call = client(base).url(&["api", "nodes"]);
            assert_eq!(call.as_str(), "http://c/mesh/api/nodes");
        }
    }

    #[test]
    fn a_path_that_is_asked_as_it_is_keeps_its_query() {
        let url = client("http://c/mesh").url_of("/api/audit?most=3");
        assert_eq!(url.as_str(), "http://c/mesh/api/audit?most=3");
        let url = client("http://c").url_of("/api/nodes");
        assert_eq!(url.as_str(), "http://c/api/nodes");
    }

    #[test]
    fn an_id_cannot_lead_to_another_call() {
        let url = client("http://c").url(&["api", "nodes", "../subnets/release?x#y", "leave"]);
        assert_eq!(
            url.as_str(),
            "http://c/api/nodes/..%2Fsubnets%2Frelease%3Fx%23y/leave"
        );
    }
}
