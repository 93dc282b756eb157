//! Which of two hosts with one identity goes on as the node.
//!
//! A host that is cloned takes its state along: the copy knows the key of the original, and its name. Nothing on it
//! tells which it is; a snapshot of its memory takes along even what was never written. So each answer to a node hands
//! out a token, and the next request brings it along. The rules:
//!
//! 1. A token that was handed out and not used yet is the node's. Used, it makes all that were handed out before
//!    worthless, and is answered with the next.
//! 2. The one that was used last is the node's as well: its answer may have been lost, or the agent been killed
//!    before it had written it down, or the host have moved while its question waited for an answer.
//! 3. From another address, or under another name, each of these may be a copy's as well: a host does not ask the moment
//!    it was answered. It is taken for the node's, because a host that moved must not be cut off; and for a while the
//!    tokens that the host before has, or is answered with to what it asks with the same token, are kept for it. Whoever
//!    comes with one of those was there all the time, and is the node again. Who comes with the same token alone is
//!    answered, and shows with the next: it may be what the host that moved asked before, and was long on its way.
//! 4. A token with a higher number than any that is known is the node's: what is known here is behind. A number that is
//!    so much higher that no control plane can have counted to it meanwhile counts as no token: the numbers would end.
//! 5. Any other is outdated. While the node is up, whoever comes with it is held off. When it is not, nobody else is
//!    there to be the node: a machine that was restored from a snapshot, after its original has gone, goes on.
//! 6. Who brings no token, as agents of earlier versions do, is taken for the node.
//!
//! What a copy asked and waits for is handed out no token once another has taken the place: that would make it the node
//! again.
//!
//! Where a copy registers with the very token that its original has before that registers with it, as two that start
//! together do, whoever comes first goes on, and the other one is held off.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use mesh_rest::heartbeat_token::{HeartbeatToken, NoToken};

/// Tokens that are handed out at a time. An agent whose answers are lost comes with the same token again and again,
/// and is handed out another each time; which of them arrived shows with its next request.
const MOST_HANDED_OUT: usize = 4;

/// How far behind may be what is known here, in tokens: as many as are handed out in more than a century, one a second.
const FARTHEST: u64 = 1 << 32;

/// The tokens of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Succession {
    /// The highest number of all.
    number: u64,
    /// Not used yet; oldest first.
    handed_out: VecDeque<HeartbeatToken>,
    used: Option<HeartbeatToken>,
    /// Tokens up to this number lost their place to a host that came with one from elsewhere.
    ousted_up_to: u64,
    /// If it may be a copy that came last. In a box: there are thousands of nodes, and few that move.
    displaced: Option<Box<Displaced>>,
}

/// The host that was the node before another came from elsewhere with the same token.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Displaced {
    /// What both have, or had.
    token: HeartbeatToken,
    /// What only the one before can have.
    handed_out: VecDeque<HeartbeatToken>,
    /// When it is taken for gone.
    until: Instant,
}

/// What the token of a host that comes while its node is up says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is the node.
    Node,
    /// It is the node, and moved, as far as can be told.
    Moved,
    /// A copy of it.
    Outdated,
}

impl Succession {
    /// What `token` says at `now` about who comes with it. `moved`: with another address or name than the node is known
    /// by.
    pub fn standing(&self, token: Option<HeartbeatToken>, moved: bool, now: Instant) -> Standing {
        let Some(token) = self.believed(token) else {
            return Standing::Node;
        };
        let displaced = self.displaced(now);
        if displaced.is_some_and(|it| it.handed_out.contains(&token)) {
            return Standing::Node;
        }
        let is_unused = token.number > self.number || self.handed_out.contains(&token);
        match (is_unused || self.used == Some(token), moved) {
            (true, false) => Standing::Node,
            (true, true) => Standing::Moved,
            (false, false) if displaced.is_some_and(|it| it.token == token) => Standing::Node,
            (false, _) => Standing::Outdated,
        }
    }

    /// A token that may have been handed out.
    fn believed(&self, token: Option<HeartbeatToken>) -> Option<HeartbeatToken> {
        token.filter(|token| token.number.saturating_sub(self.number) <= FARTHEST)
    }

    fn displaced(&self, now: Instant) -> Option<&Displaced> {
        self.displaced.as_deref().filter(|it| now < it.until)
    }

    /// Takes a host that [moved](Standing::Moved), and comes with `token`, for the node, until the one before shows within
    /// `patience` that it is still there. The token is to be [used](Self::use_token) next.
    pub fn displace(&mut self, token: Option<HeartbeatToken>, now: Instant, patience: Duration) {
        let Some(token) = self.believed(token) else {
            return;
        };
        let mut handed_out = std::mem::take(&mut self.handed_out);
        // What was handed out before the token that both have, neither comes with any more.
        let is_used = self.used == Some(token);
        handed_out.retain(|it| is_used || it.number > token.number);
        // Asked again, because the change could not be stored, or its answer was lost.
        if let Some(before) = self.displaced(now).filter(|it| it.token == token) {
            handed_out.extend(&before.handed_out);
            handed_out.truncate(MOST_HANDED_OUT);
        }
        self.displaced = Some(Box::new(Displaced {
            token,
            handed_out,
            until: now + patience,
        }));
    }

    /// Takes a token for the node's, whatever it is worth.
    pub fn use_token(&mut self, token: Option<HeartbeatToken>) {
        // Of two that have it one went on already, so that it does not tell which of them this is.
        let is_passed = |token| {
            let displaced = self.displaced.as_ref().filter(|it| it.token == token);
            displaced.is_some() && self.used.is_some_and(|used| used.number > token.number)
        };
        let token = self.believed(token);
        if let Some(token) = token.filter(|it| self.used != Some(*it) && !is_passed(*it)) {
            // Whoever came meanwhile has one of these.
            let ousted_up_to = self.number;
            self.number = self.number.max(token.number);
            self.handed_out.clear();
            self.used = Some(token);
            // The next that comes with one of its tokens is outdated.
            let returned = self.displaced.take_if(|it| it.handed_out.contains(&token));
            if returned.is_some() {
                self.ousted_up_to = ousted_up_to;
            }
        }
    }

    /// Hands out the next, in answer to who came with `answered`; `nonce` is random. Whose place another has taken since
    /// is answered with the same again; and who comes without one, with what was handed out last, as long as that is not
    /// used, so that nobody makes the node's own outdated by asking often.
    pub fn hand_out(
        &mut self,
        answered: Option<HeartbeatToken>,
        nonce: u64,
        now: Instant,
    ) -> HeartbeatToken {
        self.displaced.take_if(|it| it.until <= now);
        let is_displaced = |token| self.displaced.as_ref().is_some_and(|it| it.token == token);
        if let Some(answered) = answered.filter(|it| it.number <= self.ousted_up_to)
            && self.used != Some(answered)
            && !is_displaced(answered)
        {
            return answered;
        }
        if let (None, Some(last)) = (answered, self.handed_out.back()) {
            return *last;
        }
        // At the end of the numbers it stays there, and the nonce alone tells.
        self.number = (self.number + 1).min(i64::MAX.unsigned_abs());
        let token = HeartbeatToken {
            number: self.number,
            nonce,
        };
        let handed_out = match &mut self.displaced {
            // A question that waits since before the other one came, who has another token by now.
            Some(displaced) if answered == Some(displaced.token) => &mut displaced.handed_out,
            _ => &mut self.handed_out,
        };
        if handed_out.len() == MOST_HANDED_OUT {
            handed_out.pop_front();
        }
        handed_out.push_back(token);
        token
    }

    /// Takes over what somebody else knows of the same node, if that is newer. Where both handed out one, each may be the
    /// node's, as long as neither knows that one was used that is later, or that a copy lost its place by it.
    pub fn learn(&mut self, other: &Self) {
        let used = |it: &Self| it.used.map(|used| used.number);
        if used(other) > used(self) {
            if !other.used.is_some_and(|it| self.handed_out.contains(&it)) {
                self.ousted_up_to = self.number;
            }
            self.used = other.used;
            self.handed_out.clone_from(&other.handed_out);
        } else if other.number >= self.number {
            for token in &other.handed_out {
                let is_ousted = token.number <= self.ousted_up_to;
                if !is_ousted && self.used != Some(*token) && !self.handed_out.contains(token) {
                    self.handed_out.push_back(*token);
                }
            }
            let surplus = self.handed_out.len().saturating_sub(MOST_HANDED_OUT);
            self.handed_out.drain(..surplus);
        }
        self.number = self.number.max(other.number);
    }
}

/// As the database and the other replicas have it: the token that was handed out last, and the one that was used last,
/// if there is one, and the same twice if none was handed out since. The ones between are not worth the room: without
/// them an agent whose answers were lost comes with the one that it used.
impl fmt::Display for Succession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.handed_out.back().copied().or(self.used);
        let Some(last) = last else { return Ok(()) };
        write!(f, "{last}")?;
        match self.used {
            Some(used) => write!(f, ",{used}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Succession {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let (last, used) = match text.split_once(',') {
            Some((last, used)) => (last.parse()?, Some(used.parse()?)),
            None => (text.parse()?, None),
        };
        let last: HeartbeatToken = last;
        Ok(Self {
            number: last.number,
            handed_out: Some(last)
                .filter(|_| used != Some(last))
                .into_iter()
                .collect(),
            used,
            ousted_up_to: 0,
            displaced: None,
        })
    }
}

#[cfg(test)]
mod tests;
