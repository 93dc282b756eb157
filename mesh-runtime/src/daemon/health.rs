//! The service `grpc.health.v1.Health`: SERVING as long as the runtime does its work.
//!
//! A `Check` asks the loop itself, so that one that does not answer is NOT_SERVING; whoever watches is told by the loop when
//! it cannot read the kernel and when it can again. Nothing is looked at while nobody asks.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream, stream::BoxStream};
use mesh_runtime::RuntimeMetrics;
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

/// The longest that the loop may take to answer. A round takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);

/// Who watches at a time.
const WATCHERS: usize = 32;

/// The services whose health is told, and the whole server's.
const SERVICES: &[&str] = &["", "quilt.QuiltRuntime", "mesh.MeshDataplane"];

/// The health of a runtime.
#[derive(Clone, Debug)]
pub(crate) struct NodeHealth {
    runtime: RuntimeMetrics,
    watchers: Arc<Semaphore>,
    stop: CancellationToken,
}

impl NodeHealth {
    /// That of a runtime, told until `stop`.
    pub(crate) fn service(runtime: RuntimeMetrics, stop: CancellationToken) -> HealthServer<Self> {
        HealthServer::new(Self {
            runtime,
            watchers: Arc::new(Semaphore::new(WATCHERS)),
            stop,
        })
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

fn serving(is_well: bool) -> ServingStatus {
    match is_well {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    }
}

#[tonic::async_trait]
impl Health for NodeHealth {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            return Err(Status::not_found("no such service is served here"));
        }
        let asked = timeout(DEADLINE, self.runtime.health()).await;
        let is_well = matches!(asked, Ok(Ok(())));
        Ok(Response::new(answer(serving(is_well))))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let turn = Arc::clone(&self.watchers).try_acquire_owned();
        let turn = turn.map_err(|_| {
            Status::resource_exhausted(format!("{WATCHERS} watch the health already"))
        })?;
        let stopped = self.stop.clone().cancelled_owned();
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            // One that is asked for before it is served may come (the protocol's words).
            let unknown = stream::iter([Ok(answer(ServingStatus::ServiceUnknown))]);
            let stream = unknown.chain(stream::pending()).take_until(stopped);
            return Ok(Response::new(held(stream, turn).boxed()));
        }
        let news = timeout(DEADLINE, self.runtime.watch_health()).await;
        let stream = match news {
            Ok(Ok(news)) => follow(news).boxed(),
            _ => stream::iter([Ok(answer(ServingStatus::NotServing))]).boxed(),
        };
        Ok(Response::new(
            held(stream.take_until(stopped), turn).boxed(),
        ))
    }
}

/// The turn is taken as long as the stream is there.
fn held<T, S: stream::Stream<Item = T>>(
    stream: S,
    turn: tokio::sync::OwnedSemaphorePermit,
) -> impl stream::Stream<Item = T> {
    stream.map(move |item| {
        let _ = &turn;
        item
    })
}

/// What is told now, and each change of it; once more when the loop has ended.
fn follow(
    mut news: watch::Receiver<bool>,
) -> impl stream::Stream<Item = Result<HealthCheckResponse, Status>> {
    news.mark_changed();
    stream::unfold(Some((news, None)), |state| async move {
        let (mut news, told) = state?;
        loop {
            if news.changed().await.is_err() {
                return Some((Ok(answer(ServingStatus::NotServing)), None));
            }
            let now = *news.borrow_and_update();
            if told != Some(now) {
                return Some((Ok(answer(serving(now))), Some((news, Some(now)))));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_watches_is_told_what_is_each_change_and_the_end() {
        let (tell, news) = watch::channel(true);
        let mut stream = Box::pin(follow(news));
        let mut next = async || {
            let answer = stream.next().await?.unwrap();
            Some(answer.status())
        };
        assert_eq!(next().await, Some(ServingStatus::Serving));
        tell.send_replace(true);
        tell.send_replace(false);
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        tell.send_replace(true);
        assert_eq!(next().await, Some(ServingStatus::Serving));
        drop(tell);
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        assert_eq!(next().await, None);
    }
}
