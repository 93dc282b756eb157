//! The control plane under clients that only take: what they make it hold, and how long nodes wait meanwhile.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table};
use mesh_rest::{
    admitted::Admitted,
    heartbeat::{Heartbeat, PeerTraffic},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    agents::text,
    connection::Connection,
    measure::{LARGE, TIMEOUT, register_in_turn},
    server::Server,
};
use crate::figure::{STYLE, milliseconds, percentile};

/// How many ask for the list and do not read it.
const READERS: usize = 600;

/// How long they stay once they are all there.
const STAY: Duration = Duration::from_secs(20);

/// What is resident so long after they left is what stays.
const AFTERWARDS: Duration = Duration::from_secs(20);

/// Between two questions of the node.
const NODE_INTERVAL: Duration = Duration::from_millis(20);

/// Connections that are not for strangers.
const SPARE_FILES: u64 = 200;

/// What one kind of stranger did.
struct Siege {
    what: String,
    peak: u64,
    afterwards: u64,
    waits: Waits,
}

/// How long a node waited, in milliseconds, in ascending order.
#[derive(Default)]
struct Waits {
    livez: Vec<f64>,
    heartbeat: Vec<f64>,
}

/// Measures with so many nodes and as many strangers as there may be open files, and prints.
pub(crate) async fn run(nodes: u32, files: u64) -> anyhow::Result<()> {
    let server = Server::start(None, &[LARGE.as_slice(), &TIMEOUT].concat()).await?;
    let nodes = register_in_turn(server.address, nodes).await?;
    let most = usize::try_from(files.saturating_sub(SPARE_FILES))?;
    let list = "GET /api/nodes HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned();
    let body = format!(
        "POST /api/nodes/register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: 60000\r\n\r\n{}",
        " ".repeat(50_000)
    );
    let head = format!("GET /health HTTP/1.1\r\nX: {}", "x".repeat(1000));
    let address = server.address;
    let readers = async {
        let mut readers = Vec::new();
        for _ in 0..READERS {
            readers.push(reader(address, &list).await?);
        }
        Ok(readers)
    };
    let sieges = [
        siege(
            &server,
            &nodes,
            format!("{READERS} do not read the list"),
            readers,
        )
        .await?,
        siege(
            &server,
            &nodes,
            format!("{most} bodies of 50 kB do not end"),
            senders(address, most, body),
        )
        .await?,
        siege(
            &server,
            &nodes,
            format!("{most} heads of 1 kB do not end"),
            senders(address, most, head),
        )
        .await?,
    ];
    server.stop().await?;
    println!("{}", table(&sieges));
    Ok(())
}

async fn siege(
    server: &Server,
    nodes: &[Admitted],
    what: String,
    strangers: impl Future<Output = anyhow::Result<Vec<TcpStream>>>,
) -> anyhow::Result<Siege> {
    eprintln!("{what}");
    let stop = Arc::<AtomicBool>::default();
    let node = nodes.first().context("no node")?;
    let waits = node_waits(server.address, node.node_id.as_str(), Arc::clone(&stop));
    let mut peak = 0;
    let crowd = async {
        let crowd = strangers.await?;
        sleep(STAY).await;
        anyhow::Ok(crowd)
    };
    tokio::pin!(crowd);
    let crowd = loop {
        peak = server.usage()?.resident.max(peak);
        if let Ok(crowd) = timeout(Duration::from_millis(50), &mut crowd).await {
            break crowd?;
        }
    };
    stop.store(true, Relaxed);
    let waits = waits.await??;
    drop(crowd);
    sleep(AFTERWARDS).await;
    Ok(Siege {
        what,
        peak,
        afterwards: server.usage()?.resident,
        waits,
    })
}

/// Somebody whose kernel takes little, and who has the beginning of a list of its own, or waits for one.
async fn reader(address: SocketAddr, request: &str) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let mut stream = socket.connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut begin = [0; 12];
    let _ = timeout(Duration::from_millis(50), stream.read(&mut begin)).await;
    Ok(stream)
}

/// So many connections that send this, as far as it is taken, and nothing more.
async fn senders(
    address: SocketAddr,
    count: usize,
    request: String,
) -> anyhow::Result<Vec<TcpStream>> {
    let mut senders = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect(address).await?;
        stream.writable().await?;
        // The kernel has room for it, whether or not the control plane takes it.
        let _ = stream.try_write(request.as_bytes());
        senders.push(stream);
    }
    Ok(senders)
}

/// A node's heartbeats, and questions whether the process lives, until `stop`.
fn node_waits(
    address: SocketAddr,
    node_id: &str,
    stop: Arc<AtomicBool>,
) -> JoinHandle<anyhow::Result<Waits>> {
    let heartbeat = format!("/api/nodes/{node_id}/heartbeat");
    // What a node with as many peers tells.
    let peers = (0..250).map(|n| PeerTraffic {
        subnet: format!("10.1.{n}.0/24"),
        tx_packets: 7,
        tx_bytes: 9000,
        ..PeerTraffic::default()
    });
    let report = text(&Heartbeat {
        peers: peers.collect(),
        ..Heartbeat::default()
    });
    tokio::spawn(async move {
        let mut waits = Waits::default();
        while !stop.load(Relaxed) {
            let asked = Instant::now();
            Connection::open(address).await?.get("/livez").await?;
            waits.livez.push(milliseconds(asked.elapsed()));
            let asked = Instant::now();
            let mut connection = Connection::open(address).await?;
            connection.post(&heartbeat, &report).await?;
            waits.heartbeat.push(milliseconds(asked.elapsed()));
            sleep(NODE_INTERVAL).await;
        }
        waits.livez.sort_by(f64::total_cmp);
        waits.heartbeat.sort_by(f64::total_cmp);
        Ok(waits)
    })
}

fn table(sieges: &[Siege]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header([
        "strangers",
        "peak RSS, MB",
        "RSS afterwards, MB",
        "/livez p99, ms",
        "max",
        "heartbeat p99, ms",
        "max",
    ]);
    for siege in sieges {
        let Waits { livez, heartbeat } = &siege.waits;
        table.add_row([
            siege.what.clone(),
            format!("{:.0}", siege.peak / 1_000_000),
            format!("{:.0}", siege.afterwards / 1_000_000),
            percentile(livez, 99),
            percentile(livez, 100),
            percentile(heartbeat, 99),
            percentile(heartbeat, 100),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
