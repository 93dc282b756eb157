//! What every database has to have before it is used: the tables, and the plan of the cluster.

use sqlx::AnyPool;
use sqlx::migrate::{MigrateError, Migrator};

use super::open::OpenError;
use super::{Dialect, StoreError, Transaction};
use crate::subnet_plan::SubnetPlan;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Makes the tables, or brings them up to date, and settles the plan. Returns the database's id.
/// `name` is what messages call the database.
pub(super) async fn prepare(
    pool: &AnyPool,
    dialect: Dialect,
    plan: &SubnetPlan,
    name: &str,
) -> Result<String, OpenError> {
    MIGRATIONS.run(pool).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            OpenError::store(name, error.into())
        }
        cause => OpenError::OtherVersion {
            database: name.to_owned(),
            cause,
        },
    })?;
    match settle_plan(pool, dialect, plan).await {
        Ok(Settled::Id(id)) => Ok(id),
        Ok(Settled::Other { cidr, prefix }) => Err(OpenError::OtherPlan {
            database: name.to_owned(),
            stored: format!("{cidr} divided into /{prefix} subnets"),
            given: plan.to_string(),
        }),
        Err(error) => Err(OpenError::store(name, error)),
    }
}

enum Settled {
    /// The database has the plan now; this is its id.
    Id(String),
    /// It holds leases, or reservations, of another plan.
    Other { cidr: String, prefix: i64 },
}

/// Stores the plan, or compares it with the stored one. Writes in any case: a database that
/// cannot be written is better found now than at the first registration.
async fn settle_plan(
    pool: &AnyPool,
    dialect: Dialect,
    plan: &SubnetPlan,
) -> Result<Settled, StoreError> {
    let (cidr, prefix) = (plan.cluster().to_string(), i64::from(plan.node_prefix()));
    let mut transaction = Transaction::writing(pool, dialect).await?;
    // The lock first: a replica that starts at the same time may have another plan.
    let stored: (String, i64, String) = sqlx::query_as(
        "INSERT INTO cluster (id, cluster_cidr, node_prefix, revision, database_id) \
         VALUES (1, $1, $2, 0, $3) \
         ON CONFLICT (id) DO UPDATE SET database_id = \
         CASE cluster.database_id WHEN '' THEN $3 ELSE cluster.database_id END \
         RETURNING cluster_cidr, node_prefix, database_id",
    )
    .bind(&cidr)
    .bind(prefix)
    .bind(uuid::Uuid::new_v4().to_string())
    .fetch_one(transaction.connection()?)
    .await?;
    let bound: i64 = sqlx::query_scalar(
        "SELECT (SELECT COUNT(*) FROM leases) + (SELECT COUNT(*) FROM reserved_ranges)",
    )
    .fetch_one(transaction.connection()?)
    .await?;
    let (stored_cidr, stored_prefix, id) = stored;
    if bound > 0 && (&stored_cidr, stored_prefix) != (&cidr, prefix) {
        transaction.roll_back().await?;
        return Ok(Settled::Other {
            cidr: stored_cidr,
            prefix: stored_prefix,
        });
    }
    sqlx::query("UPDATE cluster SET cluster_cidr = $1, node_prefix = $2 WHERE id = 1")
        .bind(&cidr)
        .bind(prefix)
        .execute(transaction.connection()?)
        .await?;
    transaction.commit().await?;
    Ok(Settled::Id(id))
}
