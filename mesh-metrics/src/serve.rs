//! Serves metrics and health to whoever the door lets through.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS},
};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    rt::{Read, Write},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    Source, Unavailable,
    answer::{Refused, Wish, judge},
    door::Door,
};

/// Connections at a time. One Prometheus keeps one; the oldest makes room for the next.
const CONNECTIONS: usize = 32;

/// Scrapes at a time. More wait, each for [`ANSWER_DEADLINE`] at most.
const SCRAPES: usize = 2;

/// The longest that an answer may take: Prometheus gives up after ten seconds unless told otherwise.
const ANSWER_DEADLINE: Duration = Duration::from_secs(8);

/// The longest that a handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// The longest that the head of a request may take, and that a connection stays without one. Prometheus asks every minute
/// unless told otherwise, and connects anew where it has to.
const HEAD_DEADLINE: Duration = Duration::from_secs(75);

/// The longest that a connection stays, and that what is under way then may take: an answer that nobody reads does not keep
/// its memory for ever.
const LIFE: Duration = Duration::from_secs(600);
const LAST_ANSWER: Duration = Duration::from_secs(30);

/// The longest head of a request, in bytes.
const LONGEST_HEAD: usize = 16 * 1024;

/// How long nothing is accepted where the system has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a stop waits for answers that are under way.
const DRAIN: Duration = Duration::from_secs(1);

/// `Content-Type` of Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until `stop`.
pub async fn serve<S: Source>(
    door: Arc<Door>,
    listener: TcpListener,
    source: Arc<S>,
    stop: CancellationToken,
) {
    let asked = Arc::new(Asked {
        door,
        source,
        scrapes: Semaphore::new(SCRAPES),
        stop: stop.clone(),
    });
    let mut connections = Connections::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            () = connections.ended() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => connections.add(Arc::clone(&asked).answer(stream)),
            Err(error) => {
                tracing::debug!(name: "cannot-accept-connection-metrics-port", %error, "cannot accept a connection to the metrics' port");
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = sleep(PAUSE) => {}
                }
            }
        }
    }
    // What is left after that is aborted.
    let _ = timeout(DRAIN, connections.all_ended()).await;
}

/// The connections that are there, oldest first.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    in_order: VecDeque<AbortHandle>,
}

impl Connections {
    fn add(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        self.in_order.retain(|it| !it.is_finished());
        if self.in_order.len() >= CONNECTIONS
            && let Some(oldest) = self.in_order.pop_front()
        {
            oldest.abort();
        }
        self.in_order.push_back(self.tasks.spawn(connection));
    }

    /// Takes note of one that has ended; waits for ever while there is none. Cancel safe.
    async fn ended(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending().await
        }
    }

    async fn all_ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// What the connections share.
struct Asked<S> {
    door: Arc<Door>,
    source: Arc<S>,
    scrapes: Semaphore,
    stop: CancellationToken,
}

impl<S: Source> Asked<S> {
    async fn answer(self: Arc<Self>, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let Some(certificate) = &self.door.certificate else {
            return self.serve_on(TokioIo::new(stream)).await;
        };
        let handshake = async {
            let config = certificate.for_next().await;
            TlsAcceptor::from(config).accept(stream).await
        };
        let shaken = timeout(HANDSHAKE_DEADLINE, handshake).await;
        match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => self.serve_on(TokioIo::new(stream)).await,
            Err(error) => {
                tracing::debug!(name: "no-handshake-metrics-port", %error, "no handshake at the metrics' port")
            }
        }
    }

    async fn serve_on(&self, stream: impl Read + Write + Unpin) {
        let answer =
            service_fn(|request| async move { Ok::<_, io::Error>(self.response(request).await) });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE)
            .max_buf_size(LONGEST_HEAD)
            .serve_connection(stream, answer);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            () = self.stop.cancelled() => {}
            () = sleep(LIFE) => {}
        }
        connection.as_mut().graceful_shutdown();
        // A client that has gone away is no error.
        let _ = timeout(LAST_ANSWER, connection).await;
    }

    async fn response(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let done = timeout(ANSWER_DEADLINE, async {
            let wish = judge(&self.door, &request).await?;
            Ok(match wish {
                Wish::Live => text(StatusCode::OK, "ok\n".to_owned()),
                Wish::Ready => match self.source.ready().await {
                    Ok(()) => text(StatusCode::OK, "ok\n".to_owned()),
                    Err(Unavailable(reason)) => unavailable(&reason),
                },
                Wish::Metrics => self.page().await,
            })
        });
        match done.await {
            Ok(Ok(response)) => response,
            Ok(Err(refused)) => refusal(&refused),
            Err(_) => unavailable(&format!(
                "no answer within {} s: the daemon is busy, or more scrape it than it answers at a time",
                ANSWER_DEADLINE.as_secs()
            )),
        }
    }

    async fn page(&self) -> Response<Full<Bytes>> {
        // It is never closed.
        let _turn = self.scrapes.acquire().await;
        let scrape = match self.source.collect().await {
            Ok(scrape) => scrape,
            Err(Unavailable(reason)) => return unavailable(&reason),
        };
        match scrape.into_text() {
            Ok(page) => {
                let mut response = text(StatusCode::OK, page);
                let format = HeaderValue::from_static(TEXT_FORMAT);
                response.headers_mut().insert(CONTENT_TYPE, format);
                response
            }
            Err(error) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("this is a defect: {error}\n"),
            ),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn unavailable(reason: &str) -> Response<Full<Bytes>> {
    text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))
}

fn refusal(refused: &Refused) -> Response<Full<Bytes>> {
    let Refused(status, words) = refused;
    let mut response = text(*status, format!("{words}\n"));
    let header = match *status {
        StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
        StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, "GET, HEAD")),
        _ => None,
    };
    if let Some((name, value)) = header {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}
