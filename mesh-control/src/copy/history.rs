//! Where the copy stands in the history of the database, and what becomes of it when that is another one.

use std::collections::HashSet;
use std::time::Duration;

use mesh_rest::feed_query::FeedQuery;
use mesh_rest::node_id::NodeId;
use tracing::warn;

use super::Memory;
use super::feed::Place;
use super::list::READ_DEADLINE;
use super::roster::Roster;
use crate::cluster::history::Position;
use crate::cluster::subnet_plan::SubnetPlan;
use crate::registry::Registry;
use crate::store::{OpenError, RememberedLease, StoreError};
use crate::write::batch::{BATCH_DEADLINE, within};

/// How long a database has to be without its tables until they are made anew: somebody may be about to restore it.
const EMPTY_FOR: Duration = Duration::from_secs(5);

impl Memory {
    /// The database's id.
    pub(super) fn database(&self) -> &str {
        let stands = self.stands.as_ref();
        stands.map_or("", |stands| &stands.database)
    }

    /// Where the list stands, for those who wait for news.
    pub(super) fn place(&self) -> Place {
        Place {
            era: self.era,
            revision: self.roster.revision(),
        }
    }

    /// Whether the asker's revision is one of this database, as far as it says.
    pub(super) fn is_asked(&self, query: &FeedQuery) -> bool {
        let database = query.database.as_deref();
        database.is_none_or(|database| database == self.database())
    }

    /// Where the copy stands; what it knows of the nodes may be a little older.
    pub(crate) fn stands(&self) -> Option<Position> {
        self.stands.clone()
    }

    /// Takes note of a revision that was made here.
    pub(crate) fn made(&mut self, position: Position) {
        let stands = self.stands.as_ref();
        if stands.is_none_or(|stands| stands.revision < position.revision) {
            self.stands = Some(position);
        }
    }

    /// Takes note of a lease that was made here, until it is read.
    pub(crate) fn leased(&mut self, revision: i64, lease: RememberedLease) {
        if revision > self.roster.revision() {
            self.unread.insert(lease.node_id.clone(), (revision, lease));
        }
    }

    /// Takes note of how far was read. Whether the database has another id since.
    pub(super) fn reached(&mut self, position: Position) -> bool {
        let read = position.revision;
        self.unread.retain(|_, (revision, _)| *revision > read);
        let Some(stands) = &mut self.stands else {
            self.stands = Some(position);
            return false;
        };
        let other_id = stands.database != position.database;
        if stands.revision <= position.revision {
            *stands = position;
        } else {
            stands.database = position.database;
        }
        self.era += u64::from(other_id);
        other_id
    }

    /// Every lease that is known here; of credentials nothing is known here.
    fn remembered(&self, plan: &SubnetPlan) -> Vec<RememberedLease> {
        let read = self.roster.nodes().filter_map(|node| {
            Some(RememberedLease {
                node_id: node.node_id.clone(),
                node_key: self.keys.get(&node.node_id).cloned(),
                hostname: node.hostname.clone(),
                host_ip: node.host_ip,
                // Each was made from such a number.
                subnet: plan.index(node.subnet).ok()?,
                has_credentials: false,
            })
        });
        let unread = self.unread.values().map(|(_, lease)| lease.clone());
        // Of those that are in both, the later.
        read.filter(|lease| !self.unread.contains_key(&lease.node_id))
            .chain(unread)
            .collect()
    }

    /// Forgets everything, and who was known.
    fn clear(&mut self) -> HashSet<NodeId> {
        let known = self.roster.nodes().map(|node| node.node_id.clone());
        let known = known.collect();
        self.roster = Roster::default();
        self.liveness.start_over();
        self.keys.clear();
        self.unread.clear();
        self.stands = None;
        self.era += 1;
        known
    }
}

impl Registry {
    /// After a read of what changed failed with `error`: if it did because the database is not what it was, everything is
    /// read. `stood` is where the copy stood then.
    pub(super) async fn read_anew(
        &self,
        stood: Option<Position>,
        error: StoreError,
    ) -> Result<(), StoreError> {
        let (Some(replica), Some(stood)) = (&self.replica, stood) else {
            return Err(error);
        };
        match error {
            StoreError::OtherHistory => {}
            StoreError::Emptied(_) if replica.empty_for() < EMPTY_FOR => return Err(error),
            StoreError::Emptied(_) => {
                let made = tokio::time::timeout(BATCH_DEADLINE, self.store.make_tables()).await;
                match made.unwrap_or(Err(OpenError::Store {
                    database: self.store.name().to_owned(),
                    cause: StoreError::Queued(BATCH_DEADLINE),
                })) {
                    Ok(()) => {}
                    Err(OpenError::Store { cause, .. }) => return Err(cause),
                    Err(other) => return Err(StoreError::Emptied(other.to_string())),
                }
            }
            other => return Err(other),
        }
        let mut remembered = self.copy.memory().remembered(&self.plan);
        for lease in &mut remembered {
            lease.has_credentials = self.credentials.knew(lease.node_id.as_str());
        }
        let begun = self.store.begin_anew(&stood, remembered);
        let Some(begun) = within(BATCH_DEADLINE, begun).await? else {
            return Err(StoreError::OtherHistory);
        };
        let changes = within(READ_DEADLINE, self.store.changes_since(-1, None)).await?;
        replica.compare(self.store.settings(), changes.settings);
        replica.is_filled();
        let read = self.translate(changes)?;
        let (revision, nodes) = (read.position.revision, read.nodes.len());
        {
            let mut memory = self.copy.memory();
            let mut lost = memory.clear();
            self.credentials.read_anew();
            for (node, ..) in &read.nodes {
                lost.remove(&node.node_id);
            }
            for node_id in lost {
                memory.liveness.remove(&node_id);
                self.traffic.forget(node_id.as_str());
            }
            self.apply(&mut memory, read);
            self.copy.feed.there_is_news();
        }
        warn!(name: "database-another-history-than-read",
            stood_at = stood.revision,
            revision,
            nodes,
            unknown_leases = begun.unknown.len(),
            first_unknown = begun.unknown.first().map(|lease| lease.hostname.as_str()),
            "the database has another history than was read: it was restored from a backup, a standby took over that \
             lacked commits, or it was emptied. Everything was read again, and every node has a full timeout. Nodes \
             that it does not know are answered 404, and get the subnets that they hold when they register; for {} s \
             no other subnet is leased",
            begun.hold.as_secs()
        );
        Ok(())
    }
}
