//! The joins: what they ask, made before it is measured, and what they were answered.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use anyhow::Context as _;
use mesh_credentials::{join_token::JoinToken, node_key_pair::NodeKeyPair, secret::Secret};
use mesh_rest::{
    join::Join,
    join_token::{CreateToken, CreatedToken},
};

use crate::control::{agents::text, connection::Connection, server::Server};

/// What a join is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    /// Of a host that may join.
    Good,
    /// Of one that has joined, with the same token and key.
    Again,
    /// By a token that another host has joined by.
    UsedUp,
    /// By a token with another secret.
    Unknown,
    /// Not even a token.
    Malformed,
}

impl Wish {
    pub(super) const ALL: [Self; 5] = [
        Self::Good,
        Self::Again,
        Self::UsedUp,
        Self::Unknown,
        Self::Malformed,
    ];
}

/// What it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// 200
    Joined,
    /// 403 and 422
    Refused,
    /// 429
    SlowDown,
    /// 503
    Overloaded,
    /// Something else, or nothing in time.
    Failed,
}

impl Outcome {
    pub(super) fn of(status: u16) -> Self {
        match status {
            200 => Self::Joined,
            400..=428 => Self::Refused,
            429 => Self::SlowDown,
            503 => Self::Overloaded,
            _ => Self::Failed,
        }
    }
}

/// Bodies of joins, of each kind as many.
pub(super) struct Asked {
    token: JoinToken,
    /// Each for one host.
    good: Vec<String>,
    bad: BTreeMap<Wish, String>,
    next: AtomicUsize,
}

impl Asked {
    /// Enough for so many joins.
    pub(super) async fn prepare(server: &Server, joins: u32) -> anyhow::Result<Self> {
        let hosts = joins / 5 + 1;
        let many = create(server, hosts).await?;
        let mut good = Vec::new();
        for _ in 0..hosts {
            good.push(body(&many, &NodeKeyPair::make()?)?);
        }
        let (one, host) = (create(server, 1).await?, NodeKeyPair::make()?);
        let again = body(&one, &host)?;
        let mut connection = Connection::open_admin(&server.admin_socket()).await?;
        let joined = connection.post("/api/join", &again).await?;
        let _: mesh_rest::join::Joined = joined.json()?;
        let token: JoinToken = many.parse()?;
        let unknown = JoinToken {
            secret: Secret::make()?,
            ..many.parse()?
        };
        let bad = BTreeMap::from([
            (Wish::UsedUp, body(&one, &NodeKeyPair::make()?)?),
            (Wish::Unknown, body(&unknown.to_string(), &host)?),
            (
                Wish::Malformed,
                again.replace(&one, one.get(..20).context("a short token")?),
            ),
            (Wish::Again, again),
        ]);
        Ok(Self {
            token,
            good,
            bad,
            next: AtomicUsize::new(0),
        })
    }

    /// One that may be used.
    pub(super) fn token(&self) -> &JoinToken {
        &self.token
    }

    /// The next join, of each kind in turns.
    pub(super) fn next(&self) -> (Wish, &str) {
        let number = self.next.fetch_add(1, Relaxed);
        let wish = Wish::ALL[number % Wish::ALL.len()];
        match self.bad.get(&wish) {
            Some(body) => (wish, body),
            // There are enough for as many as are asked in time.
            None => (
                wish,
                &self.good[(number / Wish::ALL.len()) % self.good.len()],
            ),
        }
    }
}

async fn create(server: &Server, uses: u32) -> anyhow::Result<String> {
    let create = CreateToken {
        uses: Some(uses),
        ..CreateToken::default()
    };
    let mut connection = Connection::open_admin(&server.admin_socket()).await?;
    let answer = connection.post("/api/tokens", &text(&create)).await?;
    let created: CreatedToken = answer.json()?;
    Ok(created.token)
}

fn body(token: &str, key: &NodeKeyPair) -> anyhow::Result<String> {
    Ok(text(&Join {
        token: token.to_owned(),
        request: key.request()?,
        node_key: None,
    }))
}

/// What became of joins.
#[derive(Debug, Default)]
pub(super) struct Tally {
    outcomes: BTreeMap<(Wish, Outcome), u32>,
    /// How long those took that were answered, in milliseconds.
    waits: BTreeMap<Wish, Vec<f64>>,
}

impl Tally {
    pub(super) fn note(&mut self, wish: Wish, outcome: Outcome, milliseconds: f64) {
        *self.outcomes.entry((wish, outcome)).or_default() += 1;
        if outcome != Outcome::Failed {
            self.waits.entry(wish).or_default().push(milliseconds);
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        for (which, count) in other.outcomes {
            *self.outcomes.entry(which).or_default() += count;
        }
        for (wish, waits) in other.waits {
            self.waits.entry(wish).or_default().extend(waits);
        }
    }

    /// How many of a kind were answered so.
    pub(super) fn count(&self, wish: Wish, outcome: Outcome) -> u32 {
        let count = self.outcomes.get(&(wish, outcome));
        count.copied().unwrap_or(0)
    }

    /// How many there were in all.
    pub(super) fn all(&self) -> u32 {
        self.outcomes.values().sum()
    }

    /// How long those of a kind took, in ascending order.
    pub(super) fn waits(&self, wish: Wish) -> Vec<f64> {
        let mut waits = self.waits.get(&wish).cloned().unwrap_or_default();
        waits.sort_by(f64::total_cmp);
        waits
    }
}
