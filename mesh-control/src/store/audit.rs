//! Who did what, from where, as it is kept.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::AnyConnection;

use super::{CredentialChange, Store, StoreError, Transaction};

/// The most entries that are read at once.
const MOST_READ: i64 = 10_000;

/// Something that somebody did, or tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When, in Unix seconds.
    pub at: i64,
    /// Who: `node ID`, `operator NAME (ID)`, `admin`, `token ID`, `nobody`.
    pub who: String,
    /// From where: an address, or `admin socket`.
    pub source: String,
    /// What: `join`, `release`, and so on.
    pub action: String,
    /// On what.
    pub subject: String,
    /// `done`, or why not.
    pub outcome: String,
    /// How often it happened, where it is counted rather than repeated.
    pub times: i64,
}

impl Store {
    /// Keeps entries, each with its number.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; then none is kept.
    pub async fn keep_audit(&self, entries: &[(i64, AuditEntry)]) -> Result<(), StoreError> {
        let mut transaction = Transaction::writing(&self.pool, self.dialect()).await?;
        for (number, entry) in entries {
            insert(transaction.connection()?, *number, entry).await?;
        }
        transaction.commit().await
    }

    /// The latest entries, the latest first: those before a moment, and as many as asked for.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn audit(&self, before: i64, most: u32) -> Result<Vec<AuditEntry>, StoreError> {
        let _turn = self.beside.look().await;
        let mut transaction = Transaction::reading(&self.pool, self.dialect()).await?;
        let rows: Vec<(i64, String, String, String, String, String, i64)> = sqlx::query_as(
            "SELECT at, who, source, action, subject, outcome, times FROM audit WHERE at < $1 \
             ORDER BY at DESC, entry_id DESC, writer DESC LIMIT $2",
        )
        .bind(before)
        .bind(i64::from(most).min(MOST_READ))
        .fetch_all(transaction.connection()?)
        .await?;
        transaction.roll_back().await?;
        let entry = |(at, who, source, action, subject, outcome, times)| AuditEntry {
            at,
            who,
            source,
            action,
            subject,
            outcome,
            times,
        };
        Ok(rows.into_iter().map(entry).collect())
    }

    /// Forgets the entries before a moment.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn forget_audit(&self, before: i64) -> Result<u64, StoreError> {
        let mut transaction = Transaction::writing(&self.pool, self.dialect()).await?;
        let forgotten = sqlx::query("DELETE FROM audit WHERE at < $1")
            .bind(before)
            .execute(transaction.connection()?)
            .await?;
        transaction.commit().await?;
        Ok(forgotten.rows_affected())
    }
}

impl CredentialChange {
    /// Keeps an entry along with the change: either both are there, or neither.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn keep_audit(&mut self, entry: &AuditEntry) -> Result<(), StoreError> {
        insert(self.connection()?, number(), entry).await
    }
}

/// The number of an entry that is made now. Entries of one second are listed by it: those of one process in the order in which
/// they were made, and those of several as far as their clocks agree, for it is the time in microseconds since 1970, or one
/// more than the last.
pub(crate) fn number() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(0);
    let next = |last: i64| now.max(last.saturating_add(1));
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
        Some(next(last))
    });
    next(last.unwrap_or_else(|last| last))
}

/// This process, among those that write to the same database.
fn writer() -> &'static str {
    static WRITER: OnceLock<String> = OnceLock::new();
    WRITER.get_or_init(|| uuid::Uuid::new_v4().simple().to_string())
}

async fn insert(
    connection: &mut AnyConnection,
    number: i64,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit (at, writer, entry_id, who, source, action, subject, outcome, times) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(entry.at)
    .bind(writer())
    .bind(number)
    .bind(&entry.who)
    .bind(&entry.source)
    .bind(&entry.action)
    .bind(&entry.subject)
    .bind(&entry.outcome)
    .bind(entry.times)
    .execute(connection)
    .await?;
    Ok(())
}
