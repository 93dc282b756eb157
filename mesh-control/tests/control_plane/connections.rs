//! Connections that are kept: what they cost, and that nothing on them is lost or moved.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::answer::{Api, node};
use crate::process::{ControlPlane, Setup};

/// How long an answer may take. Only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many connections are kept at once.
const MANY: usize = 400;

/// The most that a kept connection may take, resident: hyper's two buffers alone are 16 KiB. An unoptimised build
/// needs more than a release.
const MOST_BYTES_EACH: u64 = 8 << 10;

const HEALTH: &str = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// A kept connection that is read answer by answer.
struct Kept {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Kept {
    fn open(control_plane: &ControlPlane) -> Self {
        let stream = TcpStream::connect(control_plane.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            read: Vec::new(),
        }
    }

    fn send(&mut self, request: &str) {
        self.stream.write_all(request.as_bytes()).unwrap();
    }

    /// The next answer's status and body.
    fn answer(&mut self) -> (u16, String) {
        let end = loop {
            match self.read.windows(4).position(|it| it == b"\r\n\r\n") {
                Some(end) => break end,
                None => self.read_more(),
            }
        };
        let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let length = lines
            .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map(|(_, value)| value.parse().unwrap())
            .next();
        let length: usize = length.unwrap_or_else(|| panic!("no length in {head:?}"));
        while self.read.len() < length {
            self.read_more();
        }
        let body = String::from_utf8(self.read.drain(..length).collect()).unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    fn read_more(&mut self) {
        let mut room = [0; 16 << 10];
        let count = self.stream.read(&mut room).unwrap();
        assert!(
            count > 0,
            "the connection ended, {} bytes into an answer",
            self.read.len()
        );
        self.read.extend_from_slice(&room[..count]);
    }

    /// Sends no more, and returns what is yet to come.
    fn rest(mut self) -> String {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self.stream.read_to_end(&mut self.read).unwrap();
        String::from_utf8(self.read).unwrap()
    }
}

fn wait_for_news(since: u64, seconds: &str) -> String {
    format!("GET /api/nodes?since={since}&wait={seconds} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

fn revision(body: &str) -> u64 {
    let body: Value = serde_json::from_str(body).unwrap();
    body["revision"].as_u64().unwrap()
}

#[tokio::test]
async fn a_connection_that_waits_for_news_or_for_its_next_request_takes_little_memory() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    api.register(node("a", "192.0.2.1")).await.admitted();
    let before = control_plane.resident_bytes();
    let check = |what: &str| {
        let after = control_plane.resident_bytes();
        let each = after.saturating_sub(before) / MANY as u64;
        eprintln!("{MANY} connections {what}: {each} bytes each");
        assert!(each <= MOST_BYTES_EACH, "{what}: {each} bytes each");
    };

    let mut connections = Vec::new();
    for _ in 0..MANY {
        let mut connection = Kept::open(&control_plane);
        connection.send(HEALTH);
        assert_eq!(connection.answer().0, 200);
        connections.push(connection);
    }
    check("idle");
    for (address, since) in [("192.0.2.2", 1), ("192.0.2.3", 2)] {
        for connection in &mut connections {
            connection.send(&wait_for_news(since, "60"));
        }
        // Nothing tells that a request waits. These are served after most of them at least.
        for _ in 0..20 {
            api.list().await;
        }
        check("waiting");
        api.register(node(address, address)).await.admitted();
        for connection in &mut connections {
            let (status, body) = connection.answer();
            assert_eq!((status, revision(&body)), (200, since + 1));
        }
    }
}

#[tokio::test]
async fn requests_are_answered_in_their_order_however_their_bytes_arrive() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let (id, _) = api.register(node("a", "192.0.2.1")).await.admitted();
    let report = r#"{"data_plane":{"version":"0.1.0","fast_path":"active","generation":7}}"#;
    let heartbeat = |transfer: &str| {
        format!(
            "POST /api/nodes/{id}/heartbeat HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{transfer}"
        )
    };
    let length = report.len();
    let requests = [
        (HEALTH.to_owned(), 200, "{\"status\":\"ok\"}"),
        (wait_for_news(0, "60"), 200, "\"full\":true"),
        (wait_for_news(1, "0.05"), 200, "\"full\":false"),
        (
            heartbeat(&format!("content-length: {length}\r\n\r\n{report}")),
            200,
            "",
        ),
        (wait_for_news(1, "0.05"), 200, "\"nodes\":[]"),
        (wait_for_news(1, "x"), 400, "decimal number"),
        (
            heartbeat(&format!(
                "transfer-encoding: chunked\r\n\r\n{length:x}\r\n{report}\r\n0\r\n\r\n"
            )),
            200,
            "",
        ),
        (
            "GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(),
            404,
            "no route",
        ),
        (HEALTH.to_owned(), 200, "{\"status\":\"ok\"}"),
    ];
    let all: String = requests
        .iter()
        .map(|(request, ..)| request.as_str())
        .collect();
    for piece in [1, 2, 31, 100, 333, all.len()] {
        let mut connection = Kept::open(&control_plane);
        for bytes in all.as_bytes().chunks(piece) {
            connection.send(std::str::from_utf8(bytes).unwrap());
        }
        for (request, status, words) in &requests {
            let (answered, body) = connection.answer();
            assert_eq!(answered, *status, "pieces of {piece}: {request} {body}");
            assert!(body.contains(words), "pieces of {piece}: {request} {body}");
        }
        assert_eq!(connection.rest(), "");
    }
    // One after the other, each when the last is answered.
    let mut connection = Kept::open(&control_plane);
    for (request, status, words) in &requests {
        connection.send(request);
        let (answered, body) = connection.answer();
        assert_eq!(answered, *status, "{request} {body}");
        assert!(body.contains(words), "{request} {body}");
    }
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_not_taken_for_the_next_request() {
    let control_plane = Setup::new().start();
    for missing in [0, 1_000_000] {
        let mut connection = Kept::open(&control_plane);
        let length = HEALTH.len() + missing;
        connection.send(&format!(
            "POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"
        ));
        assert_eq!(connection.answer().0, 404);
        // The body, and the last request of the connection, which may be closed by now.
        let last = "GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let _ = connection.stream.write_all(HEALTH.as_bytes());
        let _ = connection.stream.write_all(last.as_bytes());
        let mut rest = Vec::new();
        // Ends with a reset where something was sent after the close.
        let _ = connection.stream.read_to_end(&mut rest);
        let rest = String::from_utf8(rest).unwrap();
        assert!(!rest.contains("200 OK"), "{missing} missing: {rest}");
    }
}

#[tokio::test]
async fn answers_that_do_not_fit_the_kernels_buffers_arrive_whole_at_a_slow_reader() {
    let control_plane = Setup::new().start();
    let request = "GET /api/docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut connection = Kept::open(&control_plane);
    connection.send(request);
    let (status, script) = connection.answer();
    assert_eq!(status, 200);
    assert!(script.len() > 1 << 20, "{} bytes", script.len());
    // More than a socket's two buffers hold together, unless their limits were raised.
    let times = 16;
    connection.send(&request.repeat(times));
    // Something else is served meanwhile.
    let mut other = Kept::open(&control_plane);
    other.send(HEALTH);
    assert_eq!(other.answer().0, 200);
    for number in 0..times {
        let (status, again) = connection.answer();
        assert_eq!(status, 200);
        assert!(again == script, "answer {number}: {} bytes", again.len());
    }
    connection.send(HEALTH);
    assert_eq!(connection.answer().0, 200);
}

#[tokio::test]
async fn who_goes_away_while_waiting_leaves_nothing_behind() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    api.register(node("a", "192.0.2.1")).await.admitted();
    let before = control_plane.open_files();
    let mut connections: Vec<_> = (0..50).map(|_| Kept::open(&control_plane)).collect();
    for connection in &mut connections {
        connection.send(&wait_for_news(1, "60"));
    }
    wait_until("all are accepted", || {
        control_plane.open_files() >= before + 50
    });
    drop(connections);
    wait_until("all are gone", || control_plane.open_files() <= before);
}

#[track_caller]
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE / 2;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
