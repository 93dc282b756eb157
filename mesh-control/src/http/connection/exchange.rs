//! One request with hyper, from its head to the last byte of its answer.
//!
//! hyper does not tell when it has nothing left to do, so what goes in and out of it is watched: the request, its
//! answer, and whether what was written has left.

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Method, Request, Response, Uri};
use axum::response::IntoResponse as _;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use mesh_rest::check::CHECK_HEADER;
use mesh_rest::join::{AUTHORITIES_HEADER, INSECURE_HEADER};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{debug, error};

use super::head::{Head, Length};
use super::line::Line;
use super::request_end::Extent;
use super::wire::Wire;
use super::{LINGER_DEADLINE, MOST_LINGERING, Site, Waited};
use crate::access::caller::Caller;
use crate::access::origin::Origin;
use crate::access::{Access, Asked as Standing};
use crate::api::access::{Entry, NODE_LIST, Rule};
use crate::api::asker::WhoAsks;
use crate::api::guard::LetIn;
use crate::api::no_route::panicked;
use crate::api::nodes::after_waiting;
use crate::api::problem::Problem;
use crate::http::admission::Admitted;
use crate::http::concurrency::{FOR_OTHERS, Room};
use crate::registry::Registry;

/// A request that hyper gets the connection for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) head: usize,
    pub(super) body: Length,
    pub(super) asks_first: bool,
    pub(super) room: &'static Room,
    of: Of,
}

/// What it is.
#[derive(Debug)]
enum Of {
    /// As it was admitted.
    Request(Box<AsAdmitted>),
    /// Of the change feed; it has waited.
    Question(Box<Waited>),
    /// It is none, and this is what to say about it.
    Nothing(Box<Problem>),
}

impl Of {
    /// The call, if it is one that there is.
    fn entry(&self) -> Option<&'static Entry> {
        match self {
            Self::Request(admitted) => admitted.let_in.entry,
            Self::Question(_) => Some(&NODE_LIST),
            Self::Nothing(_) => None,
        }
    }
}

/// A request as it was admitted, and for whom.
#[derive(Debug)]
struct AsAdmitted {
    method: Method,
    uri: Uri,
    let_in: LetIn,
    caller: Caller,
    asked: Standing,
    origin: Arc<Origin>,
}

impl Asked {
    pub(super) fn request(head: &Head, admitted: Admitted, origin: &Arc<Origin>) -> Self {
        let let_in = admitted.let_in();
        Self {
            head: head.length,
            body: head.body,
            asks_first: head.asks_first(),
            room: admitted.room,
            of: Of::Request(Box::new(AsAdmitted {
                method: head.method.clone(),
                uri: head.uri.clone(),
                let_in,
                caller: admitted.caller,
                asked: admitted.asked,
                origin: Arc::clone(origin),
            })),
        }
    }

    /// A question whose head alone is kept, shortened to so many bytes.
    pub(super) fn question(head: usize, waited: Waited, room: &'static Room) -> Self {
        Self {
            head,
            body: Length::Known(0),
            asks_first: false,
            room,
            of: Of::Question(Box::new(waited)),
        }
    }

    /// A question that does not wait, as it came.
    pub(super) fn question_at_once(
        head: &Head,
        waited: Waited,
        admitted: Admitted,
        origin: &Arc<Origin>,
    ) -> Self {
        Self {
            of: Of::Question(Box::new(waited)),
            ..Self::request(head, admitted, origin)
        }
    }

    /// hyper answers requests only, so in the place of what came it gets one.
    pub(super) fn nothing<S>(line: &mut Line<S>, problem: Problem) -> Self {
        const ANY: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
        line.replace_unread(ANY);
        Self {
            head: ANY.len(),
            body: Length::Known(0),
            asks_first: false,
            room: &FOR_OTHERS,
            of: Of::Nothing(Box::new(problem)),
        }
    }
}

/// Lets hyper have a request answered. Gives back the connection, if it goes on.
pub(super) async fn exchange<S>(line: Line<S>, asked: Asked, site: &Site) -> Option<Line<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let progress = Arc::<Progress>::default();
    let extent = Extent::new(asked.head, asked.body);
    let wire = Wire::new(line, extent, Arc::clone(&progress), asked.room);
    let api = OneRequest {
        app: TowerToHyperService::new(site.app.clone()),
        registry: Arc::clone(&site.registry),
        access: Arc::clone(&site.access),
        room: asked.room,
        of: Mutex::new(Some(asked.of)),
        progress: Arc::clone(&progress),
        began: Instant::now(),
    };
    let mut connection = site.http.serve_connection(TokioIo::new(wire), api);
    let mut stopping = pin!(site.stop.cancelled());
    let (mut stopped, mut told) = (false, false);
    let ended = poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Some(ended));
            }
            stopped = stopped || stopping.as_mut().poll(cx).is_ready();
            // Told so before it has read the request, hyper would give it up without an answer.
            if stopped && !told && progress.has_begun() {
                told = true;
                Pin::new(&mut connection).graceful_shutdown();
                continue;
            }
            return match progress.is_over() && !told {
                true => Poll::Ready(None),
                false => Poll::Pending,
            };
        }
    })
    .await;
    if let Some(Err(error)) = ended {
        debug!(name: "connection-ended-early", %error, "a connection ended early");
        return None;
    }
    let (line, is_clean) = connection.into_parts().io.into_inner().into_line();
    if is_clean && ended.is_none() {
        return Some(line);
    }
    let lingering = match is_clean && line.unread().is_empty() {
        true => 0,
        false => MOST_LINGERING,
    };
    line.close(lingering, LINGER_DEADLINE).await;
    None
}

/// How far hyper is with the request.
#[derive(Debug, Default)]
pub(super) struct Progress {
    begun: AtomicBool,
    /// hyper has all of the answer.
    answered: AtomicBool,
    /// Everything that was written before is with the kernel.
    flushed: AtomicBool,
}

impl Progress {
    fn has_begun(&self) -> bool {
        self.begun.load(Relaxed)
    }

    /// Whether the answer is with the kernel. Right while hyper is not being polled.
    fn is_over(&self) -> bool {
        self.answered.load(Relaxed) && self.flushed.load(Relaxed)
    }

    pub(super) fn flushed(&self) {
        self.flushed.store(true, Relaxed);
    }
}

/// A request whose answer hyper does not have in full.
struct Turn(Arc<Progress>);

impl Drop for Turn {
    fn drop(&mut self) {
        // hyper has the end of the answer, and flushes next.
        self.0.flushed.store(false, Relaxed);
        self.0.answered.store(true, Relaxed);
    }
}

/// The API, for the one request that was admitted.
struct OneRequest {
    app: TowerToHyperService<Router>,
    registry: Arc<Registry>,
    access: Arc<Access>,
    room: &'static Room,
    of: Mutex<Option<Of>>,
    progress: Arc<Progress>,
    began: Instant,
}

impl Service<Request<Incoming>> for OneRequest {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.progress.begun.store(true, Relaxed);
        let turn = Turn(Arc::clone(&self.progress));
        let of = self
            .of
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let access = Arc::clone(&self.access);
        let authorities = self.registry.credentials.authorities_digest();
        let entry = of.as_ref().and_then(Of::entry);
        let (registry, began) = (Arc::clone(&self.registry), self.began);
        let whole = move |mut answer: Response<Body>| {
            registry.tally.answered(entry, answer.status(), began);
            // A digest is base32, which a header may have.
            if let Some(digest) = authorities
                .and_then(|digest| HeaderValue::from_str(&digest).ok())
                .filter(|_| answer.status().is_success())
            {
                answer.headers_mut().insert(AUTHORITIES_HEADER, digest);
            }
            // For nodes; an id is hexadecimal.
            if let Some(id) = entry
                .filter(|entry| matches!(entry.rule, Rule::OwnNode | Rule::NodeList))
                .and_then(|_| registry.checks.newest())
                .and_then(|id| HeaderValue::from_str(&id).ok())
            {
                answer.headers_mut().insert(CHECK_HEADER, id);
            }
            if let Some(why) = access.why_insecure() {
                let why = HeaderValue::from_static(why);
                answer.headers_mut().insert(INSECURE_HEADER, why);
            }
            Ok(answer.map(|body| Answer { body, _turn: turn }))
        };
        match of {
            Some(Of::Request(admitted))
                if (request.method(), request.uri()) == (&admitted.method, &admitted.uri) =>
            {
                let mut request = request.map(Body::new);
                let extensions = request.extensions_mut();
                extensions.insert(self.room);
                extensions.insert(admitted.let_in);
                let access = Arc::clone(&self.access);
                extensions.insert(WhoAsks::new(
                    admitted.caller,
                    access,
                    admitted.origin,
                    admitted.asked,
                ));
                let answer = self.app.call(request);
                answer.map(|answer| answer.and_then(whole)).boxed()
            }
            // There are thousands at a time, and it is known what answers them.
            Some(Of::Question(waited))
                if [Method::GET, Method::HEAD].contains(request.method()) =>
            {
                let registry = Arc::clone(&self.registry);
                let answer = async move { after_waiting(&registry, *waited).await };
                let answer = AssertUnwindSafe(answer).catch_unwind();
                answer
                    .map(|answer| whole(answer.unwrap_or_else(panicked)))
                    .boxed()
            }
            Some(Of::Nothing(problem)) => ready(whole(last(*problem))).boxed(),
            // Nobody has looked at who asks this.
            _ => {
                error!(name: "hyper-read-another-request-than", "hyper has read another request than was admitted; this is a bug");
                ready(whole(last(Problem::bug()))).boxed()
            }
        }
    }
}

/// An answer after which the connection is closed.
fn last(problem: Problem) -> Response<Body> {
    let mut refusal = problem.into_response();
    refusal
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    refusal
}

/// The body of an answer. hyper drops it when it has all of it.
struct Answer {
    body: Body,
    _turn: Turn,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
