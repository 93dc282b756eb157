//! Which of two hosts with one identity goes on as the node.
//!
//! A host that is cloned takes its state along: the copy knows the key of the original, and its name. Nothing on it
//! tells which it is; a snapshot of its memory takes along even what was never written. So each answer to a node hands
//! out a token, and the next request brings it along. The rules:
//!
//! 1. A token that was handed out and not used yet is the node's. Used, it makes all that were handed out before
//!    worthless, and is answered with the next.
//! 2. The one that was used last is the node's as well: its answer may have been lost, or the agent been killed
//!    before it had written it down. But from another address, or under another name, it is a copy's: the original
//!    has been answered since.
//! 3. A token with a higher number than any that is known is the node's: what is known here is behind.
//! 4. Any other is outdated. While the node is up, whoever comes with it is held off. When it is not, nobody else is
//!    there to be the node: a machine that was restored from a snapshot, after its original has gone, goes on.
//! 5. Who brings no token, as agents of earlier versions do, is taken for the node.
//!
//! Where a copy starts with the very token that its original has, whoever uses it first goes on, and the other one is
//! held off.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use mesh_rest::heartbeat_token::{HeartbeatToken, NoToken};

/// Tokens that are handed out at a time. An agent whose answers are lost comes with the same token again and again,
/// and is handed out another each time; which of them arrived shows with its next request.
const MOST_HANDED_OUT: usize = 4;

/// The tokens of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Succession {
    /// The highest number of all.
    number: u64,
    /// Not used yet; oldest first.
    handed_out: VecDeque<HeartbeatToken>,
    used: Option<HeartbeatToken>,
}

impl Succession {
    /// Whether who comes with `token` while the node is up is a copy of it. `moved`: with another address or name than
    /// the node is known by.
    pub fn is_outdated(&self, token: Option<HeartbeatToken>, moved: bool) -> bool {
        token.is_some_and(|token| {
            let known = token.number <= self.number;
            let repeated = self.used == Some(token) && !moved;
            known && !repeated && !self.handed_out.contains(&token)
        })
    }

    /// Takes a token for the node's, whatever it is worth.
    pub fn use_token(&mut self, token: Option<HeartbeatToken>) {
        if let Some(token) = token.filter(|_| self.used != token) {
            self.number = self.number.max(token.number);
            self.handed_out.clear();
            self.used = Some(token);
        }
    }

    /// Hands out the next; `nonce` is random.
    pub fn hand_out(&mut self, nonce: u64) -> HeartbeatToken {
        // At the end of the numbers it stays there, and the nonce alone tells.
        self.number = (self.number + 1).min(i64::MAX.unsigned_abs());
        let token = HeartbeatToken {
            number: self.number,
            nonce,
        };
        if self.handed_out.len() == MOST_HANDED_OUT {
            self.handed_out.pop_front();
        }
        self.handed_out.push_back(token);
        token
    }

    /// Takes over what somebody else knows of the same node, if that is newer. Where both handed out one at the same
    /// time, each may be the node's.
    pub fn learn(&mut self, other: &Self) {
        if other.number > self.number {
            *self = other.clone();
        } else if other.number == self.number {
            let news = other.handed_out.iter().copied();
            let news: Vec<_> = news.filter(|it| !self.handed_out.contains(it)).collect();
            self.handed_out.extend(news);
            let surplus = self.handed_out.len().saturating_sub(MOST_HANDED_OUT);
            self.handed_out.drain(..surplus);
            self.used = self.used.or(other.used);
        }
    }
}

/// As the database and the other replicas have it: the token that was handed out last, and the one that was used last,
/// if there is one. The ones between are not worth the room: without them an agent whose answers were lost comes with
/// the one that it used.
impl fmt::Display for Succession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.handed_out.back().copied().or(self.used);
        let Some(last) = last else { return Ok(()) };
        write!(f, "{last}")?;
        match self.used.filter(|used| *used != last) {
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
            handed_out: [last].into(),
            used,
        })
    }
}

#[cfg(test)]
mod tests;
