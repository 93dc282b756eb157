//! What every database has to have before it is used: the tables, and the plan of the cluster.

use sqlx::AnyPool;
use sqlx::migrate::{MigrateError, Migrator};
use tracing::warn;

use super::open::OpenError;
use super::{Dialect, StoreError, Transaction, history};
use crate::cluster::history::Mark;
use crate::cluster::settings::Settings;
use crate::cluster::subnet_plan::SubnetPlan;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Makes the tables, or brings them up to date, and settles plan and settings.
/// `name` is what messages call the database.
pub(super) async fn prepare(
    pool: &AnyPool,
    dialect: Dialect,
    (plan, settings): (&SubnetPlan, Settings),
    name: &str,
) -> Result<(), OpenError> {
    MIGRATIONS.run(pool).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            OpenError::store(name, error.into())
        }
        cause => OpenError::OtherVersion {
            database: name.to_owned(),
            cause,
        },
    })?;
    match settle(pool, dialect, plan, settings).await {
        Ok(Settled::Ours) => Ok(()),
        Ok(Settled::Other { cidr, prefix }) => Err(OpenError::OtherPlan {
            database: name.to_owned(),
            stored: format!("{cidr} divided into /{prefix} subnets"),
            given: plan.to_string(),
        }),
        Err(error) => Err(OpenError::store(name, error)),
    }
}

enum Settled {
    /// The database has plan and settings now.
    Ours,
    /// It holds leases, or reservations, of another plan.
    Other { cidr: String, prefix: i64 },
}

/// Stores the plan, or compares it with the stored one. The settings bind nothing that is stored: those of whoever
/// starts last hold, and a replica that runs with others finds out. Writes in any case: a database that
/// cannot be written is better found now than at the first registration.
async fn settle(
    pool: &AnyPool,
    dialect: Dialect,
    plan: &SubnetPlan,
    Settings {
        overlay,
        node_timeout,
    }: Settings,
) -> Result<Settled, StoreError> {
    let (cidr, prefix) = (plan.cluster().to_string(), i64::from(plan.node_prefix()));
    let (vxlan_port, vni) = (i64::from(overlay.vxlan_port), i64::from(overlay.vni));
    let node_timeout_ms = i64::try_from(node_timeout.as_millis()).unwrap_or(i64::MAX);
    let mut transaction = Transaction::writing(pool, dialect).await?;
    // The lock first: a replica that starts at the same time may have another plan.
    let stored: (String, i64, i64, i64, i64) = sqlx::query_as(
        "INSERT INTO cluster (id, cluster_cidr, node_prefix, revision, database_id, vxlan_port, vni, \
         node_timeout_ms, stage) VALUES (1, $1, $2, 0, $3, $4, $5, $6, 'secured') \
         ON CONFLICT (id) DO UPDATE SET database_id = \
         CASE cluster.database_id WHEN '' THEN $3 ELSE cluster.database_id END \
         RETURNING cluster_cidr, node_prefix, vxlan_port, vni, revision",
    )
    .bind(&cidr)
    .bind(prefix)
    .bind(uuid::Uuid::new_v4().to_string())
    .bind(vxlan_port)
    .bind(vni)
    .bind(node_timeout_ms)
    .fetch_one(transaction.connection()?)
    .await?;
    let bound: i64 = sqlx::query_scalar(
        "SELECT (SELECT COUNT(*) FROM leases) + (SELECT COUNT(*) FROM reserved_ranges)",
    )
    .fetch_one(transaction.connection()?)
    .await?;
    let (stored_cidr, stored_prefix, stored_port, stored_vni, stored_revision) = stored;
    if bound > 0 && (&stored_cidr, stored_prefix) != (&cidr, prefix) {
        transaction.roll_back().await?;
        return Ok(Settled::Other {
            cidr: stored_cidr,
            prefix: stored_prefix,
        });
    }
    // Once, by the first start that knows of credentials: who was there before goes on as before; and where nobody was,
    // nobody has to.
    sqlx::query(
        "UPDATE cluster SET credentials_revision = 1, stage = \
         CASE WHEN EXISTS (SELECT 1 FROM nodes) THEN stage ELSE 'secured' END WHERE credentials_revision = 0",
    )
    .execute(transaction.connection()?)
    .await?;
    // Other settings are news, so that nobody waits for some who has the old ones.
    let other_settings = (stored_port, stored_vni) != (vxlan_port, vni);
    sqlx::query(
        "UPDATE cluster SET cluster_cidr = $1, node_prefix = $2, vxlan_port = $3, vni = $4, \
         revision = revision + $5, node_timeout_ms = $6 WHERE id = 1",
    )
    .bind(&cidr)
    .bind(prefix)
    .bind(vxlan_port)
    .bind(vni)
    .bind(i64::from(other_settings))
    .bind(node_timeout_ms)
    .execute(transaction.connection()?)
    .await?;
    // What a control plane of an earlier version left has none.
    let revision = stored_revision + i64::from(other_settings);
    history::write_mark(&mut transaction, revision, Mark::random()).await?;
    transaction.commit().await?;
    if other_settings {
        warn!(name: "other-settings-than-before",
            stored_port,
            stored_vni,
            vxlan_port,
            vni,
            "other settings than before: nodes are told the new ones, and cannot reach each other until all have them"
        );
    }
    Ok(Settled::Ours)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::time::Duration;

    use mesh_rest::overlay::Overlay;

    use super::*;
    use crate::cluster::subnet_plan::parse_cidr;
    use crate::store::Store;

    fn settings(overlay: Overlay) -> Settings {
        Settings {
            overlay,
            node_timeout: Duration::from_secs(30),
        }
    }

    /// A database as the version before the settings left it, with one node.
    async fn older(path: &std::path::Path) {
        sqlx::any::install_default_drivers();
        let url = format!("sqlite:{}?mode=rwc", path.display());
        let pool = AnyPool::connect(&url).await.unwrap();
        let before = MIGRATIONS.iter().filter(|it| it.version < 5).cloned();
        let older = Migrator {
            migrations: Cow::Owned(before.collect()),
            ..Migrator::DEFAULT
        };
        older.run(&pool).await.unwrap();
        sqlx::raw_sql(
            "INSERT INTO cluster (id, cluster_cidr, node_prefix, revision, database_id) \
             VALUES (1, '10.42.0.0/16', 24, 7, 'd'); \
             INSERT INTO nodes VALUES ('n', 'k', 'alpha', '192.0.2.1', 4, 8192, 'up', 0, 1, 2, 7); \
             INSERT INTO leases VALUES (1, 'n', 1, NULL)",
        )
        .execute(&pool)
        .await
        .unwrap();
        pool.close().await;
    }

    #[tokio::test]
    async fn the_database_of_an_earlier_version_has_the_settings_of_old_and_no_mtu() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.db");
        older(&path).await;
        let plan = SubnetPlan::new(parse_cidr("10.42.0.0/16").unwrap(), 24).unwrap();
        let store = Store::open(&path, &plan, settings(Overlay::default()))
            .await
            .unwrap();
        let changes = store.changes_since(-1, None).await.unwrap();
        let found = (changes.position.revision, changes.settings.overlay);
        assert_eq!(found, (7, Overlay::default()));
        assert!(changes.position.mark.is_some());
        assert_eq!(changes.nodes[0].hostname, "alpha");
        assert_eq!(changes.nodes[0].overlay_mtu, None);
        store.close().await;
        drop(store);
        // Others are one more revision.
        let other = Overlay {
            vxlan_port: 8472,
            vni: 7,
        };
        let store = Store::open(&path, &plan, settings(other)).await.unwrap();
        let stood = changes.position;
        let changes = store.changes_since(7, Some(&stood)).await.unwrap();
        assert_eq!(
            (changes.position.revision, changes.settings.overlay),
            (8, other)
        );
        assert!(changes.position.mark.is_some());
        assert_eq!(changes.nodes, []);
    }
}
