//! One connection: with hyper while there is something to do, and without it while there is not.
//!
//! hyper has two buffers of 8 KiB for a connection as long as it has the connection, and axum a few KiB more for a
//! request that is under way. Ten thousand agents that wait for news, and as many connections that are idle between
//! two heartbeats, would take some hundred megabytes for nothing. So a request is read here until its head is whole:
//! a question that has to wait for news waits as these few bytes, and hyper gets one request at a time, when it is
//! to be answered and there is room for it, and gives the connection back afterwards.
//!
//! Nothing here knows what carries the bytes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use mesh_rest::feed_query::FeedQuery;
use mesh_rest::heartbeat_token::HeartbeatToken;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::admission::{Admitted, admit};
use super::concurrency::{FOR_OTHERS, Place};
use super::handshakes::Handshakes;
use super::limits;
use super::shares::Shares;
use super::tls::Tls;
use crate::access::origin::Origin;
use crate::access::{Access, Asked as Standing};
use crate::api;
use crate::api::problem::Problem;
use crate::registry::{ChangeError, Registry};
use exchange::{Asked, exchange};
use head::{Head, Length};
use line::Line;
use outlawed::outlawed;

mod exchange;
pub(super) mod head;
mod line;
mod outlawed;
mod question;
mod request_end;
mod wire;

/// How long a small body is waited for here; then it waits with hyper, which can say more about it.
const BODY_PATIENCE: Duration = Duration::from_millis(200);

/// What is read of a connection without asking for room: the head of any usual request, and a small body.
const UNASKED: usize = 4096;

/// The most that hyper reads ahead, and gathers of an answer before it sends it.
const MOST_BUFFERED: usize = 32 * 1024;

/// What a body is taken for that does not say its length.
const UNANNOUNCED: usize = 64 * 1024;

/// How long what a client still sends is thrown away, so that it reads the last answer before it learns that the
/// connection is closed (RFC 9112 section 9.6).
const LINGER_DEADLINE: Duration = Duration::from_secs(2);

/// And how much of it, in bytes.
const MOST_LINGERING: usize = 2 << 20;

/// Goes with a question to the change feed that has waited already.
#[derive(Debug, Clone)]
pub(crate) struct Waited {
    /// The question.
    pub(crate) query: FeedQuery,
    /// The token that the node came with that asks.
    pub(crate) token: Option<HeartbeatToken>,
}

/// What all connections share.
#[derive(Debug)]
pub struct Site {
    registry: Arc<Registry>,
    access: Arc<Access>,
    tls: Arc<Tls>,
    handshakes: Handshakes,
    shares: Shares,
    app: Router,
    http: http1::Builder,
    stop: CancellationToken,
    give_up: CancellationToken,
}

impl Site {
    /// The API on `registry`, served until `stop` to those whom `access` lets in, plain and over `tls`.
    pub fn new(
        registry: Arc<Registry>,
        access: Arc<Access>,
        tls: Arc<Tls>,
        stop: CancellationToken,
    ) -> Self {
        let mut http = http1::Builder::new();
        // The head is all there when hyper gets it.
        http.timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(MOST_BUFFERED);
        Self {
            app: api::router(Arc::clone(&registry)),
            registry,
            access,
            tls,
            handshakes: Handshakes::default(),
            shares: Shares::default(),
            http,
            stop,
            give_up: CancellationToken::new(),
        }
    }

    pub(super) fn tls(&self) -> &Tls {
        &self.tls
    }

    pub(super) fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }

    /// Cancelled when what is under way is not waited for any longer.
    pub(super) fn give_up(&self) -> &CancellationToken {
        &self.give_up
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }
}

/// Serves a connection until it ends, or is idle for too long, or the site stops.
pub(crate) async fn live<S>(stream: S, origin: Arc<Origin>, site: &Site)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut line = Line::new(stream);
    let mut changes = site.access.changes();
    let connection = match site.shares.connection(&origin) {
        Ok(part) => part,
        Err(problem) => return Box::pin(refuse_first(line, problem, site)).await,
    };
    loop {
        let next = next_head(&mut line, site).await;
        // What changes from here on may not be seen by the look that follows.
        changes.mark_unchanged();
        let (head, admitted) = match next {
            Next::Head(head) => match admit(&site.registry, &site.access, &origin, &head) {
                Ok(admitted) => (head, admitted),
                Err(problem) => return refuse(line, problem, site).await,
            },
            Next::None(problem) => return refuse(line, problem, site).await,
            Next::Over => return,
        };
        let _request = match site.shares.request(&admitted.caller, connection.as_ref()) {
            Ok(part) => part,
            Err(problem) => return refuse(line, problem, site).await,
        };
        // Boxes, so that a connection without a request under way has no room for one.
        let asked = match question::at_the_feed(&head) {
            Some(query) => {
                let token = api::token::token(&head.headers);
                if Box::pin(arrival(&site.registry, &query, token))
                    .await
                    .is_err()
                {
                    // Why not is found out again by the one who answers.
                    let asked = Asked::request(&head, *admitted, &origin);
                    let Some(left) = Box::pin(answer(line, asked, site)).await else {
                        return;
                    };
                    line = left;
                    continue;
                }
                if head.body != Length::Known(0) {
                    // It would have to be kept meanwhile, and means nothing.
                    let waited = Waited { query, token };
                    let asked = Asked::question_at_once(&head, waited, *admitted, &origin);
                    let Some(left) = Box::pin(answer(line, asked, site)).await else {
                        return;
                    };
                    line = left;
                    continue;
                }
                // Of what waits, no more is kept than has to be.
                let (query, short) = (Box::new(query), head.shortened());
                line.use_up(head.length);
                line.put_before(&short);
                drop(head);
                let Admitted { room, asked, .. } = *admitted;
                let standing = Box::new(asked);
                let whose = (&*origin, &*standing, &mut changes);
                match wait_for_news(&mut line, site, &query, whose).await {
                    Waiting::News => {}
                    Waiting::Gone => return,
                    Waiting::Refused(problem) => return refuse(line, *problem, site).await,
                }
                let query = *query;
                Asked::question(short.len(), Waited { query, token }, room)
            }
            None => Asked::request(&head, *admitted, &origin),
        };
        let Some(left) = Box::pin(answer(line, asked, site)).await else {
            return;
        };
        line = left;
    }
}

/// What arrived on a connection without hyper.
enum Next {
    /// The head of a request, and perhaps more.
    Head(Box<Head>),
    /// What no head begins with.
    None(Problem),
    /// Nothing: the connection is closed, or idle for too long, or the site stops.
    Over,
}

/// Waits for a head.
async fn next_head<S: AsyncRead + Unpin>(line: &mut Line<S>, site: &Site) -> Next {
    let read = async {
        if line.unread().is_empty()
            && !timeout(limits::IDLE_CONNECTION, line.read(UNASKED))
                .await
                .ok()?
        {
            return None;
        }
        timeout(limits::HEAD_ARRIVES, Box::pin(read_head(line)))
            .await
            .ok()?
    };
    tokio::select! {
        read = read => match read {
            Some(Ok(head)) => Next::Head(head),
            Some(Err(problem)) => Next::None(problem),
            None => Next::Over,
        },
        () = site.stop.cancelled() => Next::Over,
    }
}

/// Reads until the head is whole; `None`: the connection ended before.
async fn read_head<S: AsyncRead + Unpin>(line: &mut Line<S>) -> Option<Result<Box<Head>, Problem>> {
    let mut place: Option<Place> = None;
    let mut seen = 0;
    loop {
        let bytes = line.unread();
        // Part of a head is looked at again when it may be whole, or is much longer, and not for each of its bytes.
        let ends = bytes[seen.max(3) - 3..]
            .windows(2)
            .any(|two| two == b"\n\n" || two == b"\n\r");
        if ends || bytes.len() >= 2 * seen || bytes.len() >= limits::HEAD {
            match head::read(bytes) {
                Ok(Some(head)) => return Some(Ok(Box::new(head))),
                Ok(None) => seen = bytes.len(),
                Err(problem) => return Some(Err(problem)),
            }
        }
        let mut most = UNASKED;
        if bytes.len() >= UNASKED {
            most = limits::HEAD;
            if place.is_none() {
                match FOR_OTHERS.for_bytes(limits::HEAD).await {
                    Ok(taken) => place = Some(taken),
                    Err(problem) => return Some(Err(problem)),
                }
            }
        }
        if !line.read(most).await {
            return None;
        }
    }
}

/// Takes a question for a sign that its node lives, if it says which asks.
async fn arrival(
    registry: &Registry,
    query: &FeedQuery,
    token: Option<HeartbeatToken>,
) -> Result<(), ChangeError> {
    match &query.node {
        Some(node_id) => registry.asked_by(node_id, token).await,
        None => Ok(()),
    }
}

/// What came of waiting.
enum Waiting {
    /// There is something to answer.
    News,
    /// The client is not there any more.
    Gone,
    /// It may not ask any more.
    Refused(Box<Problem>),
}

/// Waits until the question can be answered, or may not be.
async fn wait_for_news<S: AsyncRead + Unpin>(
    line: &mut Line<S>,
    site: &Site,
    query: &FeedQuery,
    (origin, standing, changes): (&Origin, &Standing, &mut watch::Receiver<u64>),
) -> Waiting {
    let gone = async {
        // What the client sends meanwhile is its next request.
        while line.unread().len() < UNASKED {
            if !line.read(UNASKED).await {
                return;
            }
        }
        // It is told of the end when it has its answer.
        std::future::pending().await
    };
    tokio::select! {
        // Why it cannot be answered is found out again by the one who answers.
        _ = site.registry.wait_for_news(query) => Waiting::News,
        () = gone => Waiting::Gone,
        problem = outlawed(&site.access, origin, standing, changes) => Waiting::Refused(problem),
    }
}

/// Has a request answered when there is room for it. Gives back the connection; `None`: it is over.
async fn answer<S>(mut line: Line<S>, asked: Asked, site: &Site) -> Option<Line<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let room = asked.room;
    let small = match asked.body {
        Length::Known(body) if !asked.asks_first => asked.head as u64 + body,
        _ => u64::MAX,
    };
    if let Ok(whole) = usize::try_from(small)
        && whole <= UNASKED
    {
        let arrives = async {
            while line.unread().len() < whole {
                if !line.read(UNASKED).await {
                    return;
                }
            }
        };
        let _ = timeout(BODY_PATIENCE, arrives).await;
    }
    // What is not here by now costs more.
    let is_here = line.unread().len() as u64 >= small;
    let announced = match asked.body {
        Length::Known(body) => usize::try_from(body).unwrap_or(usize::MAX),
        Length::Chunked => UNANNOUNCED,
    };
    let places = async {
        let body = match is_here {
            true => None,
            false => Some(room.for_bytes(announced.min(limits::REPORT)).await?),
        };
        Ok((body, room.for_a_request().await?))
    };
    let _places = match places.await {
        Ok(places) => places,
        Err(problem) => {
            refuse(line, problem, site).await;
            return None;
        }
    };
    exchange(line, asked, site).await
}

/// Answers what is no request, or cannot be taken, and closes the connection.
async fn refuse<S>(mut line: Line<S>, problem: Problem, site: &Site)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Where there is no room for an answer, there is none.
    let Ok(_place) = FOR_OTHERS.for_a_request().await else {
        return;
    };
    let asked = Asked::nothing(&mut line, problem);
    Box::pin(exchange(line, asked, site)).await;
}

/// Answers the first request of a connection that is one too many. A client that has not asked yet would take the answer
/// for none of its own.
async fn refuse_first<S>(mut line: Line<S>, problem: Problem, site: &Site)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if let Ok(Next::Head(_)) = timeout(limits::ONE_TOO_MANY, next_head(&mut line, site)).await {
        refuse(line, problem, site).await;
    }
}

#[cfg(test)]
mod tests;
