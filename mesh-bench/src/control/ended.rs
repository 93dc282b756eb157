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
    sync::Semaphore,
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
const SETTLES: Duration = Duration::from_secs(2);

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
    let (_, other) = nodes.get(1).context("one node alone")?;
    let mut ends = Vec::new();

    let crowd = Crowd::ask(&vec![its_way.clone(); OF_ONE_NODE], other).await?;
    let revoke = format!("/api/nodes/{}/revoke", one.node_id);
    let what = format!("{OF_ONE_NODE} of one node that is revoked");
    ends.push(
        crowd
            .end(what, &server, &nodes[1], &[(&revoke, "{}")])
            .await?,
    );

    // Without the one that was revoked.
    let ways: Vec<Way> = nodes[1..].iter().map(|(_, way)| way.clone()).collect();
    let crowd = Crowd::ask(&ways, other).await?;
    let rotate = |step| text(&ChangeRotation { step, force: true });
    let mut admin = Connection::open_admin(&server.admin_socket()).await?;
    for step in [Rotation::Prepare, Rotation::Activate] {
        let answer = admin.post("/api/ca/rotate", &rotate(step)).await?;
        ensure!(answer.status == 200, "{step:?}: {}", answer.status);
    }
    // It has a certificate of the authority that stays.
    let ways = joining::join_all(&server, 1).await?;
    let mut stays = joining::register(ways, questions..questions + 1).await?;
    let stays = stays.pop().context("no node")?;
    let what = format!(
        "{} of as many nodes, whose authority is retired",
        crowd.count
    );
    let finish = rotate(Rotation::Finish);
    ends.push(
        crowd
            .end(what, &server, &stays, &[("/api/ca/rotate", &finish)])
            .await?,
    );
    server.stop().await?;
    println!("{}", table(&ends));
    Ok(())
}

/// Questions that wait.
struct Crowd {
    count: usize,
    /// When each ended, and with which status.
    answers: JoinSet<anyhow::Result<(Instant, u16)>>,
}

impl Crowd {
    /// Each asks over a connection of its own. `reader` tells where they begin.
    async fn ask(ways: &[Way], reader: &Way) -> anyhow::Result<Self> {
        eprintln!("{} questions", ways.len());
        let answer = Connection::open(reader.clone())
            .await?
            .get("/api/nodes")
            .await?;
        let list: NodesAnswer<'_> = answer.json()?;
        // A node that joins meanwhile is no news to them.
        let since = list.revision + 1_000;
        let path: Arc<str> = format!(
            "/api/nodes?since={since}&wait=60&database={}",
            list.database
        )
        .into();
        let (opening, asked) = (
            Arc::new(Semaphore::new(OPENING)),
            Arc::<AtomicUsize>::default(),
        );
        let all_are_open = Arc::new(tokio::sync::Notify::new());
        let mut answers = JoinSet::new();
        for way in ways {
            let (way, path, opening, asked, open) = (
                way.clone(),
                Arc::clone(&path),
                Arc::clone(&opening),
                Arc::clone(&asked),
                Arc::clone(&all_are_open),
            );
            answers.spawn(async move {
                let slot = opening.acquire_owned().await?;
                let mut connection = Connection::open(way).await?;
                drop(slot);
                let open = open.notified();
                asked.fetch_add(1, Relaxed);
                open.await;
                let answer = connection.get(&path).await?;
                anyhow::Ok((Instant::now(), answer.status))
            });
        }
        let deadline = Instant::now() + PATIENCE;
        while asked.load(Relaxed) < ways.len() {
            if Instant::now() > deadline {
                bail!("only {} of {} connected", asked.load(Relaxed), ways.len());
            }
            sleep(Duration::from_millis(20)).await;
        }
        // The last of them waits to be notified in a moment.
        sleep(Duration::from_millis(100)).await;
        all_are_open.notify_waiters();
        sleep(SETTLES).await;
        Ok(Self {
            count: ways.len(),
            answers,
        })
    }

    /// Ends them by these calls, while `other` beats.
    async fn end(
        mut self,
        what: String,
        server: &Server,
        (other, way): &(Admitted, Way),
        calls: &[(&str, &str)],
    ) -> anyhow::Result<Ended> {
        eprintln!("{what}");
        let stop = Arc::<AtomicBool>::default();
        let beating = tokio::spawn(beat(
            way.clone(),
            format!("/api/nodes/{}/heartbeat", other.node_id),
            Arc::clone(&stop),
        ));
        let mut admin = Connection::open_admin(&server.admin_socket()).await?;
        for (path, body) in calls {
            let answer = admin.post(path, body).await?;
            ensure!(answer.status == 200, "{path}: {}", answer.status);
        }
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
