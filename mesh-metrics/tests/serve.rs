//! The metrics' port as those see it who call there.
#![allow(
    clippy::unwrap_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use clap::Parser as _;
use mesh_metrics::{MetricsOptions, Opened, Scrape, Source, Unavailable, catalog::common, serve};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, pki_types::ServerName},
};
use tokio_util::sync::CancellationToken;

/// A daemon that measures nothing, and may be slow or not ready.
#[derive(Debug)]
struct Daemon {
    ready: AtomicBool,
    /// A scrape takes one of these.
    turns: Semaphore,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            ready: AtomicBool::new(true),
            turns: Semaphore::new(Semaphore::MAX_PERMITS),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
        }
    }
}

struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Source for Daemon {
    async fn collect(&self) -> Result<Scrape, Unavailable> {
        let now = self.under_way.fetch_add(1, SeqCst) + 1;
        self.most_under_way.fetch_max(now, SeqCst);
        // Also where it is given up.
        let _under_way = UnderWay(&self.under_way);
        self.turns.acquire().await.unwrap().forget();
        Ok(common::begin("daemon", "1.2.3", &[]))
    }

    async fn ready(&self) -> Result<(), Unavailable> {
        match self.ready.load(SeqCst) {
            true => Ok(()),
            false => Err(Unavailable("the kernel sleeps".to_owned())),
        }
    }
}

#[derive(clap::Parser)]
struct CommandLine {
    #[command(flatten)]
    metrics: MetricsOptions,
}

/// A daemon's port that is served as long as this is there.
struct Served {
    address: SocketAddr,
    daemon: Arc<Daemon>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Served {
    async fn start(options: &[&str]) -> Self {
        Self::with(options, Daemon::default()).await
    }

    async fn with(options: &[&str], daemon: Daemon) -> Self {
        let line = ["daemon", "--metrics-addr", "127.0.0.1:0"].iter();
        let line = CommandLine::parse_from(line.chain(options));
        let door = line.metrics.door(1).unwrap().unwrap();
        let Opened::At(door, listener) = door.open().await.unwrap() else {
            panic!("a free port is taken");
        };
        let address = listener.local_addr().unwrap();
        let (daemon, stop) = (Arc::new(daemon), CancellationToken::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(door, listener, Arc::clone(&daemon), stop.clone()));
        Self {
            address,
            daemon,
            stop,
            tasks,
        }
    }

    async fn get(&self, path: &str) -> String {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        self.ask(&request).await
    }

    async fn ask(&self, request: &str) -> String {
        let stream = TcpStream::connect(self.address).await.unwrap();
        exchange(stream, request).await
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn status(answer: &str) -> &str {
    answer.split_whitespace().nth(1).unwrap_or("none")
}

#[tokio::test]
async fn a_page_is_served_as_prometheus_reads_it() {
    let served = Served::start(&[]).await;
    let answer = served.get("/metrics").await;
    assert_eq!(status(&answer), "200", "{answer}");
    for part in [
        "content-type: text/plain; version=0.0.4; charset=utf-8\r\n",
        "cache-control: no-store\r\n",
        "quilt_mesh_build_info{component=\"daemon\",version=\"1.2.3\"} 1\n",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
}

#[tokio::test]
async fn a_daemon_lives_also_while_it_is_not_ready_and_says_why_it_is_not() {
    let served = Served::start(&[]).await;
    assert_eq!(status(&served.get("/readyz").await), "200");
    served.daemon.ready.store(false, SeqCst);
    let answer = served.get("/readyz").await;
    assert_eq!(status(&answer), "503");
    assert!(answer.ends_with("\r\n\r\nthe kernel sleeps\n"), "{answer}");
    assert_eq!(status(&served.get("/livez").await), "200");
}

#[tokio::test]
async fn a_page_of_another_site_gets_nothing_by_a_name_that_it_has_made_to_lead_here() {
    let served = Served::start(&[]).await;
    for path in ["/metrics", "/livez", "/readyz"] {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: attacker.example\r\nConnection: close\r\n\r\n");
        let answer = served.ask(&request).await;
        assert_eq!(status(&answer), "421", "{answer}");
        assert!(!answer.contains("quilt_mesh_"), "{answer}");
    }
}

#[tokio::test]
async fn nothing_else_is_served() {
    let served = Served::start(&[]).await;
    assert_eq!(status(&served.get("/").await), "404");
    let request = "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let answer = served.ask(request).await;
    assert_eq!(status(&answer), "405");
    assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
    let long = "x".repeat(64 * 1024);
    let request = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n");
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    // The other end may be closed before all of it is written.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(!answer.contains("quilt_mesh_"), "{answer}");
}

#[tokio::test]
async fn scrapes_do_not_pile_up_and_one_that_takes_too_long_is_given_up() {
    let slow = Daemon {
        turns: Semaphore::new(0),
        ..Daemon::default()
    };
    let served = Arc::new(Served::with(&[], slow).await);
    let mut scrapes = JoinSet::new();
    for _ in 0..8 {
        let served = Arc::clone(&served);
        scrapes.spawn(async move { served.get("/metrics").await });
    }
    // Meanwhile it is still told that it lives.
    assert_eq!(status(&served.get("/livez").await), "200");
    while let Some(answer) = scrapes.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(status(&answer), "503", "{answer}");
    }
    assert_eq!(served.daemon.most_under_way.load(SeqCst), 2);
}

#[tokio::test]
async fn connections_that_say_nothing_make_room_for_one_that_asks() {
    let served = Served::start(&[]).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    assert_eq!(status(&served.get("/metrics").await), "200");
    // The first of them are closed.
    let mut nothing = [0; 1];
    let closed = silent[0].read(&mut nothing).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
}

#[tokio::test]
async fn one_connection_serves_one_scrape_after_the_other() {
    let served = Served::start(&[]).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    for _ in 0..3 {
        let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
    }
}

#[tokio::test]
async fn a_stop_ends_what_waits() {
    let mut served = Served::start(&[]).await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    served.get("/livez").await;
    served.stop.cancel();
    served.tasks.join_next().await.unwrap().unwrap();
    let mut nothing = Vec::new();
    let _ = idle.read_to_end(&mut nothing).await;
    assert!(nothing.is_empty());
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_problem_and_no_failure() {
    let served = Served::start(&[]).await;
    let address = served.address.to_string();
    let line = ["daemon", "--metrics-addr", &address];
    let door = CommandLine::parse_from(line).metrics.door(1).unwrap();
    let Opened::Taken(problem) = door.unwrap().open().await.unwrap() else {
        panic!("two have one port");
    };
    assert_eq!(problem.kind.code, "metrics-port-taken");
    assert!(problem.observed.contains(&address), "{problem}");
}

/// Files of a certificate for 127.0.0.1 that signs itself, and a token.
struct Files {
    directory: tempfile::TempDir,
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

impl Files {
    fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = Self { directory };
        files.renew();
        files.write("token", TOKEN);
        files
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        let (path, new) = (self.path(name), self.path("new"));
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(Path::new(&new), path).unwrap();
    }

    /// Makes another certificate.
    fn renew(&self) {
        let made: CertifiedKey<KeyPair> =
            generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        self.write("key.pem", &made.signing_key.serialize_pem());
        self.write("cert.pem", &made.cert.pem());
    }

    fn options(&self) -> Vec<String> {
        let named = [
            ("--metrics-tls-cert", "cert.pem"),
            ("--metrics-tls-key", "key.pem"),
            ("--metrics-token-file", "token"),
        ];
        let words = named.map(|(option, name)| [option.to_owned(), self.path(name)]);
        words.concat()
    }

    /// A client that trusts the certificate as it is now.
    fn client(&self) -> TlsConnector {
        let pem = fs::read_to_string(self.path("cert.pem")).unwrap();
        let mut roots = RootCertStore::empty();
        for certificate in mesh_credentials::tls::certificates(&pem).unwrap() {
            roots.add(certificate).unwrap();
        }
        let provider = mesh_credentials::tls::provider();
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }
}

async fn over_tls(
    served: &Served,
    client: &TlsConnector,
    authorization: &str,
) -> std::io::Result<String> {
    let stream = TcpStream::connect(served.address).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = client.connect(name, stream).await?;
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: mesh.example\r\n{authorization}Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn over_tls_the_token_has_to_be_shown() {
    let files = Files::make();
    let options = files.options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let served = Served::start(&options).await;
    let client = files.client();
    let with = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let answer = over_tls(&served, &client, &with(TOKEN)).await.unwrap();
    assert_eq!(status(&answer), "200", "{answer}");
    for other in [String::new(), with("0123456789abcdef"), with("")] {
        let answer = over_tls(&served, &client, &other).await.unwrap();
        assert_eq!(status(&answer), "401", "{answer}");
        assert!(answer.contains("www-authenticate: Bearer\r\n"), "{answer}");
        assert!(!answer.contains("quilt_mesh_"), "{answer}");
    }
    files.write("token", "another-token-of-some-length");
    let answer = over_tls(&served, &client, &with(TOKEN)).await.unwrap();
    assert_eq!(status(&answer), "401", "{answer}");
    files.write("token", "");
    let answer = over_tls(&served, &client, &with("")).await.unwrap();
    assert_eq!(status(&answer), "500", "{answer}");
}

#[tokio::test]
async fn whoever_speaks_no_tls_there_gets_nothing() {
    let files = Files::make();
    let options = files.options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let served = Served::start(&options).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        !String::from_utf8_lossy(&answer).contains("HTTP"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_certificate_that_is_replaced_is_shown_without_a_restart() {
    let files = Files::make();
    let options = files.options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let served = Served::start(&options).await;
    let authorization = format!("Authorization: Bearer {TOKEN}\r\n");
    let before = files.client();
    over_tls(&served, &before, &authorization).await.unwrap();
    files.renew();
    let after = files.client();
    // The files are looked at once a second at most.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while over_tls(&served, &after, &authorization).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "it is never shown");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(over_tls(&served, &before, &authorization).await.is_err());
}
