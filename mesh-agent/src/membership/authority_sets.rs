//! Which sets of authorities this host has heard of, and whether one of them is a reason to have its certificate made anew.

use std::collections::VecDeque;

/// So many are remembered: more than two rotations of three steps each.
const MOST: usize = 8;

/// The sets, by what the control plane calls each.
#[derive(Debug, Default)]
pub(super) struct AuthoritySets {
    /// For which the certificate was made anew last.
    asked_for: Option<String>,
    /// And those of before, the latest at the end.
    had: VecDeque<String>,
}

impl AuthoritySets {
    /// Whether the set that was heard of last is a reason, given the one that the certificate came with. One that was never
    /// heard of before is at once, so that each step of a rotation is followed within a heartbeat or two; one that is back,
    /// where replicas do not agree, only when it is `apart` from the time before.
    pub(super) fn is_reason(&self, heard: &str, current: Option<&str>, apart: bool) -> bool {
        let is_other = current != Some(heard) && self.asked_for.as_deref() != Some(heard);
        is_other && (apart || !self.had.iter().any(|had| had == heard))
    }

    /// The certificate is made anew for this set, and was of that one.
    pub(super) fn ask_for(&mut self, heard: &str, current: Option<&str>) {
        self.asked_for = Some(heard.to_owned());
        for set in current.into_iter().chain([heard]) {
            self.had.retain(|had| had != set);
            self.had.push_back(set.to_owned());
        }
        let more = self.had.len().saturating_sub(MOST);
        self.had.drain(..more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_of_a_rotation_are_followed_at_once_one_after_another() {
        let mut sets = AuthoritySets::default();
        let mut current = "first".to_owned();
        for step in ["prepared", "activated", "finished", "prepared again"] {
            assert!(!sets.is_reason(&current, Some(&current), false), "{step}");
            assert!(sets.is_reason(step, Some(&current), false), "{step}");
            sets.ask_for(step, Some(&current));
            // It was asked for, whatever the answer came with.
            assert!(!sets.is_reason(step, Some(&current), true), "{step}");
            current = step.to_owned();
        }
    }

    #[test]
    fn what_replicas_tell_that_do_not_agree_is_asked_about_only_now_and_then() {
        let mut sets = AuthoritySets::default();
        assert!(sets.is_reason("b", Some("a"), false));
        sets.ask_for("b", Some("a"));
        for (heard, current) in [("a", "b"), ("b", "a"), ("a", "b")] {
            assert!(!sets.is_reason(heard, Some(current), false));
            assert!(sets.is_reason(heard, Some(current), true));
            sets.ask_for(heard, Some(current));
        }
    }

    #[test]
    fn a_host_that_does_not_know_what_its_certificate_came_with_asks_once() {
        let mut sets = AuthoritySets::default();
        assert!(sets.is_reason("a", None, false));
        sets.ask_for("a", None);
        assert!(!sets.is_reason("a", None, true));
    }

    #[test]
    fn no_more_are_remembered_than_a_mesh_comes_to_have() {
        let mut sets = AuthoritySets::default();
        for number in 0..100 {
            sets.ask_for(&number.to_string(), None);
        }
        assert_eq!(sets.had.len(), MOST);
        assert!(!sets.is_reason("98", None, false));
        assert!(sets.is_reason("1", None, false));
    }
}
