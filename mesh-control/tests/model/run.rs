//! One sequence of steps: sent to the real thing, and held against the model.

use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use mesh_testbed::Postgres;
use reqwest::RequestBuilder;
use serde_json::json;
use tokio::task::JoinSet;

use crate::answer::{Answer, Api, keyed, node};
use crate::cluster::Cluster;
use crate::follower::Follower;
use crate::list::NodeList;
use crate::model::{Life, Model, subnet};
use crate::order::Order;
use crate::steps::{Claim, Kill, Pick, Step};

mod agreement;

/// For what needs time to come about: only a failing run waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a step leaves to be seen.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    /// Something may still be under way in the database server.
    unsettled: bool,
    /// The one node that registered said that it holds this.
    claimed: Option<Ipv4Net>,
    /// Somebody was told that no subnet is left.
    exhausted: bool,
}

/// A running cluster and what is known about it.
pub(crate) struct Run<'a> {
    cluster: Cluster,
    /// The server, and the URL of the database.
    database: Option<(&'a Postgres, &'a str)>,
    node_timeout: Duration,
    model: Model,
    order: Order,
    step: Outcome,
    followers: Vec<Follower>,
    /// The last revision of each replica.
    revisions: Vec<u64>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        cluster: Cluster,
        database: Option<(&'a Postgres, &'a str)>,
        node_timeout: Duration,
    ) -> Self {
        let addresses = cluster.addresses();
        let mut followers: Vec<Follower> = (0..addresses.len())
            .map(|replica| Follower::of_replica(addresses, replica))
            .collect();
        if addresses.len() > 1 {
            followers.push(Follower::roaming(addresses));
        }
        let revisions = vec![0; cluster.count()];
        Self {
            cluster,
            database,
            node_timeout,
            model: Model::default(),
            order: Order::default(),
            step: Outcome::default(),
            followers,
            revisions,
        }
    }

    /// Returns how many leases were foretold.
    pub(crate) async fn all(mut self, steps: &[Step]) -> usize {
        for step in steps {
            self.step(step).await;
            self.look_around().await;
            for follower in &mut self.followers {
                follower.check().await;
            }
        }
        self.followers_agree().await;
        self.subnets_agree().await;
        self.order.foretold
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Register { claim, replica } => self.register(claim, *replica).await,
            Step::LoseState {
                node,
                deregisters,
                replica,
            } => {
                if *deregisters {
                    self.deregister(*node, *replica).await;
                }
                self.lose_state(*node, *replica).await;
            }
            Step::Heartbeat { node, replica } => self.heartbeat(*node, *replica).await,
            Step::Deregister { node, replica } => self.deregister(*node, *replica).await,
            Step::Silence => self.silence().await,
            Step::Release { node, replica } => self.release(*node, *replica).await,
            Step::Retire { nodes } => {
                for (node, replica) in nodes {
                    self.deregister(*node, *replica).await;
                    self.release(*node, *replica).await;
                    self.look_around().await;
                }
            }
            Step::Reserve {
                subnet,
                two,
                replica,
            } => self.reserve(range(*subnet, *two), *replica).await,
            Step::Unreserve {
                reservation,
                replica,
            } => self.unreserve(*reservation, *replica).await,
            Step::Crowd { crowd, kill } => self.crowd(crowd, kill.as_ref()).await,
            Step::Crash { replica } => {
                self.cluster.kill(*replica);
                self.step.unsettled = true;
                self.cluster.start_again(*replica);
                self.model.forget_lives();
            }
            Step::Restart { replica } => {
                self.cluster.stop(*replica);
                self.cluster.start_again(*replica);
                self.model.forget_lives();
            }
            Step::CrashDatabase => {
                if let Some((database, _)) = self.database {
                    self.step.unsettled = true;
                    database.kill().await.unwrap();
                    database.start().await.unwrap();
                    self.model.forget_lives();
                }
            }
        }
    }

    /// One replica knows at once what was acknowledged, and what it says of time is its own.
    fn prompt(&self) -> bool {
        self.cluster.count() == 1
    }

    /// What is known of a node's life when it was taken in: the request was sent at `sent`.
    fn lively(&self, sent: Instant) -> Life {
        match self.prompt() {
            true => Life::UpUntil(sent + self.node_timeout),
            false => Life::Unsure,
        }
    }

    fn api(&self, pick: Pick) -> Api {
        self.cluster.addresses().replica(pick.into())
    }

    fn picked(&self, pick: Pick) -> Option<String> {
        let nodes = self.model.nodes();
        nodes
            .keys()
            .nth(usize::from(pick) % nodes.len().max(1))
            .cloned()
    }

    async fn register(&mut self, claim: &Claim, replica: Pick) {
        let sent = Instant::now();
        let answer = ask(registration(&self.api(replica), claim)).await;
        self.step.claimed = claim.holds.map(subnet);
        self.registered(claim, answer, sent);
    }

    async fn lose_state(&mut self, node: Pick, replica: Pick) {
        let id = self.picked(node);
        let claim = id.and_then(|id| self.model.nodes()[&id].after_losing_its_state());
        if let Some(claim) = claim {
            self.register(&claim, replica).await;
        }
    }

    fn registered(&mut self, claim: &Claim, answer: Option<Answer>, sent: Instant) {
        let expected = self.model.expect(claim, Instant::now(), self.prompt());
        let Some(answer) = answer else {
            self.step.unsettled = true;
            return self.model.unanswered(claim);
        };
        match answer.status {
            200 => {
                let (id, subnet) = answer.admitted();
                let life = self.lively(sent);
                self.model
                    .admitted(claim, &expected, &id, subnet.parse().unwrap(), life);
            }
            409 => self.model.refused(claim, &expected),
            503 => {
                self.step.exhausted = true;
                self.model.exhausted(claim, &expected);
            }
            _ => panic!("{claim:?} was answered {answer:?}"),
        }
    }

    async fn heartbeat(&mut self, node: Pick, replica: Pick) {
        let Some(id) = self.picked(node) else { return };
        let sent = Instant::now();
        let life = self.lively(sent);
        // Now and then another MTU, of which followers are told as of everything else.
        let told = serde_json::json!({"overlay_mtu": 1400 + u32::from(replica) % 3});
        match ask(self
            .api(replica)
            .post(&format!("/api/nodes/{id}/heartbeat"))
            .json(&told))
        .await
        {
            Some(answer) => {
                assert!([200, 404].contains(&answer.status), "{answer:?}");
                self.model
                    .heartbeat(&id, answer.status == 200, life, self.prompt());
            }
            None => self.model.unsure_of(&id, false),
        }
    }

    async fn deregister(&mut self, node: Pick, replica: Pick) {
        let Some(id) = self.picked(node) else { return };
        match ask(self
            .api(replica)
            .post(&format!("/api/nodes/{id}/deregister")))
        .await
        {
            Some(answer) => {
                assert!([200, 404].contains(&answer.status), "{answer:?}");
                self.model.deregistered(&id, answer.status == 200);
            }
            None => self.model.unsure_of(&id, true),
        }
    }

    /// Nobody sends anything until every replica shows every node down.
    async fn silence(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        for replica in 0..self.cluster.count() {
            let api = self.cluster.addresses().replica(replica);
            while let Some(list) = NodeList::fetch(&api).await
                && list.listed().values().any(|node| node.up)
            {
                assert!(
                    Instant::now() < deadline,
                    "nodes are silent and not down: {list:#?}"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        self.model.all_are_down();
    }

    async fn release(&mut self, node: Pick, replica: Pick) {
        let Some(id) = self.picked(node) else { return };
        let subnet = self.model.nodes()[&id].subnet;
        let request = self.api(replica).post("/api/subnets/release");
        match ask(request.json(&json!({"subnet": subnet}))).await {
            Some(answer) => self.model.released(&id, answer.status, Instant::now()),
            None => {
                self.step.unsettled = true;
                self.model.release_unanswered(&id);
            }
        }
    }

    async fn reserve(&mut self, range: Ipv4Net, replica: Pick) {
        let request = self.api(replica).post("/api/subnets/reserve");
        match ask(request.json(&json!({"cidr": range, "reason": "model test"}))).await {
            Some(answer) => self.model.reserved(range, answer.status),
            None => self.model.unsure_of_reservation(range),
        }
    }

    async fn unreserve(&mut self, reservation: Pick, replica: Pick) {
        let ranges = self.model.reservations();
        let Some(&range) = ranges.get(usize::from(reservation) % ranges.len().max(1)) else {
            return;
        };
        let request = self.api(replica).post("/api/subnets/unreserve");
        match ask(request.json(&json!({"cidr": range}))).await {
            Some(answer) => self.model.unreserved(range, answer.status),
            None => self.model.unsure_of_reservation(range),
        }
    }

    async fn crowd(&mut self, crowd: &[(Claim, Pick)], kill: Option<&Kill>) {
        let sent = Instant::now();
        let mut requests = JoinSet::new();
        for (claim, replica) in crowd {
            let (claim, request) = (claim.clone(), registration(&self.api(*replica), claim));
            requests.spawn(async move { (claim, ask(request).await) });
        }
        if let Some(kill) = kill {
            tokio::time::sleep(Duration::from_micros(kill.after_us.into())).await;
            self.cluster.kill(kill.replica);
            self.step.unsettled = true;
        }
        let mut answers = requests.join_all().await;
        if let Some(kill) = kill {
            self.cluster.start_again(kill.replica);
            self.model.forget_lives();
        }
        // What was admitted first: only then is it known who holds what.
        answers.sort_by_key(|(_, answer)| answer.as_ref().map_or(201, |answer| answer.status));
        for (claim, answer) in answers {
            self.registered(&claim, answer, sent);
        }
        if kill.is_some() {
            self.model.forget_lives();
        }
    }
}

/// One subnet, or the pair that it is in.
fn range(number: u8, two: bool) -> Ipv4Net {
    let one = subnet(number);
    // The pair of the first subnet has the one that is never handed out.
    match one.supernet() {
        Some(pair) if two && number > 1 => pair,
        _ => one,
    }
}

fn registration(api: &Api, claim: &Claim) -> RequestBuilder {
    let host_ip = claim.host_ip.to_string();
    let mut body = match &claim.key {
        Some(key) => keyed(key, &claim.hostname, &host_ip),
        None => node(&claim.hostname, &host_ip),
    };
    if let Some(number) = claim.holds {
        body["subnet"] = json!(subnet(number));
    }
    api.post("/api/nodes/register").json(&body)
}

/// The answer; `None` where it says nothing about what happened: a broken connection, or a 503 that
/// is not about subnets.
async fn ask(request: RequestBuilder) -> Option<Answer> {
    let answer = Answer::try_to(request).await.ok()?;
    let exhausted = answer.body["type"] == "urn:quilt-mesh:problem:subnets-exhausted";
    (answer.status != 503 || exhausted).then_some(answer)
}
