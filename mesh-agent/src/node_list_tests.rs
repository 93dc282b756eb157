//! Tests of [`super::NodeList`] against a model of a control plane.

use mesh_rest::{digest::Digest, proof::Proof, status::Status};
use proptest::prelude::*;

use super::*;

const PATIENCE: Duration = Duration::from_secs(15);

/// A control plane with a change feed: the list, and at which revision each node changed.
#[derive(Debug, Clone)]
struct Server {
    database: String,
    revision: i64,
    nodes: BTreeMap<String, (i64, Node)>,
    removed: BTreeMap<String, i64>,
    /// Older revisions than this are out of the feed's reach.
    reach: i64,
    /// Whether it makes etags, as those of earlier versions do not.
    etags: bool,
}

impl Server {
    fn new(database: &str) -> Self {
        Self {
            database: database.to_owned(),
            revision: 1,
            nodes: BTreeMap::new(),
            removed: BTreeMap::new(),
            reach: 0,
            etags: true,
        }
    }

    fn set(&mut self, node_id: &str, address: u8, status: Status) {
        self.revision += 1;
        let node = Node {
            node_id: node_id.to_owned().into(),
            hostname: format!("host-{node_id}").into(),
            host_ip: format!("192.0.2.{address}").into(),
            subnet: "10.42.2.0/24".into(),
            status: status.as_str().into(),
            ..Node::default()
        };
        self.removed.remove(node_id);
        self.nodes.insert(node_id.to_owned(), (self.revision, node));
    }

    /// Changes what no digest knows.
    fn tell(&mut self, node_id: &str, overlay_mtu: Option<u32>, left: bool) {
        if let Some((revision, node)) = self.nodes.get_mut(node_id) {
            self.revision += 1;
            *revision = self.revision;
            node.overlay_mtu = overlay_mtu;
            node.left = left;
        }
    }

    fn shown(&self, node: &Node) -> Node {
        let etag = |node: &Node| {
            let Node {
                host_ip,
                status,
                left,
                overlay_mtu,
                ..
            } = node;
            format!("{host_ip} {status:?} {left} {overlay_mtu:?}")
        };
        Node {
            etag: self.etags.then(|| etag(node).into()),
            ..node.clone()
        }
    }

    fn proof(&self) -> Option<String> {
        let mut proof = Proof::default();
        for node in self.list().values() {
            proof.add(&node.node_id, node.etag.as_deref()?);
        }
        self.etags.then(|| proof.to_string())
    }

    fn remove(&mut self, node_id: &str) {
        self.revision += 1;
        if self.nodes.remove(node_id).is_some() {
            self.removed.insert(node_id.to_owned(), self.revision);
        }
    }

    fn list(&self) -> BTreeMap<String, Node> {
        let nodes = self.nodes.iter();
        nodes
            .map(|(id, (_, node))| (id.clone(), self.shown(node)))
            .collect()
    }

    fn answer(&self, question: &Question) -> NodesAnswer<'static> {
        let since = match question {
            Question::News { since, database }
                if *database == self.database && (self.reach..=self.revision).contains(since) =>
            {
                Some(*since)
            }
            _ => None,
        };
        let newer = |revision: i64| since.is_none_or(|since| revision > since);
        let changed = self.nodes.values().filter(|(at, _)| newer(*at));
        let removed = self
            .removed
            .iter()
            .filter(|(_, at)| since.is_some() && newer(**at));
        let digest: Digest = self
            .nodes
            .values()
            .map(|(_, node)| node.digested())
            .collect();
        NodesAnswer {
            nodes: changed.map(|(_, node)| self.shown(node)).collect(),
            removed: Some(removed.map(|(id, _)| id.clone().into()).collect()),
            revision: self.revision,
            database: self.database.clone().into(),
            digest: Some(digest.to_string()),
            proof: self.proof(),
            full: match question {
                Question::Whole => None,
                Question::News { .. } => Some(since.is_none()),
            },
            vxlan_port: None,
            vni: None,
        }
    }
}

fn taken(copy: &mut NodeList, server: &Server) -> Outcome {
    let answer = server.answer(&copy.question());
    copy.apply(answer, Instant::now(), PATIENCE)
}

const CHANGED: Outcome = Outcome::Current { changed: true };
const SAME: Outcome = Outcome::Current { changed: false };

#[test]
fn a_changed_mtu_is_taken_over_although_it_is_in_no_digest() {
    for etags in [true, false] {
        let (mut server, mut copy) = (Server::new("db"), NodeList::default());
        server.etags = etags;
        server.set("a", 1, Status::Up);
        assert_eq!(taken(&mut copy, &server), CHANGED);
        server.tell("a", Some(1400), false);
        assert_eq!(taken(&mut copy, &server), CHANGED);
        assert_eq!(copy.nodes()["a"].overlay_mtu, Some(1400));
        assert_eq!(taken(&mut copy, &server), SAME);
    }
}

/// The database was replaced by an older one, which then went another way to the same revision.
#[test]
fn a_copy_that_differs_only_in_what_no_digest_knows_is_found_by_its_etags() {
    let (mut server, mut copy) = (Server::new("db"), NodeList::default());
    server.set("a", 1, Status::Up);
    let mut restored = server.clone();
    server.tell("a", Some(1400), false);
    assert_eq!(taken(&mut copy, &server), CHANGED);
    restored.tell("a", Some(9000), true);
    assert_eq!(taken(&mut copy, &restored), Outcome::Diverged);
    assert_eq!(taken(&mut copy, &restored), CHANGED);
    assert_eq!(*copy.nodes(), restored.list());
}

/// How many whole lists a copy takes while everything changes, each change in an answer of its own.
fn whole_lists(copy: &mut NodeList, server: &mut Server) -> usize {
    let mut whole = 0;
    for n in 0..20 {
        match n % 4 {
            0 => server.set("a", n, Status::Up),
            1 => server.tell("a", Some(1400 + u32::from(n)), false),
            2 => server.tell("a", None, n % 8 == 2),
            _ => server.set(&format!("b{n}"), n, Status::Down),
        }
        loop {
            whole += usize::from(copy.question() == Question::Whole);
            if matches!(taken(copy, server), Outcome::Current { .. }) {
                break;
            }
        }
        let (copy, list) = (copy.nodes(), server.list());
        assert!(copy.keys().eq(list.keys()));
        for (node, listed) in copy.values().zip(list.values()) {
            let etag = node.etag.clone();
            assert_eq!(
                node,
                &Node {
                    etag,
                    ..listed.clone()
                }
            );
        }
    }
    whole
}

#[test]
fn with_and_without_etags_and_when_that_changes_nothing_is_missed_and_no_whole_list_taken_for_it() {
    let (mut server, mut copy) = (Server::new("db"), NodeList::default());
    server.etags = false;
    server.set("stays", 200, Status::Up);
    assert_eq!(whole_lists(&mut copy, &mut server), 1, "the first");
    // Upgraded, downgraded, upgraded again.
    for etags in [true, false, true] {
        server.etags = etags;
        assert_eq!(whole_lists(&mut copy, &mut server), 0, "etags: {etags}");
    }
    let mut copy = NodeList::default();
    assert_eq!(whole_lists(&mut copy, &mut server), 1, "the first");
    for etags in [false, true] {
        server.etags = etags;
        assert_eq!(whole_lists(&mut copy, &mut server), 0, "etags: {etags}");
    }
}

#[test]
fn etags_of_another_kind_cost_one_whole_list() {
    let (mut server, mut copy) = (Server::new("db"), NodeList::default());
    server.set("a", 1, Status::Up);
    assert_eq!(taken(&mut copy, &server), CHANGED);
    let otherwise = |mut answer: NodesAnswer<'static>| {
        let mut proof = Proof::default();
        for node in server.list().values() {
            proof.add(&node.node_id, "otherwise");
        }
        for node in &mut answer.nodes {
            node.etag = Some("otherwise".into());
        }
        answer.proof = Some(proof.to_string());
        answer
    };
    for outcome in [Outcome::Diverged, CHANGED, SAME, SAME] {
        let answer = otherwise(server.answer(&copy.question()));
        assert_eq!(copy.apply(answer, Instant::now(), PATIENCE), outcome);
    }
}

#[test]
fn after_the_whole_list_only_changes_are_asked_for_and_taken_over() {
    let (mut server, mut copy) = (Server::new("db"), NodeList::default());
    server.set("a", 1, Status::Up);
    assert_eq!(copy.question(), Question::Whole);
    assert_eq!(taken(&mut copy, &server), CHANGED);
    server.set("b", 2, Status::Up);
    let news = server.answer(&copy.question());
    assert_eq!((news.nodes.len(), news.full), (1, Some(false)));
    assert_eq!(taken(&mut copy, &server), CHANGED);
    assert_eq!(taken(&mut copy, &server), SAME);
    server.remove("a");
    assert_eq!(taken(&mut copy, &server), CHANGED);
    assert_eq!(*copy.nodes(), server.list());
    assert!(copy.removed().contains("a"));
}

#[test]
fn a_control_plane_without_a_feed_is_asked_for_the_whole_list_each_time() {
    let mut copy = NodeList::default();
    let mut server = Server::new("db");
    server.set("a", 1, Status::Up);
    for outcome in [CHANGED, SAME] {
        let mut answer = server.answer(&copy.question());
        (answer.digest, answer.proof) = (None, None);
        assert_eq!(copy.apply(answer, Instant::now(), PATIENCE), outcome);
        assert_eq!(copy.question(), Question::Whole);
    }
    assert_eq!(taken(&mut copy, &server), SAME);
    assert_ne!(
        copy.question(),
        Question::Whole,
        "the control plane was upgraded"
    );
}

#[test]
fn a_replica_that_lags_takes_nothing_back() {
    let (mut server, mut copy) = (Server::new("db"), NodeList::default());
    server.set("a", 1, Status::Up);
    let lagging = server.clone();
    server.set("b", 2, Status::Up);
    taken(&mut copy, &server);
    let start = Instant::now();
    for seconds in [0, 5, 14] {
        let answer = lagging.answer(&copy.question());
        let now = start + Duration::from_secs(seconds);
        assert_eq!(copy.apply(answer, now, PATIENCE), Outcome::Lagging);
        assert_eq!(*copy.nodes(), server.list());
    }
    assert_eq!(taken(&mut copy, &server), SAME, "it caught up");

    let answer = lagging.answer(&copy.question());
    let again = start + Duration::from_secs(20);
    assert_eq!(
        copy.apply(answer.clone(), again, PATIENCE),
        Outcome::Lagging
    );
    let late = again + PATIENCE;
    assert_eq!(
        copy.apply(answer, late, PATIENCE),
        CHANGED,
        "no lag lasts that long"
    );
    assert_eq!(*copy.nodes(), lagging.list());
}

#[test]
fn a_list_that_contradicts_its_own_proof_counts_and_is_asked_for_whole_again() {
    let mut server = Server::new("db");
    server.set("a", 1, Status::Up);
    for etags in [true, false] {
        let mut copy = NodeList::default();
        server.etags = etags;
        let mut answer = server.answer(&copy.question());
        let wrong = Some("0123456789abcdef".to_owned());
        match etags {
            true => answer.proof = wrong,
            false => answer.digest = wrong,
        }
        assert_eq!(copy.apply(answer, Instant::now(), PATIENCE), CHANGED);
        assert_eq!(*copy.nodes(), server.list());
        assert_eq!(copy.question(), Question::Whole);
    }
}

#[derive(Debug, Clone)]
enum Event {
    Set(u8, u8, bool),
    /// Another MTU, and whether it left.
    Tell(u8, Option<u32>, bool),
    Remove(u8),
    /// The feed forgets what is older than now.
    Forget,
    /// The database is lost, and another one made.
    Wipe,
    /// The database of this many events ago is back, under the same name.
    Restore(usize),
    Ask,
    /// The answer is lost on its way.
    Lose,
    /// An earlier answer comes again.
    Replay(usize),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0u8..6, 1u8..5, any::<bool>()).prop_map(|(id, address, up)| Event::Set(id, address, up)),
        4 => (0u8..6, prop::option::of(1400u32..1403), any::<bool>())
            .prop_map(|(id, mtu, left)| Event::Tell(id, mtu, left)),
        2 => (0u8..6).prop_map(Event::Remove),
        1 => Just(Event::Forget),
        1 => Just(Event::Wipe),
        1 => (1usize..10).prop_map(Event::Restore),
        6 => Just(Event::Ask),
        2 => Just(Event::Lose),
        2 => (0usize..6).prop_map(Event::Replay),
    ]
}

proptest! {
    #[test]
    fn whatever_was_lost_or_replayed_the_copy_ends_as_the_servers_list(
        events in proptest::collection::vec(any_event(), 0..40),
    ) {
        let mut now = Instant::now();
        let (mut server, mut copy) = (Server::new("db-0"), NodeList::default());
        let (mut backups, mut answers) = (Vec::new(), Vec::new());
        for (n, event) in events.into_iter().enumerate() {
            now += Duration::from_secs(1);
            backups.push(server.clone());
            match event {
                Event::Set(id, address, up) => {
                    let status = if up { Status::Up } else { Status::Down };
                    server.set(&format!("n{id}"), address, status);
                }
                Event::Tell(id, mtu, left) => server.tell(&format!("n{id}"), mtu, left),
                Event::Remove(id) => server.remove(&format!("n{id}")),
                Event::Forget => server.reach = server.revision,
                Event::Wipe => server = Server::new(&format!("db-{n}")),
                Event::Restore(ago) => server = backups[backups.len().saturating_sub(ago)
                    .min(backups.len() - 1)].clone(),
                Event::Ask | Event::Lose => {
                    let answer = server.answer(&copy.question());
                    answers.push(answer.clone());
                    if matches!(event, Event::Ask) {
                        copy.apply(answer, now, PATIENCE);
                    }
                }
                Event::Replay(ago) => {
                    if let Some(answer) = answers.iter().rev().nth(ago) {
                        copy.apply(answer.clone(), now, PATIENCE);
                    }
                }
            }
            prop_assert_eq!(Proofs::of(copy.nodes.values()), copy.proofs, "the proofs are those of the copy");
        }
        // Now nothing is lost any more: two answers, or the end of the patience and two.
        for _ in 0..2 {
            let answer = server.answer(&copy.question());
            copy.apply(answer, now, PATIENCE);
        }
        let answer = server.answer(&copy.question());
        if copy.apply(answer, now, PATIENCE) == Outcome::Lagging {
            now += PATIENCE;
            let answer = server.answer(&copy.question());
            copy.apply(answer, now, PATIENCE);
        }
        let answer = server.answer(&copy.question());
        prop_assert_eq!(copy.apply(answer, now, PATIENCE), Outcome::Current { changed: false });
        prop_assert_eq!(&*copy.nodes, &server.list());
    }
}

#[test]
fn heartbeats_of_others_are_no_change_of_the_list() {
    let (mut server, mut copy) = (Server::new("db"), NodeList::default());
    server.set("a", 1, Status::Up);
    let beating = |mut answer: NodesAnswer<'static>, seconds| {
        for node in &mut answer.nodes {
            node.last_heartbeat = Some(seconds);
            node.copy_held_off_at = Some(seconds);
        }
        answer
    };
    for (seconds, changed) in [(1, true), (2, false), (3, false)] {
        let answer = beating(server.answer(&Question::Whole), seconds);
        let outcome = copy.apply(answer, Instant::now(), PATIENCE);
        assert_eq!(outcome, Outcome::Current { changed }, "{seconds}");
    }
}
