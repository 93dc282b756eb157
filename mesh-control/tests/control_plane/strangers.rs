//! Clients that take what they can get: connections by the thousand whose requests never end, or whose answers nobody
//! reads. What they make the control plane hold is bounded, nodes are served meanwhile, and it is given back.
//!
//! The bounds are those of `http::room` and `http::answer` with room for what lies between. `cargo xtask bench control`
//! with `--strangers` does the same with as many connections as there may be.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::answer::{Answer, Api, node};
use crate::process::{ControlPlane, Setup};

/// How long anything may take. Only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(120);

const STRANGERS: usize = 2000;

const MIB: u64 = 1 << 20;

/// What is in use again when they are gone, beyond what was before: allocators keep some.
const MOST_LEFT: u64 = 24 * MIB;

/// A control plane with a node that goes on beating, and what it had in memory before the strangers came.
struct Served {
    control_plane: ControlPlane,
    api: Api,
    before: u64,
    node: Node,
}

impl Served {
    async fn start(nodes: usize) -> Self {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let control_plane = Setup::new()
            .with("--cluster-cidr", "10.0.0.0/8")
            .with("--node-timeout", "10m")
            .start();
        let api = Api::of(&control_plane);
        let mut names = 0..nodes;
        loop {
            let some: Vec<_> = names.by_ref().take(100).collect();
            if some.is_empty() {
                break;
            }
            let registrations = some.into_iter().map(|number| {
                let hostname = format!("{number:0>250}");
                let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
                let host_ip = format!("198.18.{high}.{low}");
                let api = api.clone();
                tokio::spawn(
                    async move { api.register(node(&hostname, &host_ip)).await.admitted() },
                )
            });
            for registration in registrations.collect::<Vec<_>>() {
                registration.await.unwrap();
            }
        }
        let (node_id, _) = api.register(node("beating", "192.0.2.1")).await.admitted();
        let node = Node::start(api.clone(), node_id);
        Self {
            before: control_plane.resident_bytes(),
            control_plane,
            api,
            node,
        }
    }

    /// What is in memory beyond what was.
    fn grown(&self) -> u64 {
        self.control_plane
            .resident_bytes()
            .saturating_sub(self.before)
    }

    /// The most of it for some seconds, in which strangers do what they do.
    async fn most_grown(&self, seconds: u64) -> u64 {
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut most = 0;
        while Instant::now() < until {
            most = most.max(self.grown());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        most
    }

    /// Waits until it is given back.
    async fn gives_back(&self, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.grown() > MOST_LEFT {
            assert!(
                Instant::now() < deadline,
                "{what}: {} MiB stay",
                self.grown() / MIB
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The same, and everybody else was served.
    async fn recovers(self, what: &str) {
        self.gives_back(what).await;
        self.node.stop(what).await;
        assert_eq!(self.api.nodes().await.last().unwrap()["status"], "up");
        assert!(self.control_plane.stop().success());
    }
}

/// A node that sends its heartbeats, with reports that are larger than what is read of any connection, and somebody who
/// asks whether the process lives.
struct Node {
    stop: CancellationToken,
    beating: JoinHandle<[Duration; 2]>,
}

impl Node {
    fn start(api: Api, node_id: String) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let beating = tokio::spawn(async move {
            let peers: Vec<Value> = (0..250)
                .map(|n| json!({"subnet": format!("10.1.{n}.0/24"), "tx_packets": n + 1, "tx_bytes": 1_000_000}))
                .collect();
            let report = json!({"peers": peers});
            let mut worst = [Duration::ZERO; 2];
            while !stopped.is_cancelled() {
                let requests = [
                    api.request(Method::GET, "/livez"),
                    api.post(&format!("/api/nodes/{node_id}/heartbeat"))
                        .json(&report),
                ];
                for (request, worst) in requests.into_iter().zip(&mut worst) {
                    let asked = Instant::now();
                    assert_eq!(Answer::to(request).await.status, 200);
                    *worst = asked.elapsed().max(*worst);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            worst
        });
        Self { stop, beating }
    }

    /// Every request was answered; this only prints how fast.
    async fn stop(self, what: &str) {
        self.stop.cancel();
        let [livez, heartbeat] = self.beating.await.unwrap();
        eprintln!("{what}: /livez within {livez:?}, heartbeats within {heartbeat:?}");
    }
}

/// Connections that send `bytes` each as far as they are taken, and then nothing.
async fn strangers(address: SocketAddr, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..count {
        let mut stranger = TcpStream::connect(address).unwrap();
        stranger.set_nonblocking(true).unwrap();
        match stranger.write(bytes) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        crowd.push(stranger);
        // The node's requests are made on this thread, too.
        tokio::task::yield_now().await;
    }
    crowd
}

/// A connection for which the kernel takes little: else it would take lists, and no process.
async fn with_small_buffer(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(address).await.unwrap().into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

#[tokio::test]
async fn requests_whose_heads_do_not_end_take_little_memory_and_give_it_back() {
    let served = Served::start(0).await;
    for (length, most) in [(1000, 16 * MIB), (12_000, 64 * MIB)] {
        let head = format!("GET /health HTTP/1.1\r\nX: {}", "x".repeat(length));
        let crowd = strangers(served.control_plane.address(), STRANGERS, head.as_bytes()).await;
        let grown = served.most_grown(3).await;
        eprintln!("{STRANGERS} heads of {length} bytes: {} MiB", grown / MIB);
        assert!(grown <= most, "{length}: {} MiB", grown / MIB);
        drop(crowd);
    }
    served.recovers("unfinished heads").await;
}

#[tokio::test]
async fn requests_whose_bodies_do_not_end_take_little_memory_and_give_it_back() {
    let served = Served::start(0).await;
    for path in ["/api/nodes/register", "/api/nodes/x/heartbeat"] {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n"
        );
        request.push_str(&" ".repeat(50_000));
        let crowd = strangers(
            served.control_plane.address(),
            STRANGERS,
            request.as_bytes(),
        )
        .await;
        let grown = served.most_grown(3).await;
        eprintln!("{STRANGERS} bodies for {path}: {} MiB", grown / MIB);
        assert!(grown <= 80 * MIB, "{path}: {} MiB", grown / MIB);
        // A newcomer has a small body, which is here when it is asked for.
        let newcomer = node("newcomer", "192.0.2.2");
        served.api.register(newcomer).await.admitted();
        drop(crowd);
        // What the next ones take is theirs.
        served.gives_back(path).await;
    }
    served.recovers("unfinished bodies").await;
}

#[tokio::test]
async fn answers_that_nobody_reads_take_little_memory_and_those_who_do_not_read_are_dropped() {
    let served = Served::start(4000).await;
    let list = served.api.list().await.to_string().len() as u64;
    assert!(list > MIB, "{list} bytes");
    let count = usize::try_from(220 * MIB / list).unwrap();
    let mut crowd = Vec::new();
    let files = served.control_plane.open_files();
    for number in 0..count {
        // Who asks for the same list has the same text.
        let change = node(&format!("{number}"), &format!("198.19.0.{number}"));
        served.api.register(change).await.admitted();
        // One has the feed's list, which goes by revision, the next the other.
        let query = ["", "?since=0"][number % 2];
        let request = format!("GET /api/nodes{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut stranger = with_small_buffer(served.control_plane.address()).await;
        stranger.write_all(request.as_bytes()).unwrap();
        // Who finds no room waits.
        stranger
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let mut begin = [0; 12];
        match tokio::task::spawn_blocking(move || (stranger.read(&mut begin), stranger))
            .await
            .unwrap()
        {
            (Ok(0), _) => panic!("a connection ended at once"),
            (Ok(_), stranger) => crowd.push(stranger),
            (Err(error), stranger) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                crowd.push(stranger);
            }
        }
    }
    let grown = served.most_grown(3).await;
    eprintln!("{count} lists of {list} bytes: {} MiB", grown / MIB);
    assert!(grown <= 120 * MIB, "{} MiB", grown / MIB);
    // Whoever reads has its list, although they do not.
    assert!(served.api.nodes().await.len() > 4000);
    // While none of them has closed its connection.
    let deadline = Instant::now() + PATIENCE;
    while served.grown() > MOST_LEFT || served.control_plane.open_files() > files + 10 {
        assert!(
            Instant::now() < deadline,
            "{} MiB stay",
            served.grown() / MIB
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut first = crowd.swap_remove(0);
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    // What the kernel has; it may end with a reset.
    let _ = first.read_to_end(&mut rest);
    assert!((rest.len() as u64) < list, "all of it was sent");
    drop(crowd);
    served.recovers("answers that nobody reads").await;
}

/// A question that waits has no room that others need, however it is asked.
#[tokio::test]
async fn questions_that_wait_leave_room_for_everybody_else() {
    let served = Served::start(0).await;
    for (number, (method, header, body)) in [
        ("GET", "", ""),
        ("HEAD", "", ""),
        ("GET", "Content-Length: 1\r\n", "x"),
    ]
    .into_iter()
    .enumerate()
    {
        let since = &served.api.list().await["revision"];
        let question = format!(
            "{method} /api/nodes?since={since}&wait=60 HTTP/1.1\r\nHost: localhost\r\n{header}\r\n{body}"
        );
        // More than there is room for requests.
        let address = served.control_plane.address();
        let crowd = strangers(address, 4200, question.as_bytes()).await;
        let deadline = Instant::now() + PATIENCE;
        while served.control_plane.open_files() < crowd.len() {
            assert!(Instant::now() < deadline, "they are not taken up");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Behind all of them, on a connection of its own.
        let api = Api::of(&served.control_plane);
        let newcomer = node("newcomer", &format!("198.19.0.{number}"));
        api.register(newcomer).await.admitted();
        drop(crowd);
    }
    served.recovers("questions that wait").await;
}
