//! A database on a PostgreSQL server, shared with other control planes.

use std::net::IpAddr;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};

use super::beside::Beside;
use super::change::CHANGED_CHANNEL;
use super::open::OpenError;
use super::{Home, Store, StoreError};
use crate::cluster::settings::Settings;
use crate::cluster::subnet_plan::SubnetPlan;

/// How long a request waits for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a message may take from this replica to itself when it starts to listen.
const HEARING_DEADLINE: Duration = Duration::from_secs(5);

/// For the writer, and readers beside it.
const MOST_CONNECTIONS: u32 = 4;

/// What every connection sets. A statement that hangs ends before the request that waits for it; and
/// a control plane that is stopped in the middle of a transaction does not keep the lock from the others.
const SETTINGS: &str = "SET statement_timeout = '5s'; SET lock_timeout = '5s'; \
                        SET idle_in_transaction_session_timeout = '5s'";

/// Microseconds since 1970 at which the server was started.
pub(super) const SERVER_STARTED: &str =
    "CAST(extract(epoch FROM pg_postmaster_start_time()) * 1000000 AS BIGINT)";

/// On which replicas tell each other which heartbeats they received.
const BEATS_CHANNEL: &str = "quilt_mesh_beats";

/// A payload has to be shorter than 8000 bytes (PostgreSQL's manual, NOTIFY).
pub(crate) const LONGEST_PAYLOAD: usize = 7999;

/// How to reach the server.
#[derive(Debug)]
pub(super) struct Address {
    options: Box<PgConnectOptions>,
}

/// Why whoever stands between could pass for the server, and read and change what is stored; `None`: nobody can.
fn unverified(options: &PgConnectOptions) -> Option<String> {
    let host = options.get_host();
    let is_verified = matches!(
        options.get_ssl_mode(),
        PgSslMode::VerifyCa | PgSslMode::VerifyFull
    );
    let is_here = options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    if is_verified || is_here {
        return None;
    }
    Some(format!(
        "nothing proves that {host} is the PostgreSQL server that is meant: add \
         ?sslmode=verify-full&sslrootcert=FILE to --database-url, with the certificate of the authority that signed \
         the server's"
    ))
}

impl Store {
    /// Why whoever stands between here and the database could read and change what is stored; `None`: nobody can.
    #[must_use]
    pub fn unverified(&self) -> Option<String> {
        match &self.home {
            Home::File(_) => None,
            Home::Server(address) => unverified(&address.options),
        }
    }

    /// Opens the database at a `postgres://` URL and brings its schema up to date.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub async fn connect(
        url: &str,
        plan: &SubnetPlan,
        settings: Settings,
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
        let store = Self {
            beside: Beside::default(),
            pool,
            home: Home::Server(Address {
                options: Box::new(options),
            }),
            plan: *plan,
            settings,
            name,
        };
        // Before anything is written: replicas that do not hear each other are none.
        let heard = store.listen().await.map(drop);
        let heard = heard.map_err(|cause| OpenError::store(&store.name, cause));
        let prepared = match heard {
            Ok(()) => store.make_tables().await,
            deaf => deaf,
        };
        if let Err(error) = prepared {
            store.pool.close().await;
            return Err(error);
        }
        Ok(store)
    }

    /// Starts to listen to the other replicas, and makes sure that what is told is heard. `None`: there are none, the
    /// database is a file.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoMessages`], when it is not. Any other [`StoreError`], when the server does not
    /// answer.
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
        // This and what follows without a prepared statement, which a pooler would stumble over before it shows what it
        // lacks.
        let server = sqlx::raw_sql(AssertSqlSafe(format!("SELECT {SERVER_STARTED}")))
            .fetch_one(&mut listener)
            .await?
            .try_get(0)?;
        listener
            .listen_all([CHANGED_CHANNEL, BEATS_CHANNEL])
            .await?;
        let mut listener = Listener {
            listener,
            server: Server(server),
        };
        let heard = tokio::time::timeout(HEARING_DEADLINE, self.hear_itself(&mut listener));
        heard
            .await
            .unwrap_or(Err(StoreError::NoMessages(HEARING_DEADLINE)))?;
        Ok(Some(listener))
    }

    /// Waits for a message of its own. What came before it was told before anybody could rely on it.
    async fn hear_itself(&self, listener: &mut Listener) -> Result<(), StoreError> {
        let word = format!("{} hello", uuid::Uuid::new_v4().simple());
        sqlx::raw_sql(AssertSqlSafe(format!("NOTIFY {BEATS_CHANNEL}, '{word}'")))
            .execute(&self.pool)
            .await
            .map_err(|error| match error {
                // The message came here: a pooler gave this connection the one in the server that listens.
                sqlx::Error::Protocol(_) => StoreError::NoMessages(HEARING_DEADLINE),
                error => error.into(),
            })?;
        loop {
            match listener.next().await {
                Some(Message::Beats(payload)) if payload == word => return Ok(()),
                Some(_) => {}
                None => {
                    let why = "the connection for messages ended".to_owned();
                    return Err(StoreError::Unreachable(why));
                }
            }
        }
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

/// A server process, as long as it runs: one that was started again is another, and so is a standby that took over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server(pub(super) i64);

/// Listens to the other replicas, on a connection of its own.
pub struct Listener {
    listener: PgListener,
    server: Server,
}

impl Listener {
    /// Who it listens to.
    pub fn server(&self) -> Server {
        self.server
    }

    /// The next message, in the order in which they were committed. `None`: the connection is lost,
    /// and messages may be.
    pub async fn next(&mut self) -> Option<Message> {
        let notification = self.listener.try_recv().await.ok()??;
        Some(if notification.channel() == BEATS_CHANNEL {
            Message::Beats(notification.payload().to_owned())
        } else {
            Message::Changed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_elsewhere_has_to_prove_that_it_is_the_one_that_is_meant() {
        let is_trusted = |rest: &str| {
            let url = format!("postgres://user:password@{rest}");
            unverified(&PgConnectOptions::from_str(&url).unwrap()).is_none()
        };
        for rest in [
            "127.0.0.1/mesh",
            "127.8.0.1:15432/mesh",
            "localhost/mesh",
            "[::1]/mesh",
            "db.example/mesh?host=/run/postgresql",
            "db.example/mesh?sslmode=verify-full",
            "192.0.2.7/mesh?sslmode=verify-ca",
        ] {
            assert!(is_trusted(rest), "{rest}");
        }
        for rest in [
            "192.0.2.7/mesh",
            "db.example/mesh",
            "db.example/mesh?sslmode=require",
            "localhost.example/mesh",
        ] {
            assert!(!is_trusted(rest), "{rest}");
        }
    }
}
