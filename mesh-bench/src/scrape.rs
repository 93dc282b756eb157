//! How long a scrape of a node's metrics takes with the most peers there can be.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use mesh_testbed::{Host, wait_until};

use crate::{
    figure::{Figure, milliseconds, quantile},
    node::{Node, PEERS, peers},
};

/// Where the runtime serves its metrics.
const PORT: u16 = 9471;

/// How often it is scraped.
const SCRAPES: usize = 20;

/// How long the node may take to carry traffic by its programs.
const PATIENCE: Duration = Duration::from_secs(60);

/// From the connection to the last byte of the page, by a client that connects anew each time.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let node = Node::start().await?;
    node.sync(1, peers()).await?;
    let host = node.host();
    wait_until(
        "a page with every peer, on the fast path",
        PATIENCE,
        async || {
            let page = scrape(host).map_err(|error| format!("{error:#}"))?;
            let ready = "quilt_mesh_peer_fast_path_ready{";
            let ready = page
                .lines()
                .filter(|line| line.starts_with(ready) && line.ends_with(" 1"));
            match ready.count() {
                all if all == usize::from(PEERS) => Ok(()),
                some => Err(format!("{some} peers are ready")),
            }
        },
    )
    .await?;
    let (mut times, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..SCRAPES {
        let started = Instant::now();
        let page = scrape(host)?;
        times.push(milliseconds(started.elapsed()));
        sizes.push(f64::from(u32::try_from(page.len())?) / 1000.0);
    }
    let name = |what| format!("a scrape of a runtime with {PEERS} peers, {what}");
    Ok(vec![
        quantile(name("median"), "ms", Some(20.0), &times, 50)?,
        quantile(name("size"), "kB", None, &sizes, 50)?,
    ])
}

fn scrape(host: &Host) -> anyhow::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let answer = host.netns().run(|| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    })??;
    let (head, page) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(page.to_owned())
}
