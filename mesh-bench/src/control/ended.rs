//! Questions that wait, when those who ask may not any more: how soon all of them have ended, and how long another node's
//! heartbeats take meanwhile.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use comfy_table::{CellAlignment, Table};
use mesh_rest::{
    admitted::Admitted,
    node_list::NodesAnswer,
    security::{ChangeRotation, Rotation},
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    agents::text,
    beating::beat,
    connection::{Connection, Way},
    joining,
    measure::{LARGE, OPENING, PATIENCE, TIMEOUT},
    server::Server,
};
use crate::figure::{STYLE, milliseconds, percentile};

/// As many as one node may have at a time; see docs/CONTROL_PLANE.md ("Limits").
const OF_ONE_NODE: usize = 32;

/// After all questions were sent: they are read, and wait.
const SETTLES: Duration = Duration::from_secs(5);

/// What one end showed.
struct Ended {
    what: String,
    /// How many were answered with each status.
    statuses: BTreeMap<u16, usize>,
    /// How long after the last word of whoever ended them, in milliseconds, in ascending order.
    waits: Vec<f64>,
    /// How long the other node's heartbeats took, likewise.
    heartbeats: Vec<f64>,
}

/// Measures with so many questions, each of another node, and prints.
pub(crate) async fn run(questions: u32) -> anyhow::Result<()> {
    let server = Server::start(None, &[LARGE.as_slice(), &TIMEOUT].concat()).await?;
    eprintln!("{questions} nodes join");
    let ways = joining::join_all(&server, questions).await?;
    let nodes = joining::register(ways, 0..questions).await?;
    let (one, its_way) = nodes.first().context("no node")?;
    let other = nodes.get(1).context("one node alone")?;
    let mut ends = Vec::new();

    let crowd = Crowd::connect(&vec![its_way.clone(); OF_ONE_NODE]).await?;
    crowd.ask(&server).await?;
    let revoke = format!("/api/nodes/{}/revoke", one.node_id);
    let what = format!("{OF_ONE_NODE} of one node that is revoked");
    ends.push(crowd.end(what, &server, other, (&revoke, "{}")).await?);

    // Without the one that was revoked. They connect before the control plane shows another certificate.
    let ways: Vec<Way> = nodes[1..].iter().map(|(_, way)| way.clone()).collect();
    let crowd = Crowd::connect(&ways).await?;
    let rotate = |step| text(&ChangeRotation { step, force: true });
    let mut admin = Connection::open_admin(&server.admin_socket()).await?;
    for step in [Rotation::Prepare, Rotation::Activate] {
        let answer = admin.post("/api/ca/rotate", &rotate(step)).await?;
        ensure!(answer.status == 200, "{step:?}: {}", answer.status);
    }
    // It has a certificate of the authority that stays, and is no news to those that ask afterwards.
    let ways = joining::join_all(&server, 1).await?;
    let stays = joining::register(ways, questions..questions + 1).await?;
    let stays = stays.first().context("no node")?;
    crowd.ask(&server).await?;
    let what = format!(
        "{} of as many nodes, whose authority is retired",
        crowd.count
    );
    let finish = rotate(Rotation::Finish);
    ends.push(
        crowd
            .end(what, &server, stays, ("/api/ca/rotate", &finish))
            .await?,
    );
    server.stop().await?;
    println!("{}", table(&ends));
    Ok(())
}

/// Questions that wait, each over a connection of its own.
struct Crowd {
    count: usize,
    /// What they ask, once all are connected.
    path: watch::Sender<Option<Arc<str>>>,
    /// When each ended, and with which status.
    answers: JoinSet<anyhow::Result<(Instant, u16)>>,
}

impl Crowd {
    async fn connect(ways: &[Way]) -> anyhow::Result<Self> {
        eprintln!("{} connections", ways.len());
        let (opening, connected) = (
            Arc::new(Semaphore::new(OPENING)),
            Arc::<AtomicUsize>::default(),
        );
        let path = watch::Sender::new(None);
        let mut answers = JoinSet::new();
        for way in ways {
            let (opening, connected) = (Arc::clone(&opening), Arc::clone(&connected));
            let (way, mut path) = (way.clone(), path.subscribe());
            answers.spawn(async move {
                let slot = opening.acquire_owned().await?;
                let mut connection = Connection::open(way).await?;
                drop(slot);
                connected.fetch_add(1, Relaxed);
                let path: Option<Arc<str>> = path.wait_for(Option::is_some).await?.clone();
                let answer = connection.get(&path.unwrap_or_default()).await?;
                anyhow::Ok((Instant::now(), answer.status))
            });
        }
        let deadline = Instant::now() + PATIENCE;
        while connected.load(Relaxed) < ways.len() {
            if Instant::now() > deadline {
                bail!(
                    "only {} of {} connected",
                    connected.load(Relaxed),
                    ways.len()
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Self {
            count: ways.len(),
            path,
            answers,
        })
    }

    /// Has all of them ask for what comes after now.
    async fn ask(&self, server: &Server) -> anyhow::Result<()> {
        let mut admin = Connection::open_admin(&server.admin_socket()).await?;
        let answer = admin.get("/api/nodes").await?;
        let list: NodesAnswer<'_> = answer.json()?;
        let (since, database) = (list.revision, list.database);
        let path = format!("/api/nodes?since={since}&wait=60&database={database}");
        self.path.send_replace(Some(path.into()));
        sleep(SETTLES).await;
        Ok(())
    }

    /// Ends them by this call, while `other` beats.
    async fn end(
        mut self,
        what: String,
        server: &Server,
        (other, way): &(Admitted, Way),
        (path, body): (&str, &str),
    ) -> anyhow::Result<Ended> {
        eprintln!("{what}");
        let stop = Arc::<AtomicBool>::default();
        let beating = tokio::spawn(beat(
            way.clone(),
            format!("/api/nodes/{}/heartbeat", other.node_id),
            Arc::clone(&stop),
        ));
        let mut admin = Connection::open_admin(&server.admin_socket()).await?;
        let answer = admin.post(path, body).await?;
        ensure!(answer.status == 200, "{path}: {}", answer.status);
        let ended = Instant::now();
        let (mut statuses, mut waits) = (BTreeMap::new(), Vec::new());
        while let Some(answer) = timeout(PATIENCE, self.answers.join_next())
            .await
            .context("questions do not end")?
        {
            let (at, status) = answer.context("a question failed")??;
            *statuses.entry(status).or_default() += 1;
            waits.push(milliseconds(at.saturating_duration_since(ended)));
        }
        stop.store(true, Relaxed);
        waits.sort_by(f64::total_cmp);
        Ok(Ended {
            what,
            statuses,
            waits,
            heartbeats: beating.await.context("the node failed")??,
        })
    }
}

fn table(ends: &[Ended]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header([
        "questions",
        "answered",
        "half ended, ms",
        "all but 1 %",
        "all",
        "another's heartbeat p50, ms",
        "p99",
        "max",
    ]);
    for ended in ends {
        let answered = ended.statuses.iter();
        let answered: Vec<_> = answered
            .map(|(status, count)| format!("{count} × {status}"))
            .collect();
        table.add_row([
            ended.what.clone(),
            answered.join(", "),
            percentile(&ended.waits, 50),
            percentile(&ended.waits, 99),
            percentile(&ended.waits, 100),
            percentile(&ended.heartbeats, 50),
            percentile(&ended.heartbeats, 99),
            percentile(&ended.heartbeats, 100),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
