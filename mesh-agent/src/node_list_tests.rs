//! Tests of [`super::NodeList`] against a model of a control plane.

use proptest::prelude::*;

use super::*;
use crate::node::Status;

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
}

impl Server {
    fn new(database: &str) -> Self {
        Self {
            database: database.to_owned(),
            revision: 1,
            nodes: BTreeMap::new(),
            removed: BTreeMap::new(),
            reach: 0,
        }
    }

    fn set(&mut self, node_id: &str, address: u8, status: Status) {
        self.revision += 1;
        let node = Node {
            node_id: node_id.to_owned(),
            hostname: format!("host-{node_id}"),
            host_ip: format!("192.0.2.{address}"),
            subnet: "10.42.2.0/24".to_owned(),
            status,
            left: false,
            registered_at: 0,
            overlay_mtu: None,
        };
        self.removed.remove(node_id);
        self.nodes.insert(node_id.to_owned(), (self.revision, node));
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
            .map(|(id, (_, node))| (id.clone(), node.clone()))
            .collect()
    }

    fn answer(&self, question: &Question) -> NodesAnswer {
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
            nodes: changed.map(|(_, node)| node.clone()).collect(),
            removed: removed.map(|(id, _)| id.clone()).collect(),
            revision: self.revision,
            database: self.database.clone(),
            digest: Some(digest.to_string()),
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
    let (mut server, mut copy) = (Server::new("db"), NodeList::default());
    server.set("a", 1, Status::Up);
    assert_eq!(taken(&mut copy, &server), CHANGED);
    server.set("a", 1, Status::Up);
    let (_, node) = server.nodes.get_mut("a").unwrap();
    node.overlay_mtu = Some(1400);
    assert_eq!(taken(&mut copy, &server), CHANGED);
    assert_eq!(copy.nodes()["a"].overlay_mtu, Some(1400));
    assert_eq!(taken(&mut copy, &server), SAME);
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
        answer.digest = None;
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
fn a_list_that_contradicts_its_own_digest_counts_and_is_asked_for_whole_again() {
    let (mut server, mut copy) = (Server::new("db"), NodeList::default());
    server.set("a", 1, Status::Up);
    let mut answer = server.answer(&copy.question());
    answer.digest = Some("0123456789abcdef".to_owned());
    assert_eq!(copy.apply(answer, Instant::now(), PATIENCE), CHANGED);
    assert_eq!(*copy.nodes(), server.list());
    assert_eq!(copy.question(), Question::Whole);
}

#[derive(Debug, Clone)]
enum Event {
    Set(u8, u8, bool),
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
            let digest: Digest = copy.nodes.values().map(Node::digested).collect();
            prop_assert_eq!(digest, copy.digest, "the digest is that of the copy");
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
