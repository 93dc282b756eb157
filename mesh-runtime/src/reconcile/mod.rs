//! The one loop that owns the wanted state, the kernel's network state and the fast path.
//!
//! A round reads the kernel, computes what is missing, makes the changes, and shows the
//! result to the fast path. Calls, the kernel's notifications and the clock all lead to the
//! same round, so that every repair takes the one way.

mod answers;
mod calls;
mod endpoints;
mod fast_path;
mod firewall;
pub(crate) mod firewall_check;
mod forget;
mod measure;
pub(crate) mod monitor;
mod new_ports;
mod path;
mod port_watch;
mod probe;
mod probe_endpoint;
mod reading;
mod registered;
mod round;
mod schedule;
mod silent_containers;
mod start;
mod state_writer;
mod tally;
mod trace;
mod views;
mod waiting;

use std::{io, sync::Arc, time::Duration};

use mesh_ipam::Ipam;
use mesh_problems::Standing;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    api::command::Command,
    apply::firewall::Outcome,
    desired::Desired,
    diff::Settled,
    netlink::Netlink,
    observed::{
        Observed,
        dirty::{Dirty, Parts},
        events::Events,
    },
    options::RuntimeOptions,
    problem::Problem,
    settings::Settings,
    wanted::Wanted,
};
use fast_path::Progress;
pub(crate) use fast_path::{FastPathSlot, fast_path_options};
use firewall::Firewall;
use monitor::Monitors;
use new_ports::NewPorts;
use port_watch::PortWatch;
use probe_endpoint::ProbeEndpoint;
use registered::Registered;
use schedule::{Comparisons, Schedule, until};
use silent_containers::SilentContainers;
pub(crate) use state_writer::StateWriter;
use tally::Account;
pub(crate) use tally::Tally;
use waiting::Waiting;

/// How long the end waits for what is under way.
const LAST_WORDS: Duration = Duration::from_secs(4);

/// The state behind the services.
pub(crate) struct Reconciler {
    options: RuntimeOptions,
    settings: Settings,
    netlink: Netlink,
    events: Events,
    comparisons: Comparisons,
    wanted: Wanted,
    observed: Observed,
    /// What the kernel is to show, as the last round had it.
    desired: Desired,
    /// The entries that are as they are to be.
    settled: Settled,
    problems: Vec<Problem>,
    /// The same as operators are told of them, and since when.
    standing: Standing,
    /// Parts of `observed` that a change of our own has outdated.
    outdated: Dirty,
    /// Whether `observed` was read after the last plan: a reading takes the notifications
    /// along, so what they told is lost unless a round follows.
    unplanned: bool,
    fast_path: FastPathSlot,
    firewall: Firewall,
    /// Whether somebody may have detached a program.
    look_at_programs: bool,
    /// Who waits for programs that are being attached.
    waiting: Vec<Waiting>,
    schedule: Schedule,
    /// When the maps may be read again because of dropped packets.
    compare_maps_from: Instant,
    state_writer: StateWriter,
    registered: Registered,
    silent_containers: SilentContainers,
    new_ports: NewPorts,
    port_watch: PortWatch,
    monitors: Monitors,
    probe_endpoint: ProbeEndpoint,
    account: Account,
}

impl Reconciler {
    /// Connects to the kernel. The fast path is opened by [`run`](Self::run), unless it is
    /// handed over open.
    pub(crate) fn new(
        options: RuntimeOptions,
        fast_path: FastPathSlot,
        state_writer: StateWriter,
        addresses: Option<Ipam>,
    ) -> io::Result<Self> {
        let netlink = Netlink::connect()?;
        let settings = Settings::from(&options);
        let events = Events::listen(netlink.port, settings.cluster.cidr)?;
        let registered = Registered::new(addresses);
        Ok(Self {
            firewall: Firewall::listen(registered.publishes()),
            registered,
            settings,
            options,
            netlink,
            events,
            comparisons: Comparisons::from_now()?,
            wanted: Wanted::default(),
            observed: Observed::default(),
            desired: Desired::default(),
            settled: Settled::default(),
            problems: Vec::new(),
            standing: Standing::default(),
            outdated: Dirty::all(),
            unplanned: false,
            fast_path,
            look_at_programs: false,
            waiting: Vec::new(),
            schedule: Schedule::default(),
            compare_maps_from: Instant::now(),
            state_writer,
            silent_containers: SilentContainers::default(),
            new_ports: NewPorts::default(),
            port_watch: PortWatch::default(),
            monitors: Monitors::default(),
            probe_endpoint: ProbeEndpoint::default(),
            account: Account::default(),
        })
    }

    /// Runs until `stop`. What the kernel shows then stays.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) {
        self.start().await;
        loop {
            let quiet_until = self.schedule.quiet_until();
            let retry_at = self.schedule.retry_at();
            let look_at = self.silent_containers.next();
            let write_at = self.state_writer.due();
            let firewall_at = self.firewall.due();
            let rules_changed = self.firewall.changed();
            let patience_ends = self.patience_ends();
            // While the kernel cannot be read, no round gets that far.
            let unread = self
                .problems
                .iter()
                .any(|it| matches!(it, Problem::Observe(_)));
            let read_at = retry_at.filter(|_| unread).unwrap_or(quiet_until);
            let occupy_at = self.next_to_occupy().map(|at| at.max(read_at));
            let compare_maps_from = self.compare_maps_from;
            let dropped = self.fast_path.dropped();
            let (monitor_at, monitor_ended) = (self.monitors.due(), self.monitors.ended());
            tokio::select! {
                () = stop.cancelled() => break,
                command = commands.recv() => match command {
                    Some(command) => {
                        let synced = matches!(command, Command::SyncPeers { .. });
                        let before = synced.then(|| Arc::clone(&self.wanted.peers));
                        self.handle(command).await;
                        // After news the agent goes on with other calls, which need not wait for it.
                        let same = |before| Arc::ptr_eq(&before, &self.wanted.peers);
                        let no_news = before.is_some_and(same) && self.waiting.is_empty();
                        if no_news && self.comparisons.is_due_with_peers(Instant::now()) {
                            self.compare_untold().await;
                        }
                    }
                    None => break,
                },
                () = async { self.events.changed().await; until(Some(quiet_until)).await } => {
                    self.round(Dirty::default()).await;
                }
                () = until(Some(quiet_until)), if self.unplanned => {
                    self.round(Dirty::default()).await;
                }
                () = self.comparisons.due() => self.compare_untold().await,
                // By a peer's or container's entry that somebody has taken away.
                () = async {
                    until(Some(compare_maps_from)).await;
                    match dropped {
                        Some(dropped) => dropped.notified().await,
                        None => std::future::pending().await,
                    }
                } => self.compare_maps(),
                () = rules_changed.notified() => self.firewall.look(),
                () = until(firewall_at) => {
                    if self.firewall.begin() {
                        self.note_firewall(Ok(Outcome::InPlace));
                    }
                }
                outcome = self.firewall.done() => self.note_firewall(outcome),
                found = self.port_watch.done() => self.note_port_look(found),
                made = self.probe_endpoint.done() => self.note_probe_endpoint(made).await,
                () = until(patience_ends) => {
                    self.answer_waiting();
                }
                () = until(retry_at) => {
                    self.round(Dirty::all()).await;
                }
                () = until(look_at) => {
                    self.silent_containers.take(Instant::now());
                    self.round(Parts::CONTAINERS.into()).await;
                }
                () = until(occupy_at) => {
                    self.round(Dirty::default()).await;
                }
                () = until(monitor_at) => self.go_on_monitoring(),
                () = monitor_ended.notified() => self.go_on_monitoring(),
                () = until(write_at) => {
                    self.state_writer.begin(&self.wanted);
                }
                written = self.state_writer.written() => {
                    self.state_writer.settle(written, self.wanted.generation);
                }
                progress = self.fast_path.progress() => match progress {
                    Progress::Opened(opened) => self.note_opened(opened).await,
                    Progress::Attached(done) => self.note_attached(*done),
                },
            }
        }
        self.end_monitoring();
        let end = async {
            self.state_writer.flush(&self.wanted).await;
            self.occupy_all().await;
            self.fast_path.finish().await;
            self.firewall.finish().await;
        };
        if tokio::time::timeout(LAST_WORDS, end).await.is_err() {
            tracing::warn!(name: "what-was-under-way-abandoned",
                "a disk, nft or the kernel does not answer: what was under way is not waited for"
            );
        }
    }

    /// Compares what the kernel tells nobody, now and then everything, and does what else is done every few seconds.
    async fn compare_untold(&mut self) {
        self.registered.catch_up(&self.wanted).await;
        self.firewall.look();
        self.round(match self.comparisons.is_next_full() {
            true => Dirty::all(),
            false => Dirty::from(Parts::UNTOLD) | self.containers_unheard(),
        })
        .await;
        if self.port_watch.is_due() {
            self.look_at_port();
        }
        self.comparisons.done(Instant::now());
    }
}
