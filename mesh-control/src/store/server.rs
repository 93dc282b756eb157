//! A database on a PostgreSQL server, shared with other control planes.

use std::str::FromStr as _;
use std::time::Duration;

use mesh_rest::overlay::Overlay;
use sqlx::ConnectOptions as _;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};

use super::change::CHANGED_CHANNEL;
use super::open::OpenError;
use super::{Dialect, Home, Store, StoreError, schema};
use crate::cluster::subnet_plan::SubnetPlan;

/// How long a request waits for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For the writer, and readers beside it.
const MOST_CONNECTIONS: u32 = 4;

/// What every connection sets. A statement that hangs ends before the request that waits for it; and
/// a control plane that is stopped in the middle of a transaction does not keep the lock from the others.
const SETTINGS: &str = "SET statement_timeout = '5s'; SET lock_timeout = '5s'; \
                        SET idle_in_transaction_session_timeout = '5s'";

/// On which replicas tell each other which heartbeats they received.
const BEATS_CHANNEL: &str = "quilt_mesh_beats";

/// A payload has to be shorter than 8000 bytes (PostgreSQL's manual, NOTIFY).
pub(crate) const LONGEST_PAYLOAD: usize = 7999;

/// How to reach the server.
#[derive(Debug)]
pub(super) struct Address {
    options: Box<PgConnectOptions>,
}

impl Store {
    /// Opens the database at a `postgres://` URL and brings its schema up to date.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub async fn connect(
        url: &str,
        plan: &SubnetPlan,
        overlay: Overlay,
    ) -> Result<Self, OpenError> {
        sqlx::any::install_default_drivers();
        let wrong = |error: sqlx::Error| OpenError::Url(error.to_string());
        let options = PgConnectOptions::from_str(url).map_err(wrong)?;
        let name = format!(
            "{} on {}:{}",
            options.get_database().unwrap_or(options.get_username()),
            options.get_host(),
            options.get_port()
        );
        // Whatever there is to say against the server is said here: a pool only runs into its timeout.
        let first = tokio::time::timeout(CONNECT_TIMEOUT, options.connect())
            .await
            .map_err(|_| StoreError::Unreachable("no answer in time".to_owned()))
            .and_then(|connected| connected.map_err(StoreError::from))
            .map_err(|cause| OpenError::store(&name, cause))?;
        // Only the pool's connections are of use from here on.
        drop(first);
        let pool = AnyPoolOptions::new()
            .max_connections(MOST_CONNECTIONS)
            .acquire_timeout(CONNECT_TIMEOUT)
            .after_connect(|connection, _| {
                Box::pin(async move { sqlx::raw_sql(SETTINGS).execute(connection).await.map(drop) })
            })
            .connect_with(AnyConnectOptions::from_str(url).map_err(wrong)?)
            .await
            .map_err(|error| OpenError::store(&name, error.into()))?;
        match schema::prepare(&pool, Dialect::Postgres, (plan, overlay), &name).await {
            Ok(database) => Ok(Self {
                pool,
                home: Home::Server(Address {
                    options: Box::new(options),
                }),
                plan: *plan,
                overlay,
                name,
                database,
            }),
            Err(error) => {
                pool.close().await;
                Err(error)
            }
        }
    }

    /// Starts to listen to the other replicas. `None`: there are none, the database is a file.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the server does not answer.
    pub async fn listen(&self) -> Result<Option<Listener>, StoreError> {
        let Home::Server(address) = &self.home else {
            return Ok(None);
        };
        // A pool of its own, because sqlx's listener takes no connection of an `Any` pool.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT_TIMEOUT)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_with((*address.options).clone())
            .await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        // Whoever reconnects has to read everything anew first, and is told so by the end of this one.
        listener.eager_reconnect(false);
        listener
            .listen_all([CHANGED_CHANNEL, BEATS_CHANNEL])
            .await?;
        Ok(Some(Listener(listener)))
    }

    /// Tells all replicas, this one included, which heartbeats were received.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the server does not answer; then nobody was told.
    pub async fn tell_beats(&self, payload: &str) -> Result<(), StoreError> {
        sqlx::query("SELECT pg_notify($1, $2)")
            .bind(BEATS_CHANNEL)
            .bind(payload)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// What replicas tell each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// There is a new revision.
    Changed,
    /// Heartbeats were received; the payload of [`Store::tell_beats`].
    Beats(String),
}

/// Listens to the other replicas, on a connection of its own.
pub struct Listener(PgListener);

impl Listener {
    /// The next message, in the order in which they were committed. `None`: the connection is lost,
    /// and messages may be.
    pub async fn next(&mut self) -> Option<Message> {
        let notification = self.0.try_recv().await.ok()??;
        Some(if notification.channel() == BEATS_CHANNEL {
            Message::Beats(notification.payload().to_owned())
        } else {
            Message::Changed
        })
    }
}
