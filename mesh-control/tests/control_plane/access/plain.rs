//! Plain HTTP, where it is taken, and for which names.

use std::net::SocketAddr;

use mesh_rest::security::Stage;
use mesh_testbed::NetNs;
use tokio::net::TcpSocket;

use super::client::{Connection, plain, request, tls};
use super::server::Server;

/// Runs a test in a network namespace in which 192.0.2.1 is an address of this host that is not loopback.
async fn beyond_loopback<F>(test: impl FnOnce() -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    let namespace = NetNs::new("plain").await.unwrap();
    let status = namespace
        .command("ip")
        .args(["address", "add", "192.0.2.1/24", "dev", "lo"])
        .status();
    assert!(status.unwrap().success());
    namespace.run_async(test).await.unwrap();
}

#[tokio::test]
async fn plain_http_from_another_host_is_told_to_use_tls_and_closed() {
    beyond_loopback(|| async {
        let server = Server::start_at("192.0.2.1:0", Stage::Secured, false).await;
        for path in ["/health", "/api/nodes", "/api/join", "/nowhere"] {
            let mut connection = plain(&server).await;
            let answer = connection.ask(&request("GET", path, "")).await;
            assert_eq!(
                (answer.status, answer.kind()),
                (426, "tls-required".to_owned())
            );
            assert_eq!(answer.header("upgrade"), Some("TLS/1.3"));
            assert!(answer.body.contains("https://"), "{}", answer.body);
            assert!(connection.is_over().await);
        }
        let answer = tls(&server, None)
            .await
            .ask(&request("GET", "/health", ""))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    })
    .await;
}

#[tokio::test]
async fn plain_http_from_another_host_is_taken_where_something_is_open_and_every_answer_says_so() {
    beyond_loopback(|| async {
        for (stage, insecure, words) in [
            (Stage::Open, false, "nobody needs"),
            (Stage::Moving, false, "nodes from before"),
            (Stage::Secured, true, "--insecure"),
        ] {
            let server = Server::start_at("192.0.2.1:0", stage, insecure).await;
            for path in ["/health", "/api/nodes", "/nowhere", "/api/tokens"] {
                let answer = plain(&server).await.ask(&request("GET", path, "")).await;
                assert_ne!(answer.status, 426, "{stage:?} {path}");
                let why = answer.header("quilt-mesh-insecure").unwrap_or_default();
                assert!(why.contains(words), "{stage:?} {path}: {}", answer.head);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn where_nothing_is_open_nothing_says_that_it_is() {
    let server = Server::start(Stage::Secured).await;
    let answer = plain(&server)
        .await
        .ask(&request("GET", "/api/nodes", ""))
        .await;
    assert_eq!(
        (answer.status, answer.header("quilt-mesh-insecure")),
        (200, None)
    );
}

#[tokio::test]
async fn a_question_that_waits_in_the_clear_ends_when_the_cluster_is_secured() {
    beyond_loopback(|| async {
        let server = Server::start_at("192.0.2.1:0", Stage::Moving, false).await;
        let mut connection = plain(&server).await;
        let question = request("GET", "/api/nodes?since=0&wait=60", "");
        connection.send(&question).await.unwrap();
        // Nothing tells that it waits. These are served after it.
        for _ in 0..10 {
            plain(&server)
                .await
                .ask(&request("GET", "/health", ""))
                .await;
        }
        server.known.set_stage(Stage::Secured);
        let answer = connection.answer().await.unwrap();
        assert_eq!(
            (answer.status, answer.kind()),
            (426, "tls-required".to_owned())
        );
        assert!(connection.is_over().await);
    })
    .await;
}

#[tokio::test]
async fn a_connection_from_loopback_by_way_of_a_proxy_is_not_from_this_host() {
    let server = Server::start(Stage::Secured).await;
    for header in [
        "Forwarded: for=192.0.2.9\r\n",
        "X-Forwarded-For: 192.0.2.9\r\n",
    ] {
        let answer = plain(&server)
            .await
            .ask(&request("GET", "/api/nodes", header))
            .await;
        assert_eq!(
            (answer.status, answer.kind()),
            (401, "unauthorized".to_owned())
        );
        let operator = server.operator("ada", mesh_rest::operator::Role::Read, false);
        let headers = format!("{header}{operator}");
        let answer = plain(&server)
            .await
            .ask(&request("GET", "/api/nodes", &headers))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

#[tokio::test]
async fn a_name_that_was_made_to_lead_here_is_not_answered_nor_a_page_of_another_site() {
    let server = Server::start(Stage::Secured).await;
    let port = server.address.port();
    let ask = async |host: &str, headers: &str| {
        let request = format!("GET /api/nodes HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
        let answer = plain(&server).await.ask(&request).await;
        (answer.status, answer.kind())
    };
    for host in ["127.0.0.1", "localhost", "control", "[::1]"] {
        assert_eq!(ask(&format!("{host}:{port}"), "").await.0, 200, "{host}");
    }
    let wrong = (421, "wrong-host".to_owned());
    assert_eq!(ask(&format!("rebound.example:{port}"), "").await, wrong);
    assert_eq!(
        ask("rebound.example", "Origin: http://rebound.example\r\n").await,
        wrong
    );
    let own = format!("Origin: http://localhost:{port}\r\n");
    assert_eq!(ask(&format!("localhost:{port}"), &own).await.0, 200);
    let other = (403, "wrong-origin".to_owned());
    let site = "Origin: http://other.example\r\n";
    assert_eq!(ask(&format!("localhost:{port}"), site).await, other);
    // Nor does the form of the request line help.
    let line = "GET http://rebound.example/api/nodes HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(plain(&server).await.ask(line).await.status, 421);
    // Agents of a cluster from before have names of their own.
    server.known.set_stage(Stage::Open);
    assert_eq!(ask("control.example:8080", "").await.0, 200);
    let browser = "Sec-Fetch-Site: same-origin\r\n";
    assert_eq!(ask("control.example:8080", browser).await, wrong);
}

#[tokio::test]
async fn a_client_that_sends_nothing_or_garbage_is_answered_as_before() {
    let server = Server::start(Stage::Secured).await;
    let mut connection = plain(&server).await;
    let answer = connection.ask("\0\0\0\r\n\r\n").await;
    assert_eq!(
        (answer.status, answer.kind()),
        (400, "malformed".to_owned())
    );
    // The first byte alone may come first.
    let mut connection = plain(&server).await;
    connection.send("G").await.unwrap();
    let answer = connection.ask(&request("ET", "/health", "")).await;
    assert_eq!(answer.status, 200);
}

/// Also with source addresses in notation of IPv6, where the kernel gives those of IPv4 so.
#[tokio::test]
async fn loopback_is_known_on_a_socket_for_both_families() {
    let server = Server::start_at("[::]:0", Stage::Secured, false).await;
    for address in ["127.0.0.1", "[::1]"] {
        let address: SocketAddr = format!("{address}:{}", server.address.port())
            .parse()
            .unwrap();
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let mut connection = Connection::new(socket.unwrap().connect(address).await.unwrap());
        let answer = connection.ask(&request("GET", "/api/nodes", "")).await;
        assert_eq!(answer.status, 200, "{address}: {}", answer.body);
    }
}
