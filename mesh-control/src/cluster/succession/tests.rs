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
    if succession.is_outdated(host.token, false) {
        return None;
    }
    succession.use_token(host.token);
    Some(succession.hand_out(nonce))
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

#[test]
fn a_token_that_was_used_is_a_copys_where_it_comes_from_elsewhere() {
    let mut succession = Succession::default();
    let first = Some(succession.hand_out(1));
    succession.use_token(first);
    let second = Some(succession.hand_out(2));
    assert!(!succession.is_outdated(first, false), "its answer was lost");
    assert!(succession.is_outdated(first, true), "it was answered");
    assert!(!succession.is_outdated(second, true), "a host may move");
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
    assert!(
        succession.is_outdated(restored.token, false),
        "while the node is up"
    );
    // It is down now, so that it is not asked.
    succession.use_token(restored.token);
    restored.token = Some(succession.hand_out(20));
    assert!(live(&mut succession, &mut restored, Fate::Answered, 22));
    assert!(
        succession.is_outdated(original.token, false),
        "should it come back"
    );
    assert!(live(&mut succession, &mut restored, Fate::Answered, 24));
}

#[test]
fn a_token_of_a_higher_number_than_is_known_is_the_nodes() {
    let mut succession: Succession = "7.0000000000000001".parse().unwrap();
    let newer = Some("9.0000000000000002".parse().unwrap());
    assert!(!succession.is_outdated(newer, true));
    succession.use_token(newer);
    let older = Some("7.0000000000000001".parse().unwrap());
    assert!(succession.is_outdated(older, false));
    assert_eq!(succession.hand_out(3).number, 10);
}

#[test]
fn the_numbers_have_an_end_and_stay_there() {
    let mut succession = Succession::default();
    let last = HeartbeatToken {
        number: i64::MAX.unsigned_abs(),
        nonce: 1,
    };
    succession.use_token(Some(last));
    let next = succession.hand_out(2);
    assert_eq!(next.number, last.number);
    assert!(!succession.is_outdated(Some(next), true));
    succession.use_token(Some(next));
    assert!(succession.is_outdated(Some(last), false));
}
