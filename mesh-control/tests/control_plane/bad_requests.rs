//! Each bad request is answered with a problem document, and changes nothing.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use reqwest::{Body, Method};
use serde_json::{Value, json};

use crate::answer::{Answer, Api, node};
use crate::process::{ControlPlane, Setup};

/// A control plane with one node, whose list must stay as it is.
struct Undisturbed {
    control_plane: ControlPlane,
    api: Api,
    before: Value,
}

impl Undisturbed {
    async fn new() -> Self {
        let control_plane = Setup::new().start();
        let api = Api::of(&control_plane);
        api.register(node("a", "192.0.2.1")).await.admitted();
        let before = api.list().await;
        Self {
            control_plane,
            api,
            before,
        }
    }

    async fn register_text(&self, body: impl Into<Body>) -> Answer {
        let request = self
            .api
            .post("/api/nodes/register")
            .header("content-type", "application/json");
        Answer::to(request.body(body)).await
    }

    async fn check(self) {
        assert_eq!(self.api.list().await, self.before);
        assert!(self.control_plane.stop().success());
    }
}

#[tokio::test]
async fn a_body_that_is_not_json_is_400() {
    let there = Undisturbed::new().await;
    let deep = "[".repeat(20_000);
    for body in [
        "",
        "{",
        "hostname=a",
        "{\"hostname\": \"a\",}",
        "\u{0}",
        "{} {}",
        deep.as_str(),
    ] {
        let answer = there.register_text(body.to_owned()).await;
        assert!(
            answer.problem(400, "malformed").contains("not JSON"),
            "{body:.40}"
        );
    }
    there
        .register_text(vec![0xff, 0xfe, 0x00])
        .await
        .problem(400, "malformed");
    there.check().await;
}

#[tokio::test]
async fn json_that_lacks_fields_is_422_and_names_them() {
    let there = Undisturbed::new().await;
    for (body, pointers) in [
        (json!({}), json!(["#/hostname", "#/host_ip"])),
        (json!({"hostname": "b"}), json!(["#/host_ip"])),
        (json!({"host_ip": "192.0.2.2"}), json!(["#/hostname"])),
        (json!([]), json!(["#"])),
        (json!(null), json!(["#"])),
    ] {
        let answer = there.api.register(body).await;
        answer.problem(422, "invalid-fields");
        let errors = answer.body["errors"].as_array().unwrap();
        let named: Value = errors
            .iter()
            .map(|error| error["pointer"].clone())
            .collect();
        assert_eq!(named, pointers);
    }
    there.check().await;
}

#[tokio::test]
async fn json_with_wrong_types_is_422_and_names_value_and_rule() {
    let there = Undisturbed::new().await;
    for (field, value, words) in [
        (
            "hostname",
            json!(5),
            "hostname must be a string, but is the number 5",
        ),
        (
            "host_ip",
            json!(["192.0.2.2"]),
            "host_ip must be a string, but is an array",
        ),
        (
            "cpu_cores",
            json!("four"),
            "cpu_cores must be a whole number",
        ),
        ("ram_mb", json!(-1), "ram_mb must be a whole number"),
        (
            "node_key",
            json!({}),
            "node_key must be a string, but is an object",
        ),
        (
            "subnet",
            json!("10.42.7.0"),
            "subnet must be an IPv4 network",
        ),
    ] {
        let mut body = node("b", "192.0.2.2");
        body[field] = value;
        let answer = there.api.register(body).await;
        let detail = answer.problem(422, "invalid-fields");
        assert!(detail.contains(words), "{detail}");
    }
    there.check().await;
}

async fn host_ip_is_refused(values: &[&str], words: &str) {
    let there = Undisturbed::new().await;
    for value in values {
        let answer = there.api.register(node("b", value)).await;
        let detail = answer.problem(422, "invalid-fields");
        assert!(detail.contains(words) && detail.contains(value), "{detail}");
    }
    there.check().await;
}

#[tokio::test]
async fn a_host_ip_that_is_not_an_address_is_refused() {
    host_ip_is_refused(
        &[
            "",
            "here",
            "192.0.2",
            "192.0.2.256",
            "192.0.2.1:80",
            "192.0.2.0/24",
        ],
        "must be an IPv4 address",
    )
    .await;
}

#[tokio::test]
async fn a_host_ip_of_all_zeros_is_refused() {
    host_ip_is_refused(&["0.0.0.0"], "address of one host").await;
}

#[tokio::test]
async fn a_multicast_or_broadcast_host_ip_is_refused() {
    host_ip_is_refused(
        &["224.0.0.1", "239.1.2.3", "255.255.255.255"],
        "address of one host",
    )
    .await;
}

#[tokio::test]
async fn a_loopback_host_ip_is_refused() {
    host_ip_is_refused(&["127.0.0.1"], "reachable from other hosts").await;
}

#[tokio::test]
async fn an_ipv6_host_ip_is_refused_as_not_supported() {
    host_ip_is_refused(
        &["2001:db8::1", "::1", "::ffff:192.0.2.1"],
        "IPv6 is not supported",
    )
    .await;
}

#[tokio::test]
async fn a_host_ip_inside_the_overlay_is_refused() {
    host_ip_is_refused(&["10.42.1.1"], "outside the cluster CIDR 10.42.0.0/16").await;
}

#[tokio::test]
async fn a_hostname_that_cannot_be_printed_is_refused() {
    let there = Undisturbed::new().await;
    for hostname in [
        String::new(),
        "x".repeat(254),
        "a\u{1b}[31mb".to_owned(),
        "a\nb".to_owned(),
    ] {
        let answer = there.api.register(node(&hostname, "192.0.2.2")).await;
        answer.problem(422, "invalid-fields");
    }
    there.check().await;
}

#[tokio::test]
async fn unknown_fields_are_accepted() {
    let control_plane = Setup::new().start();
    let mut body = node("a", "192.0.2.1");
    body["kernel"] = json!({"release": "6.1"});
    Api::of(&control_plane).register(body).await.admitted();
}

#[tokio::test]
async fn a_body_that_is_not_declared_as_json_is_415() {
    let there = Undisturbed::new().await;
    let body = node("b", "192.0.2.2").to_string();
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
    ] {
        let mut request = there.api.post("/api/nodes/register").body(body.clone());
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        Answer::to(request)
            .await
            .problem(415, "not-json-media-type");
    }
    there.check().await;
}

#[tokio::test]
async fn json_of_ten_megabytes_is_answered_413() {
    let there = Undisturbed::new().await;
    let body = json!({"hostname": "x".repeat(10_000_000), "host_ip": "192.0.2.2"}).to_string();
    let answer = there.register_text(body.clone()).await;
    assert!(
        answer
            .problem(413, "body-too-large")
            .contains("65536 bytes")
    );
    // The length not announced, but in chunks.
    let pieces = body
        .into_bytes()
        .chunks(100_000)
        .map(<[u8]>::to_vec)
        .collect::<Vec<_>>();
    let pieces = futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
    let answer = there.register_text(Body::wrap_stream(pieces)).await;
    answer.problem(413, "body-too-large");
    // Other routes do not take it either.
    let heartbeat = there
        .api
        .post("/api/nodes/x/heartbeat")
        .body(vec![b' '; 10_000_000]);
    Answer::to(heartbeat).await.problem(413, "body-too-large");
    there.check().await;
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_413_before_it_sends_ten_megabytes() {
    let there = Undisturbed::new().await;
    let head = "POST /api/nodes/register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 10000000\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    let answer = read_text(raw(&there.control_plane, head.as_bytes()));
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    there.check().await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_answered_408() {
    let there = Undisturbed::new().await;
    let head = "POST /api/nodes/register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\nConnection: close\r\n\r\n{\"host";
    let connection = raw(&there.control_plane, head.as_bytes());
    let answer = read_text(connection);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    there.check().await;
}

#[tokio::test]
async fn a_route_that_is_not_there_is_404() {
    let there = Undisturbed::new().await;
    for path in [
        "/",
        "/api",
        "/api/node",
        "/api/nodes/",
        "/api/nodes/x/y/z",
        "/health/x",
        "/%2e%2e",
    ] {
        let answer = Answer::to(there.api.request(Method::GET, path)).await;
        answer.problem(404, "no-such-route");
    }
    there.check().await;
}

#[tokio::test]
async fn a_method_that_a_route_does_not_have_is_405_and_names_those_it_has() {
    let there = Undisturbed::new().await;
    for (method, path, allow) in [
        (Method::GET, "/api/nodes/register", "POST"),
        (Method::PUT, "/api/nodes/register", "POST"),
        (Method::DELETE, "/api/nodes", "GET"),
        (Method::GET, "/api/nodes/x/heartbeat", "POST"),
        (Method::PATCH, "/api/nodes/x/deregister", "POST"),
        (Method::POST, "/health", "GET"),
    ] {
        let answer = Answer::to(there.api.request(method, path)).await;
        answer.problem(405, "method-not-allowed");
        assert!(
            answer
                .allow
                .as_deref()
                .is_some_and(|given| given.contains(allow)),
            "{path}: {:?}",
            answer.allow
        );
    }
    there.check().await;
}

#[tokio::test]
async fn a_node_id_that_is_no_id_is_an_error_and_not_a_crash() {
    let there = Undisturbed::new().await;
    let long = "x".repeat(8000);
    for (id, status) in [
        ("%ff", 400),
        ("%00", 404),
        ("..%2f..", 404),
        ("%F0%9F%A6%80", 404),
        (long.as_str(), 404),
    ] {
        assert_eq!(there.api.heartbeat(id).await.status, status, "{id:.20}");
        assert_eq!(there.api.deregister(id).await.status, status, "{id:.20}");
    }
    there.check().await;
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_a_problem_as_well() {
    let there = Undisturbed::new().await;
    let many = "X: y\r\n".repeat(200);
    for (head, status, slug) in [
        ("nonsense\r\n\r\n".to_owned(), 400, "malformed"),
        ("GET /health HTTP/9.9\r\n\r\n".to_owned(), 400, "malformed"),
        (
            "GET /health HTTP/1.1\r\nno colon\r\n\r\n".to_owned(),
            400,
            "malformed",
        ),
        (
            format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"),
            431,
            "headers-too-large",
        ),
        (
            format!(
                "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
                "x".repeat(70_000)
            ),
            414,
            "target-too-long",
        ),
        (
            format!("GET /health HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)),
            431,
            "headers-too-large",
        ),
    ] {
        let answer = read_text(raw(&there.control_plane, head.as_bytes()));
        let shown = head.get(..40).unwrap_or(&head);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{shown}: {answer}"
        );
        assert!(
            answer.contains("application/problem+json"),
            "{shown}: {answer}"
        );
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["status"], status, "{shown}");
        assert_eq!(
            body["type"],
            format!("urn:quilt-mesh:problem:{slug}"),
            "{shown}"
        );
    }
    // After a good request on the same connection, too.
    let two = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nnonsense\r\n\r\n";
    let answers = read_text(raw(&there.control_plane, two.as_bytes()));
    assert!(answers.starts_with("HTTP/1.1 200 OK"), "{answers}");
    assert!(
        answers.contains("{\"status\":\"ok\"}HTTP/1.1 400"),
        "{answers}"
    );
    assert!(
        answers.contains("urn:quilt-mesh:problem:malformed"),
        "{answers}"
    );
    there.check().await;
}

fn raw(control_plane: &ControlPlane, bytes: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(control_plane.address()).unwrap();
    connection
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    connection.write_all(bytes).unwrap();
    connection
}

fn read_text(mut connection: TcpStream) -> String {
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    text
}
