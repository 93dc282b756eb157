//! Handshakes that stop half way, and what connections over TLS take: on the real process, which has a certificate of
//! its owner's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_credentials::authority::Authority;
use mesh_credentials::name::MeshId;
use mesh_credentials::{secret_file, tls};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::{Connection, PATIENCE, request};
use super::server::now;
use crate::process::{ControlPlane, Setup};

/// The beginning of a handshake: the header of a record, and a few bytes of the hello that it announces.
const HALF: [u8; 11] = [0x16, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3];

/// A control plane, and what its clients check it by.
struct Served {
    control_plane: ControlPlane,
    client: Arc<ClientConfig>,
}

impl Served {
    async fn start() -> Self {
        Self::start_logging("info").await
    }

    async fn start_logging(level: &str) -> Self {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let own = Authority::make(MeshId::make(), now()).unwrap();
        let address = "127.0.0.1".parse().unwrap();
        let shown = own.sign_control_plane(&[], &[address], now()).unwrap();
        let setup = Setup::new();
        let file = |name: &str, text: &str| {
            let path = setup.folder().join(name);
            // Nobody else may read the key.
            assert!(secret_file::create(&path, text).unwrap());
            path.to_str().unwrap().to_owned()
        };
        let certificate = file("cert.pem", &shown.certificate);
        let key = file("key.pem", &shown.key);
        let setup = setup
            .with("--tls-cert", &certificate)
            .with("--tls-key", &key)
            .with("--log-level", level);
        let client = tls::client_of_own_authority(&own.trusted().pem(), None).unwrap();
        let served = Self {
            control_plane: setup.start(),
            client: Arc::new(client),
        };
        // What the first takes for good is there afterwards.
        served.is_served().await;
        served
    }

    fn address(&self) -> SocketAddr {
        self.control_plane.address()
    }

    async fn plain(&self) -> Connection<TcpStream> {
        Connection::new(TcpStream::connect(self.address()).await.unwrap())
    }

    async fn tls(&self) -> Connection<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        let connector = TlsConnector::from(Arc::clone(&self.client));
        let stream = connector.connect(self.address().ip().into(), stream);
        Connection::new(timeout(PATIENCE, stream).await.unwrap().unwrap())
    }

    /// How long a whole connection over TLS takes.
    async fn is_served(&self) -> Duration {
        let began = Instant::now();
        let answer = self
            .tls()
            .await
            .ask(&request("GET", "/api/nodes", ""))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        began.elapsed()
    }
}

async fn half(source: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    stream.write_all(&HALF).await.unwrap();
    stream
}

#[tokio::test]
async fn ten_thousand_handshakes_that_stop_half_way_keep_nobody_out_and_take_little_memory() {
    const MANY: usize = 10_000;
    let served = Served::start().await;
    let before = served.control_plane.resident_bytes();
    let files = served.control_plane.open_files();
    let mut crowd = Vec::new();
    for _ in 0..MANY {
        crowd.push(half("127.0.0.2", served.address()).await);
    }
    let among = served.is_served().await;
    let grown = served.control_plane.resident_bytes().saturating_sub(before);
    eprintln!(
        "{MANY} handshakes that stopped: {} bytes each; another source is served within {among:?}",
        grown / MANY as u64
    );
    assert!(grown < (MANY as u64) * (8 << 10), "{grown} bytes");
    // From the address of the crowd itself, as behind one gateway.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let stream = socket.connect(served.address()).await.unwrap();
    let began = Instant::now();
    let connector = TlsConnector::from(Arc::clone(&served.client));
    let stream = connector.connect(served.address().ip().into(), stream);
    timeout(PATIENCE, stream).await.unwrap().unwrap();
    eprintln!("the same source is served within {:?}", began.elapsed());
    drop(crowd);
    let deadline = Instant::now() + PATIENCE;
    while served.control_plane.open_files() > files + 10 {
        assert!(Instant::now() < deadline, "they are kept");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(served.control_plane.stop().success());
}

#[tokio::test]
async fn a_handshake_that_stopped_is_given_up_though_nobody_waits() {
    let served = Served::start().await;
    let mut stopped = Connection::new(half("127.0.0.1", served.address()).await);
    assert!(stopped.is_over().await);
}

#[tokio::test]
async fn who_gave_up_before_its_turn_is_not_shaken_hands_with() {
    const GONE: &str = "had gone before its turn";
    let served = Served::start_logging("debug").await;
    // All turns are taken, until they give way to those who wait.
    let mut stopped = Vec::new();
    for _ in 0..300 {
        stopped.push(half("127.0.0.2", served.address()).await);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        drop(half("127.0.0.3", served.address()).await);
        let log = served.control_plane.log();
        if log.iter().any(|line| line.contains(GONE)) {
            break;
        }
        assert!(Instant::now() < deadline, "nobody was found to have gone");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(stopped);
    served.is_served().await;
}

/// An unoptimised build, which takes more than a release.
#[tokio::test]
async fn an_idle_connection_over_tls_takes_at_most_40_kb_more_than_a_plain_one() {
    const MANY: usize = 1000;
    async fn each<S, F>(served: &Served, open: impl Fn() -> F) -> [u64; 2]
    where
        S: AsyncRead + AsyncWrite + Unpin,
        F: Future<Output = Connection<S>>,
    {
        let before = served.control_plane.resident_bytes();
        let grown = || {
            let grown = served.control_plane.resident_bytes().saturating_sub(before);
            grown / MANY as u64
        };
        let mut connections = Vec::new();
        for _ in 0..MANY {
            let mut connection = open().await;
            let answer = connection.ask(&request("GET", "/api/nodes", "")).await;
            assert_eq!(answer.status, 200);
            connections.push(connection);
        }
        let idle = grown();
        for connection in &mut connections {
            let question = request("GET", "/api/nodes?since=0&wait=60", "");
            connection.send(&question).await.unwrap();
        }
        // Behind all of them.
        served.is_served().await;
        [idle, grown()]
    }
    let served = Served::start().await;
    let plain = each(&served, || served.plain()).await;
    let served = Served::start().await;
    let over_tls = each(&served, || served.tls()).await;
    eprintln!(
        "{MANY} connections, idle and waiting: plain {plain:?} bytes each, over TLS {over_tls:?}"
    );
    for (plain, over_tls) in plain.into_iter().zip(over_tls) {
        assert!(over_tls <= plain + 40_000, "{plain} {over_tls}");
    }
}
