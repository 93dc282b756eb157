//! Who is alive: the pure core of `up` and `down`.
//!
//! Heartbeats live here, in memory, and reach the database in batches; a change of status is marked
//! as unwritten until the database has it. The table never reads a clock: every call that depends on
//! time gets `now`, taken from the monotonic clock, so that a step of the wall clock neither kills nor
//! revives anybody. Wall-clock times pass through only to be shown.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mesh_rest::heartbeat_token::HeartbeatToken;
use mesh_rest::node_id::NodeId;
use mesh_rest::status::Status;
use mesh_rest::timing;

use crate::cluster::silence;
use crate::cluster::succession::{Standing, Succession};

/// What a heartbeat did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The node was up and stays up.
    StillUp,
    /// The node was down and is up again.
    CameUp,
}

/// Something about a node that the database does not have yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritten {
    /// The node.
    pub node_id: NodeId,
    /// Its status, if that changed.
    pub status: Option<Status>,
    /// Unix seconds of its last heartbeat.
    pub last_heartbeat: i64,
    /// The MTU of its overlay in bytes, if it told another.
    pub overlay_mtu: Option<u32>,
    /// Its tokens as text, if it has any.
    pub succession: Option<String>,
}

/// A heartbeat that the other replicas do not know of yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untold {
    /// Whose.
    pub node_id: NodeId,
    /// Its Unix seconds.
    pub last_heartbeat: i64,
    /// The node's tokens as text, if it has any.
    pub succession: Option<String>,
}

#[derive(Debug)]
struct Pulse {
    deadline: Instant,
    last_heartbeat: i64,
    status: Status,
    status_unwritten: bool,
    heartbeat_unwritten: bool,
    /// When a sign of life was last marked as one to write and to tell.
    marked: Option<Instant>,
    /// The other replicas do not know of its last heartbeat yet.
    heartbeat_untold: bool,
    /// The MTU that it told, if that is another than the database has.
    mtu_unwritten: Option<u32>,
    held_off: Option<HeldOff>,
    /// It was given one more timeout, because many fell silent at once.
    is_held: bool,
}

/// A copy of a node's host that was refused.
#[derive(Debug)]
struct HeldOff {
    last: Instant,
    last_unix_seconds: i64,
    is_told: bool,
}

/// Every node that a heartbeat can keep, or bring, up.
#[derive(Debug)]
pub struct Liveness {
    timeout: Duration,
    version: u64,
    pulses: HashMap<NodeId, Pulse>,
    /// The tokens of every node that there is, also of those that no heartbeat brings up.
    successions: HashMap<NodeId, Succession>,
}

impl Liveness {
    /// An empty table in which a node is down after `timeout` without a heartbeat.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            version: 0,
            pulses: HashMap::new(),
            successions: HashMap::new(),
        }
    }

    /// How long a node may be silent.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Rises whenever a node is shown with another status, or as one whose copy is held off.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Starts watching a node, from what the database says: a node that is up has a full timeout
    /// from `now`, one that is down stays so until its next heartbeat.
    pub fn watch(&mut self, node_id: NodeId, status: Status, last_heartbeat: i64, now: Instant) {
        self.version += 1;
        self.pulses.insert(
            node_id,
            Pulse {
                deadline: now + self.timeout,
                last_heartbeat,
                status,
                status_unwritten: false,
                heartbeat_unwritten: false,
                marked: None,
                heartbeat_untold: false,
                mtu_unwritten: None,
                held_off: None,
                is_held: false,
            },
        );
    }

    /// Takes over what the database says has changed about a node, unless the table knows better:
    /// a change of status that it has yet to write is newer.
    pub fn adopt(&mut self, node_id: &NodeId, status: Status, last_heartbeat: i64, now: Instant) {
        let stays = self
            .pulses
            .get(node_id.as_str())
            .is_some_and(|pulse| pulse.status_unwritten || pulse.status == status);
        if !stays {
            self.watch(node_id.clone(), status, last_heartbeat, now);
        }
    }

    /// Stops watching all nodes. The tokens that they have, they have whatever the database says.
    pub fn start_over(&mut self) {
        self.pulses.clear();
    }

    /// Stops watching a node: from here on its heartbeats are those of a stranger.
    pub fn forget(&mut self, node_id: &NodeId) {
        self.version += 1;
        self.pulses.remove(node_id);
    }

    /// Stops watching a node that there is no more, and forgets its tokens.
    pub fn remove(&mut self, node_id: &NodeId) {
        self.forget(node_id);
        self.successions.remove(node_id);
    }

    /// Whether a node is up; `None`: not watched.
    pub fn status(&self, node_id: &str) -> Option<Status> {
        self.pulses.get(node_id).map(|pulse| pulse.status)
    }

    /// What the token of a host that comes while the node is up says about it (see [`Succession`]). `moved`: with
    /// another address or name than the node's.
    pub fn standing(
        &self,
        node_id: &str,
        token: Option<HeartbeatToken>,
        moved: bool,
        now: Instant,
    ) -> Standing {
        let succession = self.successions.get(node_id);
        succession.map_or(Standing::Node, |it| it.standing(token, moved, now))
    }

    /// Takes a host that moved, and comes with `token`, for the node; the one before may show for as long as a heartbeat
    /// takes that it is still there.
    pub fn displace(&mut self, node_id: &NodeId, token: Option<HeartbeatToken>, now: Instant) {
        let patience = timing::heartbeat_interval(self.timeout);
        self.succession(node_id).displace(token, now, patience);
    }

    /// Takes a token for the node's.
    pub fn use_token(&mut self, node_id: &NodeId, token: Option<HeartbeatToken>) {
        self.succession(node_id).use_token(token);
    }

    /// Hands out the node's next token, in answer to who came with `answered`; `nonce` is random. It is written with the
    /// next heartbeats.
    pub fn hand_out(
        &mut self,
        node_id: &NodeId,
        answered: Option<HeartbeatToken>,
        nonce: u64,
        now: Instant,
    ) -> HeartbeatToken {
        self.succession(node_id).hand_out(answered, nonce, now)
    }

    /// Takes over what the database or another replica knows of a node's tokens.
    pub fn learn(&mut self, node_id: &NodeId, succession: &Succession) {
        self.succession(node_id).learn(succession);
    }

    /// Takes note that a copy of a node was refused. Whether that is to be told: once, and not of a single one, which
    /// may be a request that was long on its way.
    pub fn hold_off(&mut self, node_id: &str, now: Instant, unix_seconds: i64) -> bool {
        let Some(pulse) = self.pulses.get_mut(node_id) else {
            return false;
        };
        let before = pulse
            .held_off
            .take()
            .filter(|before| now < before.last + self.timeout);
        let is_told = before.as_ref().is_some_and(|before| before.is_told);
        let tell = before.is_some() && !is_told;
        pulse.held_off = Some(HeldOff {
            last: now,
            last_unix_seconds: unix_seconds,
            is_told: is_told || tell,
        });
        self.version += u64::from(tell);
        tell
    }

    /// When a copy of the node was refused last, in Unix seconds, if that was within the timeout and is to be told.
    pub fn held_off_at(&self, node_id: &NodeId, now: Instant) -> Option<i64> {
        let held_off = self.pulses.get(node_id)?.held_off.as_ref()?;
        (held_off.is_told && now < held_off.last + self.timeout)
            .then_some(held_off.last_unix_seconds)
    }

    fn succession(&mut self, node_id: &NodeId) -> &mut Succession {
        self.successions.entry(node_id.clone()).or_default()
    }

    /// A node's tokens as text, if it has any.
    pub fn succession_text(&self, node_id: &NodeId) -> Option<String> {
        self.successions.get(node_id).map(Succession::to_string)
    }

    /// Takes a heartbeat at `now`, `unix_seconds` by the wall clock. `None`: no such node.
    pub fn heartbeat(&mut self, node_id: &str, now: Instant, unix_seconds: i64) -> Option<Beat> {
        let pulse = self.pulses.get_mut(node_id)?;
        pulse.deadline = now + self.timeout;
        pulse.is_held = false;
        pulse.last_heartbeat = unix_seconds;
        pulse.heartbeat_unwritten = true;
        pulse.heartbeat_untold = true;
        pulse.marked = Some(now);
        if pulse.status == Status::Up {
            return Some(Beat::StillUp);
        }
        pulse.status = Status::Up;
        pulse.status_unwritten = true;
        self.version += 1;
        Some(Beat::CameUp)
    }

    /// Takes the MTU in bytes that a node told with a heartbeat; the database has `known`. A heartbeat that tells
    /// none changes nothing.
    pub fn tell_mtu(&mut self, node_id: &str, told: Option<u32>, known: Option<u32>) {
        if let (Some(pulse), Some(_)) = (self.pulses.get_mut(node_id), told) {
            pulse.mtu_unwritten = told.filter(|_| told != known);
        }
    }

    /// Takes another sign of life at `now`: a question. It counts as a heartbeat, but where those come as well it is not
    /// worth being written or told to others: they are within a third of the timeout.
    pub fn sign(&mut self, node_id: &str, now: Instant, unix_seconds: i64) -> Option<Beat> {
        let pulse = self.pulses.get_mut(node_id)?;
        let third = self.timeout / 3;
        let is_fresh = pulse.marked.is_some_and(|marked| now < marked + third);
        if pulse.status != Status::Up || !is_fresh {
            return self.heartbeat(node_id, now, unix_seconds);
        }
        pulse.deadline = now + self.timeout;
        pulse.is_held = false;
        Some(Beat::StillUp)
    }

    /// Takes a heartbeat that another replica received and tells of, when this one hears of it. That one writes it; and if it
    /// brings the node up, that one has that written, too.
    pub fn hear(&mut self, node_id: &str, now: Instant, unix_seconds: i64) {
        if let Some(pulse) = self.pulses.get_mut(node_id) {
            pulse.deadline = now + self.timeout;
            pulse.is_held = false;
            pulse.last_heartbeat = unix_seconds;
        }
    }

    /// The heartbeats that the other replicas do not know of yet, taken as told. After a failure give
    /// them to [`Self::put_back_untold`].
    pub fn take_untold(&mut self) -> Vec<Untold> {
        let mut untold: Vec<Untold> = Vec::new();
        for (node_id, pulse) in &mut self.pulses {
            if std::mem::take(&mut pulse.heartbeat_untold) {
                untold.push(Untold {
                    node_id: node_id.clone(),
                    last_heartbeat: pulse.last_heartbeat,
                    succession: None,
                });
            }
        }
        for entry in &mut untold {
            entry.succession = self.succession_text(&entry.node_id);
        }
        untold
    }

    /// Marks what could not be told as untold again.
    pub fn put_back_untold(&mut self, untold: &[Untold]) {
        for entry in untold {
            if let Some(pulse) = self.pulses.get_mut(&entry.node_id) {
                pulse.heartbeat_untold = true;
            }
        }
    }

    /// Starts every node's timeout anew, because heartbeats may have gone unnoticed until now.
    pub fn give_full_timeout(&mut self, now: Instant) {
        for pulse in self.pulses.values_mut() {
            pulse.deadline = now + self.timeout;
        }
    }

    /// Gives silent nodes one more timeout if many fell silent at once (see [`silence`]) and the first is due. How many
    /// that were; none is given it twice before it beats again.
    pub fn hold_many(&mut self, now: Instant) -> usize {
        let is_up = |pulse: &&mut Pulse| pulse.status == Status::Up;
        let up = self.pulses.values_mut().filter(is_up).count();
        let silent = |pulse: &&mut Pulse| {
            !pulse.is_held && pulse.deadline <= now + silence::notice(self.timeout)
        };
        let deadlines: Vec<_> = self
            .pulses
            .values_mut()
            .filter(is_up)
            .filter(silent)
            .map(|pulse| pulse.deadline)
            .collect();
        let is_due = deadlines.iter().any(|deadline| *deadline <= now);
        if !is_due || !silence::is_of_many(deadlines, up, self.timeout) {
            return 0;
        }
        let mut held = 0;
        for pulse in self.pulses.values_mut().filter(is_up).filter(silent) {
            pulse.deadline += self.timeout;
            pulse.is_held = true;
            held += 1;
        }
        held
    }

    /// Whose deadline was at least `grace` ago, among those that are up. They stay up.
    pub fn silent(&self, now: Instant, grace: Duration) -> Vec<NodeId> {
        self.pulses
            .iter()
            .filter(|(_, pulse)| pulse.status == Status::Up && pulse.deadline + grace <= now)
            .map(|(node_id, _)| node_id.clone())
            .collect()
    }

    /// Turns down whoever's deadline has come, and returns them.
    pub fn expire(&mut self, now: Instant) -> Vec<NodeId> {
        let mut expired = Vec::new();
        for (node_id, pulse) in &mut self.pulses {
            if pulse.status == Status::Up && pulse.deadline <= now {
                pulse.status = Status::Down;
                pulse.status_unwritten = true;
                self.version += 1;
                expired.push(node_id.clone());
            }
        }
        expired
    }

    /// When the next node is due to be called down, if any is up.
    ///
    /// Whatever happens later moves this moment back, never forward: every new deadline is a full
    /// timeout away. So whoever sleeps until then need not be woken in between.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.pulses
            .values()
            .filter(|pulse| pulse.status == Status::Up)
            .map(|pulse| pulse.deadline)
            .min()
    }

    /// The status and last heartbeat (Unix seconds) of a node. `None`: not watched.
    pub fn look_up(&self, node_id: &NodeId) -> Option<(Status, i64)> {
        self.pulses
            .get(node_id)
            .map(|pulse| (pulse.status, pulse.last_heartbeat))
    }

    /// How many changes of status are yet to be written.
    pub fn unwritten_statuses(&self) -> usize {
        self.pulses
            .values()
            .filter(|pulse| pulse.status_unwritten)
            .count()
    }

    /// At most `most` entries of what has to be written, changes of status first, taken as written.
    /// After a failure give them to [`Self::put_back`].
    pub fn take_unwritten(&mut self, most: usize) -> Vec<Unwritten> {
        let mut unwritten: Vec<Unwritten> = Vec::new();
        'enough: for status_only in [true, false] {
            for (node_id, pulse) in &mut self.pulses {
                if unwritten.len() >= most {
                    break 'enough;
                }
                if pulse.status_unwritten || (!status_only && pulse.heartbeat_unwritten) {
                    unwritten.push(Unwritten {
                        node_id: node_id.clone(),
                        status: pulse.status_unwritten.then_some(pulse.status),
                        last_heartbeat: pulse.last_heartbeat,
                        overlay_mtu: pulse.mtu_unwritten.take(),
                        succession: None,
                    });
                    pulse.status_unwritten = false;
                    pulse.heartbeat_unwritten = false;
                }
            }
        }
        for entry in &mut unwritten {
            entry.succession = self.succession_text(&entry.node_id);
        }
        unwritten
    }

    /// Marks what could not be written as unwritten again; what the node is by now is what the next
    /// attempt writes.
    pub fn put_back(&mut self, unwritten: &[Unwritten]) {
        for entry in unwritten {
            if let Some(pulse) = self.pulses.get_mut(&entry.node_id) {
                pulse.heartbeat_unwritten = true;
                pulse.status_unwritten |= entry.status.is_some();
                pulse.mtu_unwritten = pulse.mtu_unwritten.or(entry.overlay_mtu);
            }
        }
    }
}

#[cfg(test)]
mod tests;
