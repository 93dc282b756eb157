//! Questions that wait, when who asks may not any more.

use std::time::{Duration, Instant};

use mesh_rest::operator::Role;
use mesh_rest::security::Stage;

use super::client::{plain, request, tls};
use super::server::Server;

const QUESTION: &str = "/api/nodes?since=0&wait=60";

#[tokio::test]
async fn the_question_of_a_revoked_node_or_operator_ends_at_once_and_nobody_elses() {
    let server = Server::start(Stage::Secured).await;
    let (gone, stays) = (server.node("gone", 0), server.node("stays", 0));
    let operator = server.operator("ada", Role::Read, false);
    let mut of_gone = tls(&server, Some(&gone)).await;
    let mut of_stays = tls(&server, Some(&stays)).await;
    let mut of_operator = plain(&server).await;
    for connection in [&mut of_gone, &mut of_stays] {
        connection
            .send(&request("GET", QUESTION, ""))
            .await
            .unwrap();
    }
    of_operator
        .send(&request("GET", QUESTION, &operator))
        .await
        .unwrap();
    server.revoke("gone");
    let answer = of_gone.answer().await.unwrap();
    assert_eq!(
        (answer.status, answer.kind()),
        (401, "unauthorized".to_owned())
    );
    assert!(of_gone.is_over().await);
    server.operator("ada", Role::Read, true);
    let answer = of_operator.answer().await.unwrap();
    assert_eq!(
        (answer.status, answer.kind()),
        (401, "unauthorized".to_owned())
    );
    assert!(of_operator.is_over().await);
    // The one that may wait goes on waiting.
    let more = tokio::time::timeout(Duration::from_secs(1), of_stays.answer());
    assert!(more.await.is_err());
}

#[tokio::test]
async fn the_question_of_a_node_ends_when_its_certificate_does() {
    let server = Server::start(Stage::Secured).await;
    let life = 7 * 24 * 60 * 60;
    let (ends, holds) = (server.node("ends", 3 - life), server.node("holds", 0));
    let mut of_ends = tls(&server, Some(&ends)).await;
    let mut of_holds = tls(&server, Some(&holds)).await;
    let question = request("GET", QUESTION, "");
    of_ends.send(&question).await.unwrap();
    of_holds.send(&question).await.unwrap();
    // Behind both of them, before the clock goes on.
    let mut other = tls(&server, None).await;
    assert_eq!(other.ask(&request("GET", "/health", "")).await.status, 200);
    server.set_clock(5);
    let answer = of_ends.answer().await.unwrap();
    assert_eq!(answer.kind(), "certificate-expired", "{}", answer.body);
    let more = tokio::time::timeout(Duration::from_secs(1), of_holds.answer());
    assert!(more.await.is_err());
}

#[tokio::test]
async fn thousands_that_may_wait_no_longer_are_told_so_and_nobody_is_kept_waiting_meanwhile() {
    const MANY: usize = 2000;
    let server = Server::start(Stage::Open).await;
    let mut waiting = Vec::new();
    for _ in 0..MANY {
        let mut connection = plain(&server).await;
        connection
            .send(&request("GET", QUESTION, ""))
            .await
            .unwrap();
        waiting.push(connection);
    }
    let operator = server.operator("ada", Role::Read, false);
    // Behind all of them.
    let mut other = plain(&server).await;
    assert_eq!(other.ask(&request("GET", "/health", "")).await.status, 200);
    let changed = Instant::now();
    server.known.set_stage(Stage::Secured);
    let answered = async {
        for connection in &mut waiting {
            let answer = connection.answer().await.unwrap();
            assert!([401, 429].contains(&answer.status), "{}", answer.body);
        }
        changed.elapsed()
    };
    let asking = async {
        let mut worst = Duration::ZERO;
        for _ in 0..20 {
            let asked = Instant::now();
            let answer = other.ask(&request("GET", "/api/nodes", &operator)).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            worst = worst.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        worst
    };
    let (all, worst) = tokio::join!(answered, asking);
    eprintln!("{MANY} questions ended within {all:?}; another was answered within {worst:?}");
}
