//! The process: from options to a served API, and back down in order.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mesh_metrics::Opened;
use mesh_rest::security::Stage;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::gethostname;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::access::Access;
use crate::access::credentials::Credentials;
use crate::access::names::Names;
use crate::cluster::settings::Settings;
use crate::cluster::subnet_plan::SubnetPlan;
use crate::credentials::key_file;
use crate::credentials::key_file_watch;
use crate::credentials::shown::Shown;
use crate::credentials::signer_of_before;
use crate::heap;
use crate::http::admin_socket::{self, AdminSocket};
use crate::http::tls::Tls;
use crate::http::{Site, accept};
use crate::measured::Measured;
use crate::options::{DEFAULT_DB_PATH, Database, Options};
use crate::registry::Registry;
use crate::store::Store;

/// Where metrics are served on loopback unless told otherwise.
const METRICS_PORT: u16 = 9473;

/// How long the last writes may take; the databases themselves wait 5 s for a lock.
const CLOSE_DEADLINE: Duration = Duration::from_secs(15);

/// Runs the control plane until SIGTERM or SIGINT.
///
/// # Errors
///
/// Why it could not start, in words for the operator.
pub async fn run(options: Options) -> anyhow::Result<()> {
    // First, so that a stop during a slow start is not lost.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;

    let plan = SubnetPlan::new(options.cluster_cidr, options.node_prefix)
        .context("--cluster-cidr and --node-prefix do not fit")?;
    raise_file_limit();
    let metrics = options.metrics.door(METRICS_PORT)?;
    // The database first: a second control plane on a file is told so, rather than that its port is taken.
    let store = open(&options.database(), &plan, options.settings()).await?;
    let database = store.name().to_owned();
    let listener = accept::listen(options.bind)
        .with_context(|| format!("cannot listen on {} (see --bind)", options.bind))?;
    let address = listener
        .local_addr()
        .context("the listening socket has no address")?;
    let stop = CancellationToken::new();
    let registry = Registry::open(store, plan, options.node_timeout, stop.clone())
        .await
        .with_context(|| format!("cannot read the database {database}"))?;

    if options.insecure {
        registry.let_everybody_in();
    }
    check_database(&options, &registry)?;
    open_authority(&options, &registry).await?;
    if let Some(why) = registry.insecure() {
        warn!(name: "control-plane-not-secure", why, "this control plane is not secure");
    }
    let host = gethostname().context("cannot tell the name of this host")?;
    let host = host.to_string_lossy().into_owned();
    let tls = Arc::new(tls(&options)?);
    let mut shown = Shown::new(
        &host,
        &options.allowed_host,
        options.bind.ip(),
        Arc::clone(&tls),
    );
    shown.update(&registry);
    let names = Names::new(&host, &options.allowed_host);
    let known = Arc::clone(&registry) as Arc<dyn Credentials>;
    let access = Arc::new(Access::new(known, options.insecure, names));
    let files = Arc::clone(&tls).follow_files(stop.clone());
    let measured = Measured::of(&registry, &access, &tls);
    let site = Arc::new(Site::new(Arc::clone(&registry), access, tls, stop.clone()));
    let metrics = match metrics {
        Some(door) => Some(door.open().await?),
        None => None,
    };
    // Before anybody is told that this control plane serves. Without one everything else goes on.
    let admin_socket = AdminSocket::bind(&options.admin_socket());

    let tasks = TaskTracker::new();
    let mut silent = tasks.spawn(Arc::clone(&registry).turn_down_silent_nodes(stop.clone()));
    let mut writer = tasks.spawn(Arc::clone(&registry).write_what_changed(stop.clone()));
    let mut reporter = tasks.spawn(Arc::clone(&registry).write_reports(stop.clone()));
    let mut follower = tasks.spawn(Arc::clone(&registry).follow_replicas(stop.clone()));
    let mut teller = tasks.spawn(Arc::clone(&registry).tell_replicas(stop.clone()));
    let mut publisher = tasks.spawn(Arc::clone(&registry).publish_news(stop.clone()));
    let mut releaser =
        tasks.spawn(Arc::clone(&registry).release_in_time(options.release_after, stop.clone()));
    let mut auditor =
        tasks.spawn(Arc::clone(&registry).write_audit(options.audit_days, stop.clone()));
    let mut knower = tasks.spawn(Arc::clone(&registry).keep_credentials_known(stop.clone()));
    let mut shower = tasks.spawn(shown.follow(Arc::clone(&registry), stop.clone()));
    let mut files = tasks.spawn(files);
    let mut watcher = tasks.spawn(key_file_watch::follow(Arc::clone(&registry), stop.clone()));
    let mut signer = tasks.spawn(signer_of_before::follow(
        Arc::clone(&registry),
        stop.clone(),
    ));
    let mut heap = tasks.spawn(heap::give_back(stop.clone()));
    let mut admin = tasks.spawn(admin_socket::keep(
        options.admin_socket(),
        admin_socket,
        Arc::clone(&site),
        options.shutdown_timeout,
    ));
    let mut server = tasks.spawn(accept::serve(
        listener,
        Arc::clone(&site),
        options.shutdown_timeout,
    ));
    let serving = serve_metrics(metrics, measured, stop.clone());
    let mut metrics = tasks.spawn(serving);
    tasks.close();
    info!(name: "listening",
        %address,
        database,
        cluster_cidr = %plan.cluster(),
        subnets = plan.count(),
        node_timeout_ms = options.node_timeout.as_millis(),
        "listening"
    );

    // None of the tasks ends before it is told to, unless it has a bug; then the process ends, and
    // whoever supervises it starts a whole one.
    let fault = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = &mut silent => Some(("the watch over silent nodes", ended)),
        ended = &mut writer => Some(("the writer of heartbeats", ended)),
        ended = &mut reporter => Some(("the writer of reports", ended)),
        ended = &mut follower => Some(("the follower of the other replicas", ended)),
        ended = &mut teller => Some(("the teller of heartbeats", ended)),
        ended = &mut publisher => Some(("the change feed", ended)),
        ended = &mut releaser => Some(("the release of subnets", ended)),
        ended = &mut auditor => Some(("the writer of the audit", ended)),
        ended = &mut knower => Some(("the reader of credentials", ended)),
        ended = &mut shower => Some(("the care for certificates", ended)),
        ended = &mut watcher => Some(("the care for the authority's file", ended)),
        ended = &mut signer => Some(("the care for the authority that signs", ended)),
        ended = &mut files => Some(("the care for certificates of one's own", ended)),
        ended = &mut admin => Some(("the admin socket", ended)),
        ended = &mut heap => Some(("the watch over the heap", ended)),
        ended = &mut server => Some(("the server", ended)),
        ended = &mut metrics => Some(("the metrics' server", ended)),
    };
    info!(name: "stopping", "stopping");
    stop.cancel();
    // The server ends within its grace; a writer may hang on a disk that does not answer.
    if tokio::time::timeout(options.shutdown_timeout + CLOSE_DEADLINE, tasks.wait())
        .await
        .is_err()
    {
        bail!(
            "what holds the database {database} does not answer; stopped without its last heartbeats"
        );
    }
    match tokio::time::timeout(CLOSE_DEADLINE, registry.close()).await {
        Ok(Ok(())) => info!(name: "stopped", "stopped"),
        Ok(Err(error)) => {
            warn!(name: "stopped-last-heartbeats-could-not", %error, "stopped; the last heartbeats could not be written")
        }
        Err(_) => {
            warn!(name: "stopped-database-not-close-time", "stopped; the database did not close in time, the last heartbeats may be lost")
        }
    }
    if let Some((task, ended)) = fault {
        bail!("{task} ended by itself ({ended:?}); this is a bug");
    }
    Ok(())
}

/// Serves metrics until `stop`, if there is a port for that.
async fn serve_metrics(opened: Option<Opened>, measured: Measured, stop: CancellationToken) {
    match opened {
        Some(Opened::At(door, listener)) => {
            mesh_metrics::serve(door, listener, Arc::new(measured), stop).await;
        }
        Some(Opened::Taken(_)) | None => stop.cancelled().await,
    }
}

/// A cluster that asks for credentials does not keep them where anybody on the way can change them.
fn check_database(options: &Options, registry: &Registry) -> anyhow::Result<()> {
    let Some(why) = registry.store.unverified() else {
        return Ok(());
    };
    if registry.credentials.stage() == Stage::Secured && !options.insecure {
        bail!("{why}; or start with --insecure");
    }
    warn!(name: "database-unprotected",
        why,
        "whoever is between here and the database can change who may join and who may ask"
    );
    Ok(())
}

/// Takes up the certificate authority, or makes the first. Where there is none, and the cluster does not need it yet,
/// everything else goes on.
async fn open_authority(options: &Options, registry: &Registry) -> anyhow::Result<()> {
    let directory = options.state_dir();
    if Some(directory.as_path()) == Path::new(DEFAULT_DB_PATH).parent() {
        // As for the database: only the default's is made. Who may not hears of it next.
        let _ = std::fs::create_dir_all(&directory);
    }
    let file = key_file::take_up(&directory);
    if registry.mark.keep_in(&directory) {
        registry.credentials.there_were_some();
    } else if registry.credentials.any() {
        registry.mark.make();
    }
    let opened = match options.new_authority {
        true => registry.replace_lost_authority(&file).await,
        false => registry.open_authorities(&file).await,
    };
    let Err(error) = opened else { return Ok(()) };
    let is_needed = registry.credentials.stage() == Stage::Secured && registry.credentials.any();
    if is_needed || options.new_authority {
        return Err(error.into());
    }
    warn!(name: "no-certificate-authority", %error, "there is no certificate authority: no host can join, and TLS is not spoken");
    Ok(())
}

/// What connections over TLS are shown.
fn tls(options: &Options) -> anyhow::Result<Tls> {
    let tls = Tls::new().context("cannot set up TLS; this is a bug")?;
    let Some(files) = options.tls_files() else {
        return Ok(tls);
    };
    tls.with_own(files)
        .context("certificates of one's own cannot be used")
}

async fn open(database: &Database, plan: &SubnetPlan, settings: Settings) -> anyhow::Result<Store> {
    let path = match database {
        Database::File(path) => path,
        Database::Server(url) => return Ok(Store::connect(url, plan, settings).await?),
    };
    if path == Path::new(DEFAULT_DB_PATH)
        && let Some(directory) = path.parent()
    {
        std::fs::create_dir_all(directory).with_context(|| {
            format!(
                "cannot create {}; give a --db-path that this user can write",
                directory.display()
            )
        })?;
    }
    Ok(Store::open(path, plan, settings).await?)
}

/// Every agent's connections take a descriptor each, and the usual soft limit is 1024, kept low only for
/// programs that use `select`.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!(name: "limit-open-files-stays-bounds", %error, "the limit of open files stays as it was, and bounds how many agents can be served");
    }
}
