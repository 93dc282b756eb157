//! A control plane in this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_control::access::Access;
use mesh_control::access::credentials::{NodeCredential, OperatorCredential};
use mesh_control::access::known::Known;
use mesh_control::access::names::Names;
use mesh_control::cluster::settings::Settings;
use mesh_control::cluster::subnet_plan::SubnetPlan;
use mesh_control::http::tls::Tls;
use mesh_control::http::{Site, accept};
use mesh_control::registry::Registry;
use mesh_control::store::Store;
use mesh_credentials::authority::{Authority, Request};
use mesh_credentials::name::MeshId;
use mesh_credentials::node_key_pair::NodeKeyPair;
use mesh_credentials::operator_token::OperatorToken;
use mesh_credentials::secret::Secret;
use mesh_credentials::trust::Trust;
use mesh_rest::operator::Role;
use mesh_rest::overlay::Overlay;
use mesh_rest::security::Stage;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// It serves until it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) known: Arc<Known>,
    pub(super) authority: Authority,
    pub(super) tls: Arc<Tls>,
    pub(super) site: Arc<Site>,
    pub(super) folder: TempDir,
    clock: Arc<AtomicI64>,
    stop: CancellationToken,
    _serving: Vec<JoinHandle<()>>,
}

/// What a node shows.
#[derive(Clone)]
pub(super) struct NodeIdentity {
    pub(super) node_id: String,
    pub(super) certificate: String,
    pub(super) key: String,
}

impl NodeIdentity {
    pub(super) fn pem(&self) -> (&str, &str) {
        (&self.certificate, &self.key)
    }
}

pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs().try_into().unwrap()
}

impl Server {
    /// On loopback.
    pub(super) async fn start(stage: Stage) -> Self {
        Self::start_at("127.0.0.1:0", stage, false).await
    }

    pub(super) async fn start_at(bind: &str, stage: Stage, insecure: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let plan = SubnetPlan::new("10.42.0.0/16".parse().unwrap(), 24).unwrap();
        let settings = Settings {
            overlay: Overlay::default(),
            node_timeout: Duration::from_secs(600),
        };
        let store = Store::open(&folder.path().join("control.db"), &plan, settings).await;
        let stop = CancellationToken::new();
        let node_timeout = settings.node_timeout;
        let registry = Registry::open(store.unwrap(), plan, node_timeout, stop.clone());
        let registry = registry.await.unwrap();
        let authority = Authority::make(MeshId::make(), now()).unwrap();
        let tls = Arc::new(Tls::new().unwrap());
        let shown = authority.sign_control_plane(&[], &[], now()).unwrap();
        tls.show_mesh(&shown, authority.trusted()).unwrap();
        tls.trust(Trust::new(vec![authority.trusted().clone()]).unwrap());
        let known = Arc::new(Known::new(stage));
        let clock = Arc::new(AtomicI64::new(now()));
        let time = Arc::clone(&clock);
        let access = Access::new(
            Arc::clone(&known) as Arc<_>,
            insecure,
            Names::new("control", &[]),
        );
        let access = access.with_clock(move || time.load(Ordering::Relaxed));
        let listener = accept::listen(bind.parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let site = Site::new(
            Arc::clone(&registry),
            Arc::new(access),
            Arc::clone(&tls),
            stop.clone(),
        );
        let site = Arc::new(site);
        let serving = vec![
            tokio::spawn(Arc::clone(&registry).publish_news(stop.clone())),
            tokio::spawn(accept::serve(
                listener,
                Arc::clone(&site),
                Duration::from_secs(5),
            )),
        ];
        Self {
            address,
            known,
            authority,
            tls,
            site,
            folder,
            clock,
            stop,
            _serving: serving,
        }
    }

    /// A node with a certificate that was made so many seconds from now.
    pub(super) fn node(&self, node_id: &str, from_now: i64) -> NodeIdentity {
        let key = NodeKeyPair::make().unwrap();
        let request = Request::read(&key.request().unwrap()).unwrap();
        let digest = request.key;
        let signed = self
            .authority
            .sign_node(&request, node_id, now() + from_now);
        let credential = NodeCredential {
            key: digest,
            revoked: false,
        };
        self.known.set_node(node_id, Some(credential));
        NodeIdentity {
            node_id: node_id.to_owned(),
            certificate: signed.unwrap(),
            key: key.pem().to_owned(),
        }
    }

    pub(super) fn revoke(&self, node_id: &str) {
        use mesh_control::access::credentials::Credentials as _;
        let credential = self.known.node(node_id).unwrap();
        let revoked = NodeCredential {
            revoked: true,
            ..credential
        };
        self.known.set_node(node_id, Some(revoked));
    }

    /// The header of an operator.
    pub(super) fn operator(&self, id: &str, role: Role, revoked: bool) -> String {
        let token = OperatorToken {
            id: id.to_owned(),
            secret: Secret::make().unwrap(),
        };
        let credential = OperatorCredential {
            digest: token.secret.digest(),
            role,
            name: id.to_owned(),
            revoked,
        };
        self.known.set_operator(id, credential);
        format!("Authorization: Bearer {token}\r\n")
    }

    pub(super) fn set_clock(&self, from_now: i64) {
        self.clock.store(now() + from_now, Ordering::Relaxed);
    }

    pub(super) fn trust(&self) -> Trust {
        Trust::new(vec![self.authority.trusted().clone()]).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
