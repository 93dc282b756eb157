use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(30);

fn id(n: u8) -> NodeId {
    NodeId::from(format!("node-{n}"))
}

#[test]
fn a_silent_node_is_down_at_its_deadline_and_not_before() {
    let start = Instant::now();
    let mut table = Liveness::new(TIMEOUT);
    assert_eq!(table.timeout(), TIMEOUT);
    assert_eq!(table.status("node-1"), None);
    table.watch(id(1), Status::Up, 0, start);
    assert_eq!(table.status("node-1"), Some(Status::Up));
    assert!(
        table
            .expire(start + TIMEOUT - Duration::from_nanos(1))
            .is_empty()
    );
    assert_eq!(table.expire(start + TIMEOUT), [id(1)]);
    assert_eq!(table.expire(start + TIMEOUT), [], "a node goes down once");
    assert_eq!(
        table.heartbeat("node-1", start + TIMEOUT, 7),
        Some(Beat::CameUp)
    );
    assert_eq!(table.look_up(&id(1)), Some((Status::Up, 7)));
}

#[test]
fn a_stranger_and_a_forgotten_node_have_no_heartbeat() {
    let start = Instant::now();
    let mut table = Liveness::new(TIMEOUT);
    assert_eq!(table.heartbeat("node-1", start, 0), None);
    table.watch(id(1), Status::Up, 0, start);
    table.forget(&id(1));
    assert_eq!(table.heartbeat("node-1", start, 0), None);
    assert_eq!(table.look_up(&id(1)), None);
}

#[test]
fn what_the_database_says_counts_unless_the_table_has_newer_news() {
    let start = Instant::now();
    let mut table = Liveness::new(TIMEOUT);
    table.adopt(&id(1), Status::Up, 5, start);
    assert_eq!(table.look_up(&id(1)), Some((Status::Up, 5)));
    // The same status again neither moves the deadline nor takes a heartbeat back.
    table.heartbeat("node-1", start, 9);
    table.adopt(&id(1), Status::Up, 5, start + TIMEOUT / 2);
    assert_eq!(table.look_up(&id(1)), Some((Status::Up, 9)));
    assert_eq!(table.expire(start + TIMEOUT), [id(1)]);
    // Down is not written yet, so an older row that says up is no news.
    table.adopt(&id(1), Status::Up, 5, start + TIMEOUT);
    assert_eq!(table.look_up(&id(1)), Some((Status::Down, 9)));
    table.take_unwritten(9);
    table.adopt(&id(1), Status::Up, 11, start + TIMEOUT);
    assert_eq!(table.look_up(&id(1)), Some((Status::Up, 11)));
    assert_eq!(table.next_deadline(), Some(start + TIMEOUT * 2));
}

#[test]
fn changes_of_status_are_counted_and_written_before_heartbeats() {
    let start = Instant::now();
    let mut table = Liveness::new(TIMEOUT);
    for n in 0..3 {
        table.watch(id(n), Status::Down, 0, start);
    }
    for n in 3..50 {
        table.watch(id(n), Status::Up, 0, start);
    }
    assert_eq!(table.unwritten_statuses(), 0);
    for n in 0..50 {
        table.heartbeat(id(n).as_str(), start, 7);
    }
    assert_eq!(table.unwritten_statuses(), 3);
    let first = table.take_unwritten(3);
    assert_eq!(first.len(), 3);
    assert!(first.iter().all(|entry| entry.status == Some(Status::Up)));
    assert_eq!(table.unwritten_statuses(), 0);
    table.put_back(&first[..2]);
    assert_eq!(table.unwritten_statuses(), 2);
    assert_eq!(table.take_unwritten(usize::MAX).len(), 49);
}

#[test]
fn a_heartbeat_that_another_replica_tells_of_counts_and_is_not_told_again() {
    let start = Instant::now();
    let half = start + TIMEOUT / 2;
    let (mut here, mut there) = (Liveness::new(TIMEOUT), Liveness::new(TIMEOUT));
    for table in [&mut here, &mut there] {
        table.watch(id(1), Status::Up, 0, start);
        table.watch(id(2), Status::Up, 0, start);
    }
    here.heartbeat("node-1", half, 7);
    let told = here.take_untold();
    let told_of: Vec<_> = told
        .iter()
        .map(|it| (&it.node_id, it.last_heartbeat))
        .collect();
    assert_eq!(told_of, [(&id(1), 7)]);
    assert_eq!(here.take_untold(), []);
    here.put_back_untold(&told);
    assert_eq!(here.take_untold(), told);
    for untold in told {
        there.hear(untold.node_id.as_str(), half, untold.last_heartbeat);
    }
    assert_eq!(there.take_untold(), []);
    assert_eq!(there.take_unwritten(9), []);
    assert_eq!(there.look_up(&id(1)), Some((Status::Up, 7)));
    let grace = Duration::from_millis(1);
    assert_eq!(there.silent(start + TIMEOUT, grace), []);
    assert_eq!(there.silent(start + TIMEOUT + grace, grace), [id(2)]);
    there.give_full_timeout(start + TIMEOUT);
    assert_eq!(there.silent(start + TIMEOUT + grace, grace), []);
    // A stranger's is nobody's.
    there.hear("node-9", half, 7);
    assert_eq!(there.look_up(&id(9)), None);
}

#[test]
fn a_copy_that_is_held_off_again_is_told_of_once_and_a_single_late_request_is_not() {
    let start = Instant::now();
    let mut table = Liveness::new(TIMEOUT);
    assert!(!table.hold_off("node-1", start, 0), "a stranger");
    table.watch(id(1), Status::Up, 0, start);
    assert!(!table.hold_off("node-1", start, 1));
    assert_eq!(table.held_off_at(&id(1), start), None);
    assert!(table.hold_off("node-1", start + TIMEOUT / 2, 2));
    assert!(!table.hold_off("node-1", start + TIMEOUT, 3));
    assert_eq!(table.held_off_at(&id(1), start + TIMEOUT), Some(3));
    let later = start + TIMEOUT * 2;
    assert_eq!(table.held_off_at(&id(1), later), None, "it is over");
    assert!(!table.hold_off("node-1", later, 4));
    assert!(table.hold_off("node-1", later, 5), "another episode");
}

#[test]
fn a_question_keeps_a_node_up_and_is_written_and_told_a_third_of_the_timeout_after_the_last() {
    let start = Instant::now();
    let third = TIMEOUT / 3;
    let mut table = Liveness::new(TIMEOUT);
    assert_eq!(table.sign("node-1", start, 1), None, "a stranger");
    table.watch(id(1), Status::Up, 0, start);
    let sign = |table: &mut Liveness, at, seconds| {
        let beat = table.sign("node-1", start + at, seconds);
        (
            beat,
            table.take_untold().len(),
            table.take_unwritten(9).len(),
        )
    };
    // Nothing was told of it yet.
    assert_eq!(
        sign(&mut table, Duration::ZERO, 1),
        (Some(Beat::StillUp), 1, 1)
    );
    let soon = third - Duration::from_nanos(1);
    assert_eq!(sign(&mut table, soon, 2), (Some(Beat::StillUp), 0, 0));
    // It counts all the same.
    assert_eq!(table.expire(start + TIMEOUT), []);
    assert_eq!(sign(&mut table, third, 3), (Some(Beat::StillUp), 1, 1));
    assert_eq!(table.look_up(&id(1)), Some((Status::Up, 3)));
    assert_eq!(
        sign(&mut table, third + soon, 4),
        (Some(Beat::StillUp), 0, 0)
    );
    let deadline = third + soon + TIMEOUT;
    assert_eq!(table.expire(start + deadline - Duration::from_nanos(1)), []);
    assert_eq!(table.expire(start + deadline), [id(1)]);
    // However fresh the last one is.
    table.heartbeat("node-1", start + deadline, 5);
    table.watch(id(2), Status::Down, 0, start);
    assert_eq!(table.sign("node-2", start, 6), Some(Beat::CameUp));
}

#[test]
fn the_version_rises_with_what_is_shown_and_with_nothing_else() {
    let start = Instant::now();
    let mut table = Liveness::new(TIMEOUT);
    let mut before = table.version();
    let mut rises = |table: &Liveness| {
        let risen = table.version() > before;
        before = table.version();
        risen
    };
    assert!(!rises(&table));
    table.watch(id(1), Status::Down, 0, start);
    assert!(rises(&table));
    table.watch(id(2), Status::Up, 0, start);
    assert!(rises(&table));
    table.heartbeat("node-1", start, 1);
    assert!(rises(&table), "it came up");
    table.heartbeat("node-1", start, 2);
    table.sign("node-2", start, 2);
    assert!(!rises(&table), "it is up already");
    table.hold_off("node-1", start, 3);
    assert!(!rises(&table), "a single request is not shown");
    table.hold_off("node-1", start, 4);
    assert!(rises(&table));
    table.hold_off("node-1", start, 5);
    assert!(!rises(&table), "it is shown already");
    table.expire(start + TIMEOUT);
    assert!(rises(&table));
    table.forget(&id(1));
    assert!(rises(&table));
}

#[test]
fn a_host_that_was_there_before_one_moved_in_is_the_node_for_as_long_as_a_heartbeat_takes() {
    let start = Instant::now();
    let mut table = Liveness::new(TIMEOUT);
    table.watch(id(1), Status::Up, 0, start);
    let first = Some(table.hand_out(&id(1), None, 1, start));
    table.use_token(&id(1), first);
    // Its question waits meanwhile.
    assert_eq!(
        table.standing("node-1", first, true, start),
        Standing::Moved
    );
    table.displace(&id(1), first, start);
    let newcomers = Some(table.hand_out(&id(1), None, 2, start));
    let answered = Some(table.hand_out(&id(1), first, 3, start));
    table.use_token(&id(1), newcomers);
    let beat = timing::heartbeat_interval(TIMEOUT);
    let just = start + beat - Duration::from_nanos(1);
    assert_eq!(
        table.standing("node-1", answered, true, just),
        Standing::Node
    );
    assert_eq!(
        table.standing("node-1", answered, true, start + beat),
        Standing::Outdated
    );
}

#[test]
fn tokens_are_written_and_told_with_heartbeats_and_outlast_a_deregistration() {
    let start = Instant::now();
    let mut table = Liveness::new(TIMEOUT);
    table.watch(id(1), Status::Up, 0, start);
    let first = table.hand_out(&id(1), None, 1, Instant::now());
    table.use_token(&id(1), Some(first));
    let second = table.hand_out(&id(1), None, 2, Instant::now());
    table.heartbeat("node-1", start, 7);
    let text = Some(format!("{second},{first}"));
    assert_eq!(table.take_untold()[0].succession, text);
    assert_eq!(table.take_unwritten(9)[0].succession, text);
    table.forget(&id(1));
    table.watch(id(1), Status::Up, 0, start);
    table.use_token(&id(1), Some(second));
    assert!(table.standing("node-1", Some(first), false, Instant::now()) == Standing::Outdated);
    table.remove(&id(1));
    assert!(table.standing("node-1", Some(first), false, Instant::now()) == Standing::Node);
}

#[test]
fn what_the_database_or_another_replica_knows_of_tokens_counts_if_it_is_newer() {
    let start = Instant::now();
    let mut table = Liveness::new(TIMEOUT);
    table.watch(id(1), Status::Up, 0, start);
    let old = Some(table.hand_out(&id(1), None, 1, Instant::now()));
    assert!(table.standing("node-1", old, false, Instant::now()) == Standing::Node);
    let newer = "9.0000000000000007,8.0000000000000006".parse().unwrap();
    table.learn(&id(1), &newer);
    assert!(table.standing("node-1", old, false, Instant::now()) == Standing::Outdated);
    let latest = "9.0000000000000007".parse().ok();
    for (moved, standing) in [(false, Standing::Node), (true, Standing::Moved)] {
        assert!(table.standing("node-1", latest, moved, Instant::now()) == standing);
    }
}

#[test]
fn a_table_that_starts_over_watches_nobody_and_still_knows_the_tokens() {
    let start = Instant::now();
    let mut table = Liveness::new(TIMEOUT);
    table.watch(id(1), Status::Up, 0, start);
    let old = table.hand_out(&id(1), None, 1, Instant::now());
    table.use_token(&id(1), Some(old));
    let newer = table.hand_out(&id(1), None, 2, Instant::now());
    table.use_token(&id(1), Some(newer));
    table.start_over();
    assert_eq!(table.status("node-1"), None);
    assert_eq!(table.heartbeat("node-1", start, 7), None);
    table.watch(id(1), Status::Up, 0, start);
    assert!(table.standing("node-1", Some(old), false, Instant::now()) == Standing::Outdated);
}

#[derive(Debug, Clone)]
enum Step {
    Watch(u8, bool),
    Forget(u8),
    /// And the MTU that it tells.
    Heartbeat(u8, Option<u32>),
    Wait(u64),
    /// A batch is taken; whether the database takes it, too.
    Write(usize, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = 0_u8..4;
    let step = prop_oneof![
        1 => (node.clone(), any::<bool>()).prop_map(|(n, up)| Step::Watch(n, up)),
        1 => node.clone().prop_map(Step::Forget),
        5 => (node, prop::option::of(1400_u32..1403)).prop_map(|(n, mtu)| Step::Heartbeat(n, mtu)),
        5 => (0_u64..40).prop_map(Step::Wait),
        3 => (0_usize..5, any::<bool>()).prop_map(|(most, works)| Step::Write(most, works)),
    ];
    prop::collection::vec(step, 0..120)
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Expected {
    last_seen: u64,
    up: bool,
    /// What it told last, or the database has of it.
    mtu: Option<u32>,
}

proptest! {
    /// Against a model that knows only when each node was last seen.
    #[test]
    fn a_node_is_up_exactly_while_it_was_seen_within_the_timeout(steps in steps()) {
        let start = Instant::now();
        let mut now = 0_u64;
        let mut table = Liveness::new(TIMEOUT);
        let mut model: BTreeMap<u8, Expected> = BTreeMap::new();
        let mut written: BTreeMap<NodeId, (Status, i64, Option<u32>)> = BTreeMap::new();
        for step in steps {
            let at = start + Duration::from_secs(now);
            match step {
                Step::Watch(n, up) => {
                    let status = if up { Status::Up } else { Status::Down };
                    table.watch(id(n), status, now as i64, at);
                    let mtu = written.get(&id(n)).and_then(|row| row.2);
                    written.insert(id(n), (status, now as i64, mtu));
                    model.insert(n, Expected { last_seen: now, up, mtu });
                }
                Step::Forget(n) => {
                    table.forget(&id(n));
                    written.remove(&id(n));
                    model.remove(&n);
                }
                Step::Heartbeat(n, mtu) => {
                    let known = written.get(&id(n)).and_then(|row| row.2);
                    table.tell_mtu(id(n).as_str(), mtu, known);
                    let beat = table.heartbeat(id(n).as_str(), at, now as i64);
                    let expected = model.get_mut(&n).map(|node| {
                        let beat = if node.up { Beat::StillUp } else { Beat::CameUp };
                        *node = Expected { last_seen: now, up: true, mtu: mtu.or(node.mtu) };
                        beat
                    });
                    prop_assert_eq!(beat, expected);
                }
                Step::Wait(seconds) => {
                    let sleeping_until = table.next_deadline();
                    now += seconds;
                    let at = start + Duration::from_secs(now);
                    let mut expired = table.expire(at);
                    expired.sort();
                    let expected: Vec<_> = model.iter_mut()
                        .filter(|(_, node)| node.up && now - node.last_seen >= TIMEOUT.as_secs())
                        .map(|(n, node)| { node.up = false; id(*n) })
                        .collect();
                    prop_assert_eq!(&expired, &expected);
                    // A sleeper that wakes at the announced moment misses nobody.
                    prop_assert_eq!(!expired.is_empty(), sleeping_until.is_some_and(|t| t <= at));
                }
                Step::Write(most, works) => {
                    let batch = table.take_unwritten(most);
                    prop_assert!(batch.len() <= most);
                    if works {
                        for entry in batch {
                            let row = written.get_mut(&entry.node_id).unwrap();
                            row.0 = entry.status.unwrap_or(row.0);
                            row.1 = entry.last_heartbeat;
                            row.2 = entry.overlay_mtu.or(row.2);
                        }
                    } else {
                        table.put_back(&batch);
                    }
                }
            }
            for (n, node) in &model {
                let status = if node.up { Status::Up } else { Status::Down };
                prop_assert_eq!(table.look_up(&id(*n)).map(|seen| seen.0), Some(status));
            }
        }
        // Whatever failed before, one write that works brings the database up to date.
        for entry in table.take_unwritten(usize::MAX) {
            let row = written.get_mut(&entry.node_id).unwrap();
            row.0 = entry.status.unwrap_or(row.0);
            row.1 = entry.last_heartbeat;
            row.2 = entry.overlay_mtu.or(row.2);
        }
        prop_assert_eq!(table.take_unwritten(usize::MAX), []);
        for (n, node) in model {
            let row = written[&id(n)];
            prop_assert_eq!(table.look_up(&id(n)), Some((row.0, row.1)));
            prop_assert_eq!(row.2, node.mtu);
        }
    }
}

/// So many nodes that are up, and beat last at these moments.
fn beating(start: Instant, milliseconds: &[u64]) -> Liveness {
    let mut table = Liveness::new(TIMEOUT);
    for (n, ms) in (0..).zip(milliseconds) {
        table.watch(id(n), Status::Up, 0, start + Duration::from_millis(*ms));
    }
    table
}

#[test]
fn many_that_fall_silent_at_once_are_held_when_the_first_is_due_and_no_second_time() {
    let start = Instant::now();
    let last: Vec<u64> = (0..12).map(|n| n * 300).collect();
    let mut table = beating(start, &last);
    let first = start + TIMEOUT;
    assert_eq!(
        table.hold_many(first - Duration::from_millis(1)),
        0,
        "nobody is due"
    );
    assert_eq!(table.hold_many(first), 12);
    assert_eq!(table.hold_many(first), 0);
    assert_eq!(table.expire(first + TIMEOUT - Duration::from_millis(1)), []);
    let once_more = first + TIMEOUT + Duration::from_secs(10);
    assert_eq!(
        table.hold_many(once_more),
        0,
        "one more timeout, and not another"
    );
    assert_eq!(table.expire(once_more).len(), 12);
}

#[test]
fn who_beats_while_it_is_held_is_watched_as_before_and_may_be_held_again() {
    let start = Instant::now();
    let mut table = beating(start, &[0; 10]);
    assert_eq!(table.hold_many(start + TIMEOUT), 10);
    let back = start + TIMEOUT + Duration::from_secs(1);
    for n in 0..5 {
        table.heartbeat(id(n).as_str(), back, 0);
    }
    for n in 5..10 {
        table.hear(id(n).as_str(), back, 0);
    }
    assert_eq!(table.hold_many(back + TIMEOUT), 10);
}

#[test]
fn those_that_beat_are_not_held_and_count_among_all_that_are_up() {
    let start = Instant::now();
    // Ten of 21 are less than half.
    let mut table = beating(start, &[0; 21]);
    let later = start + TIMEOUT / 2;
    for n in 10..21 {
        table.heartbeat(id(n).as_str(), later, 0);
    }
    assert_eq!(table.hold_many(start + TIMEOUT), 0);
    // Of nodes that are down none is anything.
    table.heartbeat(id(20).as_str(), later, 0);
    let mut table = beating(start, &[0; 20]);
    for n in 10..20 {
        table.heartbeat(id(n).as_str(), later, 0);
    }
    assert_eq!(table.hold_many(start + TIMEOUT), 10);
    let untouched = table.next_deadline();
    assert_eq!(
        untouched,
        Some(later + TIMEOUT),
        "their deadlines are as they were"
    );
}
