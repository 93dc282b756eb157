//! Connections that are no sockets: what carries the bytes is all the same.

use std::sync::LazyLock;

use mesh_rest::overlay::Overlay;
use mesh_rest::security::Stage;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::super::concurrency::{FOR_NODES, FOR_QUESTIONS, Room};
use super::*;
use crate::access::known::Known;
use crate::access::names::Names;
use crate::cluster::settings::Settings;
use crate::cluster::subnet_plan::SubnetPlan;
use crate::store::Store;

const WAIT: &str = "GET /api/nodes?since=0&wait=60 HTTP/1.1\r\nhost: localhost\r\n\r\n";
const LAST: &str = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// A connection from this host.
fn local() -> Origin {
    Origin::plain("127.0.0.1:1".parse().unwrap())
}

/// The API on an empty database.
struct Api {
    _folder: TempDir,
    site: Arc<Site>,
    stop: CancellationToken,
}

impl Api {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let plan = SubnetPlan::new("10.42.0.0/16".parse().unwrap(), 24).unwrap();
        let settings = Settings {
            overlay: Overlay::default(),
            node_timeout: Duration::from_secs(30),
        };
        let store = Store::open(&folder.path().join("control.db"), &plan, settings).await;
        let stop = CancellationToken::new();
        let node_timeout = settings.node_timeout;
        let registry = Registry::open(store.unwrap(), plan, node_timeout, stop.clone());
        let known = Arc::new(Known::new(Stage::Secured));
        let access = Arc::new(Access::new(known, false, Names::default()));
        Self {
            site: Arc::new(Site::new(
                registry.await.unwrap(),
                access,
                Arc::new(Tls::new().unwrap()),
                stop.clone(),
            )),
            _folder: folder,
            stop,
        }
    }

    /// A connection of which `capacity` bytes may be on the way.
    fn connect(&self, capacity: usize) -> (DuplexStream, JoinHandle<()>) {
        let (near, far) = duplex(capacity);
        let site = Arc::clone(&self.site);
        let origin = Arc::new(local());
        let served = async move { live(far, origin, &site).await };
        (near, tokio::spawn(served))
    }

    /// What is answered to these bytes until the connection is over.
    async fn answers(&self, bytes: &[u8], capacity: usize) -> String {
        let (near, served) = self.connect(capacity);
        let (mut from, mut to) = tokio::io::split(near);
        let mut answers = Vec::new();
        let send = async {
            // It may be closed before all is sent.
            let _ = to.write_all(bytes).await;
            let _ = to.shutdown().await;
        };
        let (_, read) = tokio::join!(send, from.read_to_end(&mut answers));
        read.unwrap();
        served.await.unwrap();
        String::from_utf8(answers).unwrap()
    }
}

#[tokio::test]
async fn requests_are_answered_on_whatever_carries_them_and_a_few_bytes_at_a_time() {
    let api = Api::new().await;
    let chunked = "POST /api/nodes/x/heartbeat HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let requests = format!(
        "{}{chunked}{LAST}",
        LAST.replace("connection: close\r\n", "")
    );
    for capacity in [1, 7, 64 << 10] {
        let answers = api.answers(requests.as_bytes(), capacity).await;
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
        assert_eq!(answers.matches("HTTP/1.1 404").count(), 1, "{answers}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_long_is_told_so_however_it_arrives() {
    let api = Api::new().await;
    let head = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(limits::HEAD));
    for capacity in [100, 1000, 1500, 4096, 64 << 10] {
        let answers = api.answers(head.as_bytes(), capacity).await;
        assert!(
            answers.starts_with("HTTP/1.1 431 "),
            "{capacity}: {answers}"
        );
    }
}

#[tokio::test]
async fn what_a_client_sends_while_it_waits_is_kept_in_bounds_and_answered_afterwards() {
    let api = Api::new().await;
    let (mut near, served) = api.connect(1);
    near.write_all(WAIT.as_bytes()).await.unwrap();
    let next = format!(
        "GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "x".repeat(3000)
    );
    near.write_all(next.as_bytes()).await.unwrap();
    // So much is not read before the answer: with one byte on the way a write ends when all but it is read.
    let more = LAST.replace("host: ", &format!("x: {}\r\nhost: ", "x".repeat(6000)));
    let (mut from, mut to) = tokio::io::split(near);
    let sending = tokio::spawn(async move { to.write_all(more.as_bytes()).await });
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    assert!(!sending.is_finished(), "it was all read");
    tokio::spawn(Arc::clone(&api.site.registry).publish_news(api.stop.clone()));
    let node = r#"{"hostname":"a","host_ip":"192.0.2.1"}"#;
    let length = node.len();
    let register = format!(
        "POST /api/nodes/register HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{node}"
    );
    let registered = api.answers(register.as_bytes(), 4096).await;
    assert!(registered.contains("node_id"), "{registered}");
    let mut answers = String::new();
    from.read_to_string(&mut answers).await.unwrap();
    sending.await.unwrap().unwrap();
    served.await.unwrap();
    let [waited, not_found, last] = ["\"hostname\":\"a\"", "no-such-route", "{\"status\":\"ok\"}"]
        .map(|part| {
            answers
                .find(part)
                .unwrap_or_else(|| panic!("no {part} in {answers}"))
        });
    assert!(waited < not_found && not_found < last, "{answers}");
}

/// No heartbeat waits for room behind a question whose answer is large, nor either of them behind a stranger.
#[tokio::test]
async fn heartbeats_and_questions_of_nodes_have_room_of_their_own_and_strangers_theirs() {
    let api = Api::new().await;
    let body = r#"{"hostname":"a","host_ip":"192.0.2.9"}"#;
    let length = body.len();
    let register = format!(
        "POST /api/nodes/register HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    let answer = api.answers(register.as_bytes(), 4096).await;
    let (_, json) = answer.split_once("\r\n\r\n").unwrap();
    let node: serde_json::Value = serde_json::from_str(json).unwrap();
    let node = node["node_id"].as_str().unwrap();
    let nobody = "00000000-0000-4000-8000-000000000000";
    let is_in = |request: &str, expected: &'static Room| {
        let bytes = format!("{request} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let Ok(Some(head)) = head::read(bytes.as_bytes()) else {
            panic!("{request} is no request")
        };
        let Ok(admitted) = admit(&api.site.registry, &api.site.access, &local(), &head) else {
            panic!("{request} is not admitted")
        };
        assert!(
            std::ptr::eq(admitted.room, expected),
            "{request} is not in {expected:?}"
        );
    };
    is_in(&format!("POST /api/nodes/{node}/heartbeat"), &FOR_NODES);
    is_in(
        &format!("GET /api/nodes?since=0&wait=5&node={node}"),
        &FOR_QUESTIONS,
    );
    is_in(&format!("GET /api/nodes/{node}/heartbeat"), &FOR_OTHERS);
    is_in(&format!("POST /api/nodes/{nobody}/heartbeat"), &FOR_OTHERS);
    is_in(
        &format!("GET /api/nodes?since=0&node={nobody}"),
        &FOR_OTHERS,
    );
    is_in(&format!("POST /api/nodes/{node}/deregister"), &FOR_OTHERS);
    is_in("GET /api/nodes", &FOR_OTHERS);
}

#[tokio::test]
async fn the_end_of_a_connection_that_waits_is_noticed() {
    let api = Api::new().await;
    let (mut near, served) = api.connect(4096);
    near.write_all(WAIT.as_bytes()).await.unwrap();
    near.write_all(b"GET").await.unwrap();
    tokio::task::yield_now().await;
    drop(near);
    served.await.unwrap();
    assert!(!api.stop.is_cancelled());
}

static SHARED: LazyLock<(Runtime, Api)> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let api = runtime.block_on(Api::new());
    (runtime, api)
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The table reads a path as the router does: no request that it lets in is led elsewhere.
    #[test]
    fn no_path_leads_to_another_call_than_the_table_says(
        method in "(GET|GET|POST|POST|HEAD|PUT|DELETE|OPTIONS|PATCH)",
        segments in prop::collection::vec(
            "(api|api|api|nodes|nodes|subnets|docs|traffic|health|livez|register|heartbeat|leave|deregister|release|reserve|\
             x|%6eodes|api%2fnodes|openapi.json|\\.|\\.\\.|;x|Nodes|%61|%ff|%00|)",
            1..6,
        ),
        rest in "(|/|[?]since=0&node=x|[?]|//)",
        before in "(/|/|/|//|http://localhost/)",
    ) {
        let path = format!("{before}{}{rest}", segments.join("/"));
        let bytes = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let (runtime, api) = &*SHARED;
        let answers = runtime.block_on(api.answers(bytes.as_bytes(), 4096));
        prop_assert!(answers.starts_with("HTTP/1.1 "), "{:?} is answered {:?}", bytes, answers);
        prop_assert!(!answers.contains("this is a bug"), "{:?} is answered {:?}", bytes, answers);
    }

    /// What hyper refuses by itself has no body: it must never get to see it.
    #[test]
    fn an_error_is_a_problem_document_whatever_the_head_is(
        method in "(GET|POST|HEAD|PUT|CONNECT|[A-Z]{1,5}|[a-z!]{1,3}|)",
        target in "(/health|/api/nodes[?]since=x|\\*|[a-z.:0-9]{1,12}|http://x/[a-z%\"<>{}|^`]{0,6}|/[ -~]{0,8})",
        version in "(HTTP/1.1|HTTP/1.0|HTTP/2.0|HTTP/[0-9].[0-9]|[A-Z/]{0,4})",
        headers in prop::collection::vec(
            "(Host: localhost|Content-Length: [+0-9, ]{0,5}|Transfer-Encoding: (chunked|gzip|gzip, chunked|)|Expect: 100-continue|\
             Connection: (close|keep-alive|upgrade)|Upgrade: h2c|[ -~]{0,9}: [ -~\u{e9}\t]{0,9}|[ -~]{0,6})",
            0..5,
        ),
        body in "(|[ -~]{0,9}|0\r\n\r\n|3\r\nabc\r\n0\r\n\r\n|-\r\n)",
    ) {
        let bytes = format!("{method} {target} {version}\r\n{}\r\n\r\n{body}", headers.join("\r\n"));
        let (runtime, api) = &*SHARED;
        let answers = runtime.block_on(api.answers(bytes.as_bytes(), 4096));
        for (at, _) in answers.match_indices("HTTP/1.1 ") {
            let head = answers[at..].split("\r\n\r\n").next().unwrap_or_default();
            let status = head.get(9..12).and_then(|status| status.parse::<u16>().ok()).unwrap_or(0);
            let is_problem = head.contains("application/problem+json");
            prop_assert_eq!(status >= 400, is_problem, "{:?} is answered {:?}", bytes, head);
        }
    }
}
