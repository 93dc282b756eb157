//! The control plane under joins as fast as they come, good ones and bad, from many addresses: what becomes of them, and how
//! long a node's heartbeats take meanwhile.

mod asked;
mod table;

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use mesh_credentials::{
    control_plane_check::{ControlPlaneCheck, KnownBy},
    join_token::JoinToken,
    tls,
};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use self::asked::{Asked, Outcome, Tally, Wish};
use super::{
    beating::beat,
    connection::{Connection, Way},
    joining,
    measure::{LARGE, TIMEOUT},
    server::Server,
};
use crate::figure::milliseconds;

/// Addresses that the joins come from, each over one connection at a time.
const SOURCES: u32 = 200;

/// How long it is watched each time.
const WATCHED: Duration = Duration::from_secs(15);

/// Between two looks at the memory.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What is resident so long after the last join is what stays.
const AFTERWARDS: Duration = Duration::from_secs(10);

/// What one watch showed.
struct Watch {
    what: &'static str,
    tally: Tally,
    /// How long the node's heartbeats took, in milliseconds, in ascending order.
    heartbeats: Vec<f64>,
    seconds: f64,
    cores: f64,
    /// Resident bytes: before, at most, and afterwards.
    resident: [u64; 3],
}

/// Measures with so many joins a second, and prints.
pub(crate) async fn run(per_second: u32) -> anyhow::Result<()> {
    let server = Server::start(None, &[LARGE.as_slice(), &TIMEOUT].concat()).await?;
    let ways = joining::join_all(&server, 1).await?;
    let nodes = joining::register(ways, 0..1).await?;
    let (node, way) = nodes.first().context("no node")?;
    let heartbeat = format!("/api/nodes/{}/heartbeat", node.node_id);
    let seconds = u32::try_from(WATCHED.as_secs())?;
    let mut watches = Vec::new();
    for (what, joins, anew) in [
        ("nobody joins", 0, false),
        ("over connections that are kept", per_second, false),
        ("each over a new connection", per_second, true),
    ] {
        eprintln!("{what}");
        let asked = Asked::prepare(&server, joins * seconds).await?;
        let before = server.usage()?;
        let stop = Arc::<AtomicBool>::default();
        let beating = tokio::spawn(beat(way.clone(), heartbeat.clone(), Arc::clone(&stop)));
        let flooding = tokio::spawn(flood(
            pinned(&server, asked.token())?,
            Arc::new(asked),
            joins,
            anew,
        ));
        let until = Instant::now() + WATCHED;
        let mut peak = 0;
        while Instant::now() < until || !flooding.is_finished() {
            peak = server.usage()?.resident.max(peak);
            sleep(LOOK_INTERVAL).await;
        }
        let after = server.usage()?;
        stop.store(true, Relaxed);
        let heartbeats = beating.await.context("the node failed")??;
        let tally = flooding.await.context("the joins failed")??;
        sleep(AFTERWARDS).await;
        watches.push(Watch {
            what,
            tally,
            heartbeats,
            seconds: (after.at - before.at).as_secs_f64(),
            cores: after.cores_since(&before),
            resident: [before.resident, peak, server.usage()?.resident],
        });
    }
    server.stop().await?;
    println!("{}", table::of_joins(&watches));
    println!("{}", table::of_the_node(&watches));
    Ok(())
}

/// How a host that has only a token reaches the control plane.
fn pinned(server: &Server, token: &JoinToken) -> anyhow::Result<Way> {
    let check = ControlPlaneCheck::new(KnownBy::Key(token.authority));
    Ok(Way {
        tls: Some(Arc::new(tls::client(Arc::new(check), None)?)),
        ..server.address.into()
    })
}

/// So many joins a second, as far as the control plane takes them.
async fn flood(way: Way, asked: Arc<Asked>, per_second: u32, anew: bool) -> anyhow::Result<Tally> {
    let mut sources = JoinSet::new();
    if per_second > 0 {
        let pause = Duration::from_secs(SOURCES.into()) / per_second;
        for source in 0..SOURCES {
            let address = Ipv4Addr::from_bits(Ipv4Addr::new(127, 2, 0, 1).to_bits() + source);
            let way = Way {
                from: Some(address),
                ..way.clone()
            };
            let first = pause * source / SOURCES;
            sources.spawn(join_on(way, Arc::clone(&asked), (first, pause), anew));
        }
    }
    let mut tally = Tally::default();
    while let Some(ended) = sources.join_next().await {
        tally.add(ended.context("a source failed")?);
    }
    Ok(tally)
}

/// The joins of one source, one each `pause`, until the watch is over.
async fn join_on(
    way: Way,
    asked: Arc<Asked>,
    (first, pause): (Duration, Duration),
    anew: bool,
) -> Tally {
    let mut tally = Tally::default();
    let until = Instant::now() + WATCHED;
    sleep(first).await;
    let mut turns = interval(pause);
    // What the control plane cannot take is not made up for.
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = None;
    loop {
        turns.tick().await;
        if Instant::now() >= until {
            return tally;
        }
        let (wish, body) = asked.next();
        let began = Instant::now();
        let outcome = join(&way, &mut connection, body).await;
        tally.note(wish, outcome, milliseconds(began.elapsed()));
        if anew || outcome == Outcome::Failed {
            connection = None;
        }
    }
}

async fn join(way: &Way, connection: &mut Option<Connection>, body: &str) -> Outcome {
    let answered = async {
        let connection = match connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(way.clone()).await?),
        };
        connection.post("/api/join", body).await
    };
    match answered.await {
        Ok(answer) => Outcome::of(answer.status),
        Err(_) => Outcome::Failed,
    }
}

impl Wish {
    /// As it stands in the table.
    fn name(self) -> &'static str {
        match self {
            Self::Good => "a new host with a good token",
            Self::Again => "one host again and again",
            Self::UsedUp => "a token that is used up",
            Self::Unknown => "a token that there is not",
            Self::Malformed => "what is none",
        }
    }
}
