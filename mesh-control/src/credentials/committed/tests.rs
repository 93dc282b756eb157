use mesh_rest::operator::{CreateOperator, Role};
use mesh_rest::overlay::Overlay;
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;

use super::*;
use crate::access::mandate::Mandate;
use crate::cluster::settings::Settings;
use crate::cluster::subnet_plan::SubnetPlan;
use crate::credentials::audit::Doer;
use crate::store::Store;

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody may ask another program what is in the database.
struct Control {
    folder: TempDir,
    registry: Arc<Registry>,
    doer: Doer,
}

impl Control {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let plan = SubnetPlan::new("10.42.0.0/16".parse().unwrap(), 24).unwrap();
        let settings = Settings {
            overlay: Overlay::default(),
            node_timeout: Duration::from_secs(30),
        };
        let store = Store::open(&folder.path().join("control.db"), &plan, settings).await;
        let stop = CancellationToken::new();
        let registry = Registry::open(store.unwrap(), plan, settings.node_timeout, stop);
        Self {
            registry: registry.await.unwrap(),
            folder,
            doer: Doer {
                who: "admin".to_owned(),
                source: "admin socket".to_owned(),
                mandate: Mandate::own(),
            },
        }
    }

    async fn operator(&self, name: &str) -> String {
        let create = CreateOperator {
            name: name.to_owned(),
            role: Role::Operate,
            force: false,
        };
        let created = self.registry.create_operator(&create, &self.doer).await;
        created.unwrap().id
    }

    fn is_let_in(&self, operator: &str) -> bool {
        let state = self.registry.credentials.state();
        state.operators[operator].revoked_at.is_none()
    }

    async fn until_shut_out(&self, operator: &str) {
        let shut_out = async {
            while self.is_let_in(operator) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let shut_out = tokio::time::timeout(PATIENCE, shut_out).await;
        shut_out.expect("who is revoked in the database is let in");
    }

    async fn database(&self) -> SqliteConnection {
        let path = self.folder.path().join("control.db");
        SqliteConnection::connect(&format!("sqlite://{}", path.display()))
            .await
            .unwrap()
    }

    /// As another replica does.
    async fn revoke_unheard(&self, operator: &str) {
        let mut change = self.registry.store.begin_credentials().await.unwrap();
        assert!(change.revoke_operator(operator, 7).await.unwrap());
        change.finish().await.unwrap();
        assert!(self.is_let_in(operator));
    }
}

#[tokio::test]
async fn who_is_revoked_is_let_in_no_more_although_whoever_asked_for_it_hung_up() {
    let control = Control::new().await;
    let mut database = control.database().await;
    // Hung up later each time, until it was answered.
    for polls in 1.. {
        let operator = control.operator(&format!("operator {polls}")).await;
        let answered = {
            let mut revoked = Box::pin(control.registry.revoke_operator(&operator, &control.doer));
            let mut answered = false;
            for _ in 0..polls {
                answered = futures_util::poll!(&mut revoked).is_ready();
                if answered {
                    break;
                }
                // What was asked of the database is done by then, or is a poll later.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            answered
        };
        // Whatever goes on has ended by then.
        let turn = control.registry.turn.lock().await;
        let change = control.registry.store.begin_credentials().await.unwrap();
        change.roll_back().await.unwrap();
        drop(turn);
        let revoked: Option<i64> =
            sqlx::query_scalar("SELECT revoked_at FROM operators WHERE operator_id = $1")
                .bind(&operator)
                .fetch_one(&mut database)
                .await
                .unwrap();
        if revoked.is_some() {
            control.until_shut_out(&operator).await;
        }
        if answered {
            assert!(revoked.is_some());
            return;
        }
    }
}

#[tokio::test]
async fn what_is_stored_and_not_known_is_read_by_itself() {
    let control = Control::new().await;
    let operator = control.operator("ada").await;
    control.revoke_unheard(&operator).await;
    let stop = CancellationToken::new();
    let reader = Arc::clone(&control.registry).keep_credentials_known(stop.clone());
    let reader = tokio::spawn(reader);
    drop(Doubt(Some(&control.registry.credentials)));
    control.until_shut_out(&operator).await;
    stop.cancel();
    reader.await.unwrap();
}

#[tokio::test]
async fn a_change_needs_one_connection_also_where_somebody_else_has_changed_credentials() {
    let control = Control::new().await;
    let (ada, eve) = (control.operator("ada").await, control.operator("eve").await);
    control.revoke_unheard(&ada).await;
    let _others = control.registry.store.all_connections_but_one().await;
    let begun = control.registry.begin_credentials(&Mandate::own()).await;
    begun.unwrap().roll_back().await.unwrap();
    assert!(!control.is_let_in(&ada), "it is judged by what is stored");
    control.revoke_unheard(&eve).await;
    let mut change = control.registry.begin_change().await.unwrap();
    let known = control
        .registry
        .know_credentials(change.credentials_before());
    known.await.unwrap();
    assert!(!control.is_let_in(&eve));
}

#[tokio::test]
async fn whoever_looks_leaves_connections_for_changes() {
    let control = Control::new().await;
    let store = &control.registry.store;
    // More than an operator may ask for at a time, and none gets further than this.
    let mut looking: Vec<_> = (0..300)
        .map(|_| Box::pin(store.audit(i64::MAX, 10_000)))
        .collect();
    for look in &mut looking {
        assert!(futures_util::poll!(look.as_mut()).is_pending());
    }
    control.operator("ada").await;
}

#[tokio::test]
async fn whoever_looks_does_not_wait_for_a_change() {
    let control = Control::new().await;
    let mut other = control.database().await;
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    let security = control.registry.security(None).await.unwrap();
    assert!(!security.has_credentials);
}
