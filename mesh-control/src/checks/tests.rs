use mesh_rest::check::{WayChecked, WayFinding};

use super::*;

fn way(third: u8, words: usize) -> WayChecked {
    WayChecked {
        subnet: format!("10.42.{third}.0/24").parse().unwrap(),
        error: None,
        containers_us: Some(1),
        carried_by: None,
        kernel_us: None,
        underlay_us: None,
        largest: None,
        heard_ms: None,
        findings: vec![WayFinding {
            code: "vxlan-not-through".to_owned(),
            severity: "error".to_owned(),
            observed: "x".repeat(words),
        }],
    }
}

fn report(id: &str, words: usize) -> CheckReport {
    CheckReport {
        id: id.to_owned(),
        peers: vec![way(2, words)],
        ..CheckReport::default()
    }
}

fn node(name: &str) -> NodeId {
    NodeId::from(name.to_owned())
}

#[test]
fn a_node_is_told_of_each_check_once_and_of_none_that_is_over() {
    let mut table = Table::new(1 << 20);
    let now = Instant::now();
    assert!(!table.tell("a", now), "there is none");
    table.order("1".to_owned(), BTreeSet::new(), now);
    assert!(table.tell("a", now) && table.tell("b", now));
    assert!(!table.tell("a", now));
    table.order("2".to_owned(), BTreeSet::new(), now);
    assert!(table.tell("a", now), "another one");
    // Heard of again, as by one's own message.
    table.order("2".to_owned(), BTreeSet::new(), now);
    assert!(!table.tell("a", now));
    assert!(!table.tell("c", now + OPEN));
    assert_eq!(table.newest(now).map(|it| &*it.id), Some("2"));
    assert!(table.newest(now + OPEN).is_none());
}

#[test]
fn an_answer_is_kept_once_and_to_a_check_that_is_open_alone() {
    let mut table = Table::new(1 << 20);
    let now = Instant::now();
    table.order("1".to_owned(), BTreeSet::new(), now);
    assert!(table.keep(node("a"), report("1", 1), now));
    assert!(!table.keep(node("a"), report("1", 2), now), "a second one");
    assert!(!table.keep(node("b"), report("9", 1), now), "none of ours");
    table.order("2".to_owned(), BTreeSet::new(), now);
    assert!(table.keep(node("b"), report("1", 1), now), "a late one");
    assert!(!table.keep(node("c"), report("1", 1), now + OPEN));
    assert_eq!(table.kept[0].answers.len(), 2);
}

#[test]
fn few_checks_are_kept_and_few_are_made() {
    let mut table = Table::new(1 << 20);
    let now = Instant::now();
    for number in 0..10 {
        table.order(number.to_string(), BTreeSet::new(), now);
    }
    assert_eq!(table.kept.len(), MOST_CHECKS);
    assert_eq!(table.kept.back().unwrap().id, "9");
    for _ in 0..RATE.burst {
        table.take_turn(now).unwrap();
    }
    let wait = table.take_turn(now).unwrap_err();
    assert!(!wait.is_zero() && wait <= RATE.interval);
    table.take_turn(now + wait).unwrap();
}

#[test]
fn what_is_kept_is_bounded_in_bytes_and_what_there_is_no_room_for_is_counted() {
    let one = weight(&report("1", 1000));
    assert!(one > 1000);
    let mut table = Table::new(3 * one);
    let now = Instant::now();
    table.order("1".to_owned(), BTreeSet::new(), now);
    for name in ["a", "b"] {
        assert!(table.keep(node(name), report("1", 1000), now));
    }
    table.order("2".to_owned(), BTreeSet::new(), now);
    for name in ["a", "b", "c"] {
        assert!(table.keep(node(name), report("2", 1000), now));
    }
    assert_eq!(table.kept.len(), 1, "the older one made room");
    for number in 0..100 {
        let name = format!("d{number}");
        table.keep(node(&name), report("2", 1000), now);
        let answers = &table.kept[0].answers;
        let answer = &answers[&node(&name)];
        assert_eq!((answer.peers.len(), answer.left_out), (0, 1));
    }
    // Each of those without ways is counted as well.
    assert!(table.bytes() < 3 * one + 100 * 200);
}

#[tokio::test]
async fn who_waits_is_woken_by_a_check_and_who_is_nobody_is_not() {
    let checks = Arc::new(Checks::default());
    let waiting = tokio::spawn({
        let checks = Arc::clone(&checks);
        async move { checks.untold(Some("a")).await }
    });
    let mut nobody = Box::pin(checks.untold(None));
    assert!(futures_util::poll!(&mut nobody).is_pending());
    tokio::task::yield_now().await;
    checks.order("1", BTreeSet::new());
    waiting.await.unwrap();
    // Told already; another who begins to ask is told at once.
    let mut again = Box::pin(checks.untold(Some("a")));
    assert!(futures_util::poll!(&mut again).is_pending());
    checks.untold(Some("b")).await;
    assert!(futures_util::poll!(&mut nobody).is_pending());
    assert_eq!(checks.newest().as_deref(), Some("1"));
}
