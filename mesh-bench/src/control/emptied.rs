//! The control plane is replaced by an empty one while all its agents are there: how soon they are all back, with what
//! they had, and what that takes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use comfy_table::Table;
use mesh_rest::admitted::Admitted;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    agents::registration,
    connection::Connection,
    measure::{LARGE, TIMEOUT, admitted, register_all},
    server::Server,
};
use crate::figure::STYLE;

/// Connections that are being opened at a time, so that the kernel's queue suffices.
const OPENING: usize = 512;

/// Longest wait for all to be back: only a run that fails takes it.
const PATIENCE: Duration = Duration::from_secs(300);

/// Agents that lose their control plane try again after a time of their own of at most this.
const SPREAD_MS: u32 = 1000;

/// How far they are.
#[derive(Default)]
struct Progress {
    registered: AtomicU32,
    listed: AtomicU32,
    moved: AtomicU32,
    failures: AtomicUsize,
}

/// Measures with so many agents, and prints.
pub(crate) async fn run(agents: u32) -> anyhow::Result<()> {
    let options = [LARGE.as_slice(), &TIMEOUT].concat();
    let server = Server::start(None, &options).await?;
    let address = server.address;
    eprintln!("{agents} agents register");
    let (nodes, failures) = admitted(register_all(address, 0..agents).await?)?;
    if let Some(failure) = failures.first() {
        bail!("{} registrations failed: {failure}", failures.len());
    }
    server.stop().await?;
    eprintln!("an empty control plane takes its place");
    let server = Server::start_at(&address.to_string(), None, &options).await?;
    let progress = Arc::<Progress>::default();
    let opening = Arc::new(Semaphore::new(OPENING));
    let started = Instant::now();
    let mut returns = JoinSet::new();
    for (number, node) in (0..agents).zip(nodes) {
        let (progress, opening) = (Arc::clone(&progress), Arc::clone(&opening));
        returns.spawn(async move {
            // As their next attempts are spread.
            let share = f64::from(number.wrapping_mul(2_654_435_761) % SPREAD_MS);
            sleep(Duration::from_secs_f64(share / 1e3)).await;
            while let Err(error) = come_back(address, number, &node, &progress, &opening).await {
                if progress.failures.fetch_add(1, Relaxed) == 0 {
                    eprintln!("the first failure of an agent: {error:#}");
                }
                sleep(Duration::from_secs(1)).await;
            }
        });
    }
    let (mut peak, mut registered_after) = (0, None);
    let all_back = async { while returns.join_next().await.is_some() {} };
    tokio::pin!(all_back);
    loop {
        peak = server.usage()?.resident.max(peak);
        if progress.registered.load(Relaxed) == agents {
            registered_after.get_or_insert_with(|| started.elapsed());
        }
        if timeout(Duration::from_millis(20), &mut all_back)
            .await
            .is_ok()
        {
            break;
        }
        if started.elapsed() > PATIENCE {
            bail!(
                "only {} of {agents} are back",
                progress.listed.load(Relaxed)
            );
        }
    }
    let listed_after = started.elapsed();
    let registered_after = registered_after.unwrap_or(listed_after);
    server.stop().await?;
    let mut table = Table::new();
    table.load_style(STYLE).set_header([
        "agents",
        "all registered, s",
        "all have the list, s",
        "peak RSS, MB",
        "other subnets than before",
        "failed attempts",
    ]);
    table.add_row([
        agents.to_string(),
        format!("{:.1}", registered_after.as_secs_f64()),
        format!("{:.1}", listed_after.as_secs_f64()),
        (peak / 1_000_000).to_string(),
        progress.moved.load(Relaxed).to_string(),
        progress.failures.load(Relaxed).to_string(),
    ]);
    println!("{table}");
    Ok(())
}

/// What an agent does whose control plane knows it no more.
async fn come_back(
    address: SocketAddr,
    number: u32,
    before: &Admitted,
    progress: &Progress,
    opening: &Semaphore,
) -> anyhow::Result<()> {
    let slot = opening.acquire().await?;
    let mut connection = Connection::open(address).await?;
    drop(slot);
    let beat = format!("/api/nodes/{}/heartbeat", before.node_id);
    let answer = connection.post(&beat, "{}").await?;
    if answer.status != 404 {
        bail!(
            "a heartbeat of a node that is not known is answered {}",
            answer.status
        );
    }
    let registration = registration(number, Some(before.subnet.parse()?));
    let answer = connection
        .post("/api/nodes/register", &registration)
        .await?;
    let now: Admitted = answer.json()?;
    progress.registered.fetch_add(1, Relaxed);
    progress
        .moved
        .fetch_add(u32::from(now.subnet != before.subnet), Relaxed);
    let answer = connection.glimpse("/api/nodes").await?;
    if answer.status != 200 {
        bail!("the list is answered {}", answer.status);
    }
    let begin = String::from_utf8_lossy(&answer.body).into_owned();
    begin
        .contains("\"revision\"")
        .then_some(())
        .context(begin)?;
    progress.listed.fetch_add(1, Relaxed);
    Ok(())
}
