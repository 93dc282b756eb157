use proptest::prelude::*;

use super::*;

/// A host that has the state of a node: what its agent has on its disk.
#[derive(Debug, Clone, Copy)]
struct Host {
    token: Option<HeartbeatToken>,
}

/// What becomes of one heartbeat of a host.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Its answer is written down.
    Answered,
    /// It arrives, and its answer does not, or the agent is killed before it has written it down.
    AnswerLost,
    /// It arrives twice, and the second answer is the one that counts.
    Twice,
    /// It does not arrive.
    Lost,
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Answered),
        2 => Just(Fate::AnswerLost),
        1 => Just(Fate::Twice),
        1 => Just(Fate::Lost),
    ]
}

/// The control plane's side of one heartbeat while the node is up: the answer's token, unless it is held off.
fn beat(succession: &mut Succession, host: Host, nonce: u64) -> Option<HeartbeatToken> {
    let now = Instant::now();
    if succession.standing(host.token, false, now) == Standing::Outdated {
        return None;
    }
    succession.use_token(host.token);
    Some(succession.hand_out(host.token, nonce, now))
}

/// Whether the host was taken for the node.
fn live(succession: &mut Succession, host: &mut Host, fate: Fate, nonce: u64) -> bool {
    match fate {
        Fate::Lost => true,
        Fate::AnswerLost => beat(succession, *host, nonce).is_some(),
        Fate::Answered => {
            let answer = beat(succession, *host, nonce);
            host.token = answer.or(host.token);
            answer.is_some()
        }
        Fate::Twice => {
            let first = beat(succession, *host, nonce);
            let second = beat(succession, *host, nonce + 1);
            host.token = second.or(host.token);
            first.is_some() && second.is_some()
        }
    }
}

/// A control plane that was restarted, or a replica that heard what another told.
fn restarted(succession: &Succession) -> Succession {
    succession.to_string().parse().unwrap_or_default()
}

proptest! {
    #[test]
    fn a_host_that_is_alone_is_never_held_off(
        steps in prop::collection::vec((fates(), 0_u8..10), 1..200),
    ) {
        let (mut succession, mut host) = (Succession::default(), Host { token: None });
        let mut stored = succession.clone();
        for (nonce, (fate, chance)) in (0..).step_by(2).zip(steps) {
            prop_assert!(live(&mut succession, &mut host, fate, nonce), "{:?}", fate);
            match chance {
                // Heartbeats are written in batches, so that a crash takes the last ones along.
                0 => stored = succession.clone(),
                1 => succession = restarted(&stored),
                2 => succession.learn(&restarted(&stored)),
                _ => {}
            }
        }
    }

    /// However the two take turns: after each has beaten undisturbed twice, one of them goes on and the other is held
    /// off, and it stays so.
    #[test]
    fn of_a_host_and_its_copy_one_goes_on_and_the_other_is_held_off(
        before in prop::collection::vec(fates(), 0..20),
        order in prop::collection::vec(any::<bool>(), 0..30),
        later in 0..5_usize,
    ) {
        let (mut succession, mut original) = (Succession::default(), Host { token: None });
        let mut nonces = (0_u64..).step_by(2);
        let mut nonce = || nonces.next().unwrap();
        prop_assert!(live(&mut succession, &mut original, Fate::Answered, nonce()));
        for fate in before {
            live(&mut succession, &mut original, fate, nonce());
        }
        let mut copy = original;
        for _ in 0..later {
            prop_assert!(live(&mut succession, &mut original, Fate::Answered, nonce()));
        }
        for first in order {
            let host = if first { &mut original } else { &mut copy };
            live(&mut succession, host, Fate::Answered, nonce());
        }
        for _ in 0..2 {
            live(&mut succession, &mut original, Fate::Answered, nonce());
            live(&mut succession, &mut copy, Fate::Answered, nonce());
        }
        let goes_on = live(&mut succession, &mut original, Fate::Answered, nonce());
        for _ in 0..3 {
            let (one, other) = (
                live(&mut succession, &mut original, Fate::Answered, nonce()),
                live(&mut succession, &mut copy, Fate::Answered, nonce()),
            );
            prop_assert_eq!((one, other), (goes_on, !goes_on));
        }
        // Who was there before it was copied, and has been answered since, is the original.
        prop_assert!(later < 2 || goes_on, "a copy of old state took the place of the original");
    }

    #[test]
    fn what_is_written_of_it_is_what_is_read(steps in prop::collection::vec(fates(), 1..9)) {
        let (mut succession, mut host) = (Succession::default(), Host { token: None });
        for (nonce, fate) in (0..).step_by(2).zip(steps) {
            live(&mut succession, &mut host, fate, nonce);
        }
        let read = restarted(&succession);
        prop_assert_eq!(read.number, succession.number);
        prop_assert_eq!(read.used.or(read.handed_out.back().copied()).is_some(), succession.number > 0);
        prop_assert_eq!(read.to_string(), succession.to_string());
    }
}

/// A host registers from elsewhere: the token that it is answered with, unless it is held off.
fn arrive(
    succession: &mut Succession,
    host: Host,
    nonce: u64,
    now: Instant,
) -> Option<HeartbeatToken> {
    match succession.standing(host.token, true, now) {
        Standing::Outdated => return None,
        Standing::Moved => succession.displace(host.token, now, PATIENCE),
        Standing::Node => {}
    }
    succession.use_token(host.token);
    Some(succession.hand_out(None, nonce, now))
}

const PATIENCE: Duration = Duration::from_secs(10);

/// A node whose question waits for an answer, with what it asked with.
fn waiting() -> (Succession, Host) {
    let (mut succession, mut host) = (Succession::default(), Host { token: None });
    for nonce in 0..3 {
        live(&mut succession, &mut host, Fate::Answered, 1000 + 2 * nonce);
    }
    succession.use_token(host.token);
    (succession, host)
}

#[test]
fn a_host_that_moves_while_its_question_waits_goes_on_at_once_and_for_good() {
    let (mut succession, mut host) = waiting();
    let (before, start) = (host, Instant::now());
    host.token = arrive(&mut succession, host, 1, start);
    assert!(host.token.is_some(), "it is not held off");
    // The answer to the question goes nowhere.
    succession.hand_out(before.token, 2, start);
    for nonce in 3..9 {
        assert!(live(&mut succession, &mut host, Fate::Answered, 2 * nonce));
    }
    let late = start + PATIENCE;
    assert_eq!(succession.standing(host.token, false, late), Standing::Node);
    assert_eq!(
        succession.standing(before.token, true, late),
        Standing::Outdated
    );
}

/// A node that was answered and has not asked again: what it has on its disk was not used yet.
fn pausing() -> (Succession, Host) {
    let (mut succession, mut host) = (Succession::default(), Host { token: None });
    for nonce in 0..3 {
        live(&mut succession, &mut host, Fate::Answered, 1000 + 2 * nonce);
    }
    (succession, host)
}

proptest! {
    /// However much the copy does before, whatever becomes of the host's next questions, and whether the host has a
    /// later token by then because two answers were under way.
    #[test]
    fn a_host_that_has_not_asked_again_keeps_its_place_from_a_copy_that_comes_with_its_token_before(
        answered_twice in any::<bool>(),
        arrivals in 1..3_usize,
        acts in prop::collection::vec(fates(), 0..8),
        questions in prop::collection::vec(fates(), 0..3),
        after in 0..10_u64,
    ) {
        let (mut succession, mut original) = (Succession::default(), Host { token: None });
        live(&mut succession, &mut original, Fate::Answered, 1000);
        let before = original;
        live(&mut succession, &mut original, Fate::Answered, 1002);
        let mut copy = original;
        if answered_twice {
            original.token = beat(&mut succession, before, 1004);
        }
        let start = Instant::now();
        for nonce in 0..arrivals as u64 {
            let answer = arrive(&mut succession, copy, nonce, start);
            prop_assert!(answer.is_some());
            if nonce + 1 == arrivals as u64 {
                copy.token = answer;
            }
        }
        for (nonce, fate) in (10..).zip(acts) {
            live(&mut succession, &mut copy, fate, 2 * nonce);
        }
        for (nonce, fate) in (30..).zip(questions) {
            prop_assert!(live(&mut succession, &mut original, fate, 2 * nonce), "{:?}", fate);
        }
        prop_assert!(live(&mut succession, &mut original, Fate::Answered, 50));
        let now = start + Duration::from_secs(after);
        prop_assert!(arrive(&mut succession, original, 100, now).map(|next| original.token = Some(next)).is_some());
        prop_assert_eq!(succession.standing(copy.token, true, now), Standing::Outdated);
        for nonce in 60..63 {
            prop_assert!(!live(&mut succession, &mut copy, Fate::Answered, 2 * nonce));
            prop_assert!(live(&mut succession, &mut original, Fate::Answered, 2 * nonce + 1));
        }
    }
}

/// A question that was long on its way arrives after the host has moved and gone on.
#[test]
fn a_host_that_moved_is_not_held_off_for_what_it_asked_before() {
    let (mut succession, mut host) = pausing();
    let (before, start) = (host, Instant::now());
    host.token = arrive(&mut succession, host, 1, start);
    assert!(live(&mut succession, &mut host, Fate::Answered, 2));
    for nonce in 3..6 {
        // Its answer goes nowhere.
        live(
            &mut succession,
            &mut before.clone(),
            Fate::AnswerLost,
            4 * nonce,
        );
        assert!(live(
            &mut succession,
            &mut host,
            Fate::Answered,
            4 * nonce + 2
        ));
    }
    let late = start + PATIENCE;
    assert_eq!(succession.standing(host.token, false, late), Standing::Node);
    assert_eq!(
        succession.standing(before.token, false, late),
        Standing::Outdated
    );
}

/// The one of two with one token that does not come within the patience has gone.
#[test]
fn who_has_not_asked_again_long_after_its_place_was_taken_is_held_off() {
    let (mut succession, original) = pausing();
    let (mut copy, start) = (original, Instant::now());
    copy.token = arrive(&mut succession, copy, 1, start);
    assert!(live(&mut succession, &mut copy, Fate::Answered, 2));
    let late = start + PATIENCE;
    assert_eq!(
        succession.standing(original.token, false, late),
        Standing::Outdated
    );
    assert_eq!(succession.standing(copy.token, false, late), Standing::Node);
}

/// What is written with the copy's registration is read back when the original has returned already.
#[test]
fn a_copy_that_lost_its_place_does_not_get_it_back_from_what_was_written_before() {
    let (mut succession, mut original) = waiting();
    let (mut copy, start) = (original, Instant::now());
    // Answered, and not used yet.
    original.token = Some(succession.hand_out(original.token, 1, start));
    copy.token = arrive(&mut succession, copy, 2, start);
    let written = restarted(&succession);
    succession.use_token(original.token);
    succession.learn(&written);
    assert_eq!(
        succession.standing(copy.token, false, start),
        Standing::Outdated
    );
    original.token = Some(succession.hand_out(original.token, 3, start));
    assert!(live(&mut succession, &mut original, Fate::Answered, 4));
}

/// The control plane crashed after the copy was let in, and does not know any more that it may be one.
#[test]
fn a_host_that_comes_back_to_a_control_plane_that_forgot_of_its_copy_is_the_node_for_good() {
    let (mut succession, mut original) = pausing();
    let (mut copy, start) = (original, Instant::now());
    copy.token = arrive(&mut succession, copy, 1, start);
    let mut succession = restarted(&succession);
    assert!(live(&mut succession, &mut original, Fate::Answered, 2));
    original.token = arrive(&mut succession, original, 4, start);
    assert!(original.token.is_some());
    assert!(!live(&mut succession, &mut copy, Fate::Answered, 6));
    assert!(live(&mut succession, &mut original, Fate::Answered, 8));
}

proptest! {
    /// However much the copy does before, and however often its registration is made.
    #[test]
    fn a_host_that_is_still_there_takes_its_place_back_from_a_copy_of_its_very_latest_state(
        arrivals in 1..3_usize,
        acts in prop::collection::vec(fates(), 0..8),
        answered_first in any::<bool>(),
        after in 0..10_u64,
    ) {
        let (mut succession, mut original) = waiting();
        let (mut copy, start) = (original, Instant::now());
        let question = original.token;
        for nonce in 0..arrivals as u64 {
            let answer = arrive(&mut succession, copy, nonce, start);
            prop_assert!(answer.is_some());
            // Asked again with what it came with: the answer before was lost.
            if nonce + 1 == arrivals as u64 {
                copy.token = answer;
            }
        }
        let mut answer = answered_first.then(|| succession.hand_out(question, 10, start));
        for (nonce, fate) in (10..).zip(acts) {
            live(&mut succession, &mut copy, fate, 2 * nonce);
        }
        let answer = *answer.get_or_insert_with(|| succession.hand_out(question, 10, start));
        original.token = Some(answer);
        let now = start + Duration::from_secs(after);
        prop_assert!(arrive(&mut succession, original, 100, now).map(|next| original.token = Some(next)).is_some());
        prop_assert_eq!(succession.standing(copy.token, true, now), Standing::Outdated);
        for nonce in 60..63 {
            prop_assert!(!live(&mut succession, &mut copy, Fate::Answered, 2 * nonce));
            prop_assert!(live(&mut succession, &mut original, Fate::Answered, 2 * nonce + 1));
        }
    }
}

#[test]
fn a_registration_that_is_made_twice_takes_nothing_from_who_was_there_before() {
    let (mut succession, original) = waiting();
    let (copy, start) = (original, Instant::now());
    // Answered, and not used yet.
    let answer = Some(succession.hand_out(original.token, 1, start));
    for nonce in 2..4 {
        assert!(arrive(&mut succession, copy, nonce, start).is_some());
    }
    assert_eq!(succession.standing(answer, true, start), Standing::Node);
}

#[test]
fn who_comes_back_after_its_place_was_long_taken_is_held_off() {
    let (mut succession, mut original) = waiting();
    let (mut copy, start) = (original, Instant::now());
    copy.token = arrive(&mut succession, copy, 1, start);
    original.token = Some(succession.hand_out(original.token, 2, start));
    assert!(live(&mut succession, &mut copy, Fate::Answered, 4));
    let late = start + PATIENCE;
    assert_eq!(
        succession.standing(original.token, true, late),
        Standing::Outdated
    );
    assert_eq!(succession.standing(copy.token, false, late), Standing::Node);
}

#[test]
fn a_token_that_was_not_used_yet_may_come_from_elsewhere() {
    let mut succession = Succession::default();
    let now = Instant::now();
    let first = Some(succession.hand_out(None, 1, now));
    assert_eq!(succession.standing(first, false, now), Standing::Node);
    assert_eq!(succession.standing(first, true, now), Standing::Moved);
    succession.use_token(first);
    assert_eq!(succession.standing(first, false, now), Standing::Node);
    assert_eq!(succession.standing(first, true, now), Standing::Moved);
}

#[test]
fn a_host_restored_from_a_snapshot_goes_on_when_its_original_is_gone_and_holds_that_off_from_then_on()
 {
    let mut succession = Succession::default();
    let mut original = Host { token: None };
    for nonce in 0..5 {
        assert!(live(
            &mut succession,
            &mut original,
            Fate::Answered,
            2 * nonce
        ));
    }
    let mut restored = original;
    for nonce in 5..9 {
        assert!(live(
            &mut succession,
            &mut original,
            Fate::Answered,
            2 * nonce
        ));
    }
    let now = Instant::now();
    let standing =
        |succession: &Succession, host: Host| succession.standing(host.token, false, now);
    // While the node is up.
    assert_eq!(standing(&succession, restored), Standing::Outdated);
    // It is down now, so that it is not asked.
    succession.use_token(restored.token);
    restored.token = Some(succession.hand_out(restored.token, 20, now));
    assert!(live(&mut succession, &mut restored, Fate::Answered, 22));
    // Should it come back.
    assert_eq!(standing(&succession, original), Standing::Outdated);
    assert!(live(&mut succession, &mut restored, Fate::Answered, 24));
}

#[test]
fn a_token_of_a_higher_number_than_is_known_is_the_nodes() {
    let mut succession: Succession = "7.0000000000000001".parse().unwrap();
    let newer = Some("9.0000000000000002".parse().unwrap());
    let now = Instant::now();
    assert_eq!(succession.standing(newer, false, now), Standing::Node);
    assert_eq!(succession.standing(newer, true, now), Standing::Moved);
    succession.use_token(newer);
    let older = Some("7.0000000000000001".parse().unwrap());
    assert_eq!(succession.standing(older, false, now), Standing::Outdated);
    assert_eq!(succession.hand_out(newer, 3, now).number, 10);
}

/// Nobody can bring the numbers to their end, at which tokens tell no host from its copy.
#[test]
fn a_number_that_was_never_counted_to_is_no_token() {
    let mut succession: Succession = "7.0000000000000001".parse().unwrap();
    let now = Instant::now();
    let token = |number| Some(HeartbeatToken { number, nonce: 2 });
    let invented = token(8 + FARTHEST);
    assert_eq!(succession.standing(invented, true, now), Standing::Node);
    succession.use_token(invented);
    assert_eq!(succession.hand_out(invented, 3, now).number, 8);
    let known = Some("7.0000000000000001".parse().unwrap());
    assert_eq!(succession.standing(known, false, now), Standing::Node);
    // As far behind as a control plane may be.
    let far = token(8 + FARTHEST);
    succession.use_token(far);
    assert_eq!(succession.standing(known, false, now), Standing::Outdated);
    assert_eq!(succession.hand_out(far, 4, now).number, 9 + FARTHEST);
}

/// The copy's question waits while the host takes its place back, and must not be handed a place of its own.
#[test]
fn what_waits_for_its_answer_is_handed_no_token_when_its_own_becomes_outdated() {
    let (mut succession, mut original) = waiting();
    let (mut copy, start) = (original, Instant::now());
    copy.token = arrive(&mut succession, copy, 1, start);
    original.token = Some(succession.hand_out(original.token, 2, start));
    // Its question.
    assert_eq!(
        succession.standing(copy.token, false, start),
        Standing::Node
    );
    succession.use_token(copy.token);
    original.token = arrive(&mut succession, original, 3, start);
    assert!(original.token.is_some());
    let answer = Some(succession.hand_out(copy.token, 4, start));
    assert_eq!(succession.standing(answer, true, start), Standing::Outdated);
    assert_eq!(
        succession.standing(original.token, false, start),
        Standing::Node
    );
}

/// What was written before the token was used that the database knows as handed out.
#[test]
fn a_token_that_was_used_is_not_made_unused_by_who_does_not_know_it_yet() {
    let mut succession = Succession::default();
    let now = Instant::now();
    let first = Some(succession.hand_out(None, 1, now));
    let stored = restarted(&succession);
    succession.use_token(first);
    succession.learn(&stored);
    assert_eq!(succession.standing(first, true, now), Standing::Moved);
    assert_eq!(
        restarted(&succession).standing(first, true, now),
        Standing::Moved
    );
}

/// Somebody who brings no token, such as an operator's curl, at another replica than the node's.
#[test]
fn what_another_replica_hands_out_meanwhile_makes_no_token_of_the_node_outdated() {
    let (mut here, mut host) = (Succession::default(), Host { token: None });
    for nonce in 0..3 {
        assert!(live(&mut here, &mut host, Fate::Answered, 2 * nonce));
    }
    let mut there = restarted(&here);
    there.hand_out(None, 20, Instant::now());
    here.learn(&restarted(&there));
    assert!(live(&mut here, &mut host, Fate::Answered, 22));
}

/// A replica that was frozen does not know what was used since, and answers what it has read before.
#[test]
fn a_replica_that_is_behind_takes_no_place_from_who_went_on_elsewhere() {
    let (mut frozen, mut host) = (Succession::default(), Host { token: None });
    for nonce in 0..3 {
        assert!(live(&mut frozen, &mut host, Fate::Answered, 2 * nonce));
    }
    let before = Host { token: frozen.used };
    let mut other = restarted(&frozen);
    // Its question waits there.
    other.use_token(host.token);
    for nonce in 10..12 {
        assert!(live(
            &mut frozen,
            &mut before.clone(),
            Fate::AnswerLost,
            2 * nonce
        ));
    }
    other.learn(&restarted(&frozen));
    host.token = Some(other.hand_out(host.token, 30, Instant::now()));
    assert!(live(&mut other, &mut host, Fate::Answered, 32));
}

#[test]
fn however_often_somebody_comes_without_a_token_the_nodes_own_stays_good() {
    let now = Instant::now();
    let (mut succession, mut host) = waiting();
    let asked = host.token;
    for nonce in 0..20 {
        assert_eq!(succession.standing(None, false, now), Standing::Node);
        succession.use_token(None);
        succession.hand_out(None, nonce, now);
        assert_eq!(succession.standing(asked, false, now), Standing::Node);
    }
    host.token = Some(succession.hand_out(asked, 100, now));
    for nonce in 101..121 {
        succession.hand_out(None, nonce, now);
    }
    assert_eq!(succession.standing(host.token, false, now), Standing::Node);
}

#[test]
fn the_numbers_have_an_end_and_stay_there() {
    let last = HeartbeatToken {
        number: i64::MAX.unsigned_abs(),
        nonce: 1,
    };
    let mut succession: Succession = last.to_string().parse().unwrap();
    succession.use_token(Some(last));
    let now = Instant::now();
    let next = succession.hand_out(Some(last), 2, now);
    assert_eq!(next.number, last.number);
    assert_eq!(succession.standing(Some(next), false, now), Standing::Node);
    succession.use_token(Some(next));
    assert_eq!(
        succession.standing(Some(last), false, now),
        Standing::Outdated
    );
}

#[test]
fn what_another_replica_handed_out_is_the_nodes_here_as_well() {
    let (mut here, mut host) = (Succession::default(), Host { token: None });
    for nonce in 0..3 {
        assert!(live(&mut here, &mut host, Fate::Answered, 2 * nonce));
    }
    let now = Instant::now();
    let mut there = restarted(&here);
    there.use_token(host.token);
    here.use_token(host.token);
    let answer = Some(there.hand_out(host.token, 20, now));
    here.learn(&restarted(&there));
    assert_eq!(here.standing(answer, false, now), Standing::Node);
    assert_eq!(here.standing(answer, true, now), Standing::Moved);
}

/// The copy's question waits at one replica while the original goes on at another.
#[test]
fn a_copy_that_waits_at_one_replica_takes_no_place_from_its_original_at_another() {
    let (mut here, mut original) = waiting();
    let copy = original;
    let mut there = restarted(&here);
    for nonce in 10..12 {
        assert!(live(&mut there, &mut original, Fate::Answered, 2 * nonce));
    }
    here.learn(&restarted(&there));
    let now = Instant::now();
    let answer = Some(here.hand_out(copy.token, 30, now));
    assert_eq!(here.standing(answer, false, now), Standing::Outdated);
    assert_eq!(here.standing(original.token, false, now), Standing::Node);
}

#[test]
fn a_host_takes_its_place_back_from_a_copy_that_went_on_at_another_replica() {
    let (mut here, mut original) = waiting();
    let (mut copy, start) = (original, Instant::now());
    copy.token = arrive(&mut here, copy, 1, start);
    let mut there = restarted(&here);
    for nonce in 10..12 {
        assert!(live(&mut there, &mut copy, Fate::Answered, 2 * nonce));
    }
    here.learn(&restarted(&there));
    // Its question waited here meanwhile.
    original.token = Some(here.hand_out(original.token, 30, start));
    assert_eq!(here.standing(original.token, true, start), Standing::Node);
}
