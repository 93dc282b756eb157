//! Whoever is refused again and again is slowed down, and nobody else.

use std::time::{Duration, Instant};

use mesh_rest::operator::Role;
use mesh_rest::security::Stage;

use super::client::{plain, request, tls};
use super::server::Server;

#[tokio::test]
async fn failures_of_a_source_are_told_to_slow_down_and_valid_credentials_pass() {
    let server = Server::start(Stage::Secured).await;
    let operator = server.operator("ada", Role::Operate, false);
    let node = server.node("a", 0);
    let wrong = "Authorization: Bearer qmo1.ada.wrong\r\n";
    let mut kinds = Vec::new();
    for _ in 0..60 {
        let answer = plain(&server)
            .await
            .ask(&request("GET", "/api/nodes", wrong))
            .await;
        if answer.status == 429 {
            let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&seconds), "{seconds}");
        }
        kinds.push(answer.kind());
    }
    assert_eq!(kinds[0], "unauthorized");
    assert_eq!(kinds[59], "slow-down");
    // The same source, with what is valid.
    let answer = plain(&server)
        .await
        .ask(&request("GET", "/api/nodes", &operator))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = tls(&server, Some(&node))
        .await
        .ask(&request("GET", "/api/nodes", ""))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        plain(&server)
            .await
            .ask(&request("GET", "/health", ""))
            .await
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_bad_credentials_leaves_heartbeats_alone() {
    let server = Server::start(Stage::Secured).await;
    let node = server.node("a", 0);
    let mut honest = tls(&server, Some(&node)).await;
    let ask = async |honest: &mut super::client::Connection<_>| {
        let mut worst = Duration::ZERO;
        for _ in 0..50 {
            let asked = Instant::now();
            let answer = honest.ask(&request("GET", "/api/nodes", "")).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            worst = worst.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        worst
    };
    let before = ask(&mut honest).await;
    let address = server.address;
    let flood = tokio::spawn(async move {
        let mut count = 0_u64;
        let wrong = request(
            "POST",
            "/api/tokens",
            "Authorization: Bearer qmo1.ada.wrong\r\n",
        );
        loop {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let mut connection = super::client::Connection::new(stream);
            let answer = connection.ask(&wrong).await;
            assert!([401, 429].contains(&answer.status), "{}", answer.body);
            count += 1;
            FLOODED.store(count, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let during = ask(&mut honest).await;
    flood.abort();
    let count = FLOODED.load(std::sync::atomic::Ordering::Relaxed);
    eprintln!("answered within {before:?}, and within {during:?} beside {count} bad credentials");
    assert!(count > 100, "{count}");
}

static FLOODED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

#[tokio::test]
async fn what_is_refused_again_and_again_is_logged_once_and_nothing_of_a_token_is() {
    let control_plane = crate::process::Setup::new().start();
    let secret = "nobodyshallreadthis";
    let wrong = format!("Authorization: Bearer qmo1.ada.{secret}\r\n");
    for _ in 0..100 {
        let stream = tokio::net::TcpStream::connect(control_plane.address());
        let mut connection = super::client::Connection::new(stream.await.unwrap());
        let answer = connection
            .ask(&request("GET", "/api/nodes?token=x", &wrong))
            .await;
        assert!([401, 429].contains(&answer.status), "{}", answer.body);
        assert!(!answer.body.contains(secret), "{}", answer.body);
    }
    let log = refusals_logged(&control_plane).await;
    let words = log.iter().filter(|line| line.contains("refused")).count();
    assert_eq!(words, 1, "{log:?}");
    assert!(
        log.iter()
            .all(|line| !line.contains(secret) && !line.contains("token=x"))
    );
}

/// What is logged when a refusal is: that takes a moment.
pub(super) async fn refusals_logged(control_plane: &crate::process::ControlPlane) -> Vec<String> {
    let deadline = Instant::now() + super::client::PATIENCE;
    loop {
        let log = control_plane.log();
        if log.iter().any(|line| line.contains("refused")) {
            return log;
        }
        assert!(Instant::now() < deadline, "{log:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
