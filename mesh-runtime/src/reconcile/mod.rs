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
mod new_ports;
mod port_watch;
mod probe;
mod registered;
mod schedule;
mod silent_containers;
mod state_writer;
mod views;
mod waiting;

use std::{io, time::Duration};

use mesh_ipam::Ipam;
use mesh_ticker::Ticker;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::command::Command,
    apply::Applier,
    desired::{Desired, desired, devices::is_own_bridge_mac},
    diff::{
        Settled,
        change::{Change, Stage},
        diff,
    },
    ebpf::{shown_generation, shown_holders},
    netlink::{Netlink, NetlinkError},
    observed::{
        Observed,
        containers::{far_ends, look_inside},
        dirty::{Dirty, Parts},
        events::Events,
        namespace_events::Changed,
        read::{Scope, observe},
    },
    options::RuntimeOptions,
    problem::Problem,
    settings::Settings,
    wanted::{
        Wanted,
        adopt::adopt,
        state::{Source, choose},
    },
};
use endpoints::forget_gone;
use fast_path::Progress;
pub(crate) use fast_path::{FastPathSlot, fast_path_options};
use firewall::Firewall;
use new_ports::NewPorts;
use port_watch::PortWatch;
use registered::Registered;
use schedule::Schedule;
use silent_containers::SilentContainers;
pub(crate) use state_writer::StateWriter;
use waiting::Waiting;

/// Readings in a row while the kernel keeps telling of changes.
const READINGS: usize = 8;

/// How often what the kernel tells nobody is compared.
const COMPARISON: Duration = Duration::from_secs(5);

/// After how many comparisons everything is compared, whatever the notifications said.
const FULL: u32 = 6;

/// The state behind the services.
pub(crate) struct Reconciler {
    options: RuntimeOptions,
    settings: Settings,
    netlink: Netlink,
    events: Events,
    comparison: Ticker,
    wanted: Wanted,
    observed: Observed,
    /// What the kernel is to show, as the last round had it.
    desired: Desired,
    /// The entries that are as they are to be.
    settled: Settled,
    problems: Vec<Problem>,
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
        Ok(Self {
            settings,
            options,
            netlink,
            events,
            comparison: Ticker::every(COMPARISON)?,
            wanted: Wanted::default(),
            observed: Observed::default(),
            desired: Desired::default(),
            settled: Settled::default(),
            problems: Vec::new(),
            outdated: Dirty::all(),
            unplanned: false,
            fast_path,
            firewall: Firewall::listen(),
            look_at_programs: false,
            waiting: Vec::new(),
            schedule: Schedule::default(),
            compare_maps_from: Instant::now(),
            state_writer,
            registered: Registered::new(addresses),
            silent_containers: SilentContainers::default(),
            new_ports: NewPorts::default(),
            port_watch: PortWatch::default(),
        })
    }

    /// Runs until `stop`. What the kernel shows then stays.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) {
        self.start().await;
        let mut comparisons = 0_u32;
        loop {
            let quiet_until = self.schedule.quiet_until();
            let retry_at = self.schedule.retry_at();
            let look_at = self.silent_containers.next();
            let write_at = self.state_writer.due();
            let firewall_at = self.firewall.due();
            let rules_changed = self.firewall.changed();
            let patience_ends = self.patience_ends();
            let left_free = &self.desired.containers.left_free;
            let occupy_at = self
                .new_ports
                .first_end(left_free)
                .map(|at| at.max(quiet_until));
            let port_look_at = self.port_watch.due();
            let compare_maps_from = self.compare_maps_from;
            let dropped = self.fast_path.dropped();
            tokio::select! {
                () = stop.cancelled() => break,
                command = commands.recv() => match command {
                    Some(command) => self.handle(command).await,
                    None => break,
                },
                () = async { self.events.changed().await; sleep_until(quiet_until).await } => {
                    self.round(Dirty::default()).await;
                }
                () = sleep_until(quiet_until), if self.unplanned => {
                    self.round(Dirty::default()).await;
                }
                () = self.comparison.tick() => {
                    self.registered.catch_up(&self.wanted).await;
                    self.firewall.look();
                    comparisons = comparisons.wrapping_add(1);
                    self.round(match comparisons % FULL {
                        0 => Dirty::all(),
                        _ => Dirty::from(Parts::UNTOLD) | self.containers_unheard(),
                    })
                    .await;
                }
                // By a peer's or container's entry that somebody has taken away.
                () = async {
                    match dropped {
                        Some(dropped) => dropped.notified().await,
                        None => std::future::pending().await,
                    }
                    sleep_until(compare_maps_from).await;
                } => self.compare_maps(),
                () = rules_changed.notified() => self.firewall.look(),
                () = sleep_until(firewall_at.unwrap_or(quiet_until)), if firewall_at.is_some() => {
                    self.firewall.begin();
                }
                outcome = self.firewall.done() => self.note_firewall(outcome),
                () = sleep_until(port_look_at.unwrap_or(quiet_until)), if port_look_at.is_some() => {
                    self.look_at_port();
                }
                found = self.port_watch.done() => self.note_port_look(found),
                () = sleep_until(patience_ends.unwrap_or(quiet_until)), if patience_ends.is_some() => {
                    self.answer_waiting();
                }
                () = sleep_until(retry_at.unwrap_or(quiet_until)), if retry_at.is_some() => {
                    self.round(Dirty::all()).await;
                }
                () = sleep_until(look_at.unwrap_or(quiet_until)), if look_at.is_some() => {
                    self.silent_containers.take(Instant::now());
                    self.round(Parts::CONTAINERS.into()).await;
                }
                () = sleep_until(occupy_at.unwrap_or(quiet_until)), if occupy_at.is_some() => {
                    self.round(Dirty::default()).await;
                }
                () = sleep_until(write_at.unwrap_or(quiet_until)), if write_at.is_some() => {
                    self.state_writer.begin(&self.wanted);
                }
                written = self.state_writer.written() => {
                    self.state_writer.settle(written, self.wanted.generation);
                }
                progress = self.fast_path.progress() => match progress {
                    Progress::Opened(opened) => {
                        self.fast_path.settle(opened, &self.options, &self.observed).await;
                        self.adopt_generation();
                        self.round(Dirty::default()).await;
                    }
                    Progress::Attached(done) => self.note_attached(*done),
                },
            }
        }
        self.state_writer.flush(&self.wanted).await;
        self.fast_path.finish().await;
        self.firewall.finish().await;
    }

    /// Takes over what an earlier run left, then makes the first round.
    async fn start(&mut self) {
        let found = self.state_writer.read().await;
        self.observed.holders = shown_holders(&self.options.bpffs);
        if let Err(error) = self.read(Dirty::all()).await {
            tracing::warn!(%error, "cannot read what an earlier run left in the kernel");
        }
        let kept = found.kept.clone().filter(|_| !found.behind);
        let (wanted, source) = choose(
            adopt(&self.settings, &self.observed),
            shown_generation(&self.options.bpffs),
            found,
        );
        self.wanted = wanted;
        if let Some(subnet) = self.wanted.subnet {
            tracing::info!(
                %subnet,
                peers = self.wanted.peers.len(),
                injected = self.wanted.injected.len(),
                from = match source {
                    Source::File => "the state directory",
                    Source::Kernel | Source::Nobody => "the kernel",
                },
                "took over what an earlier run left"
            );
            if let Err(refusal) = self.registered.serve(subnet).await {
                tracing::error!(reason = %refusal, "no addresses are leased until the node has their subnet again");
            }
        }
        if let Some(address) = self.options.host_address {
            self.wanted.host_address = Some(address);
        }
        self.fast_path.begin(&self.options);
        self.adopt_generation();
        // Also a mark that a kill left behind is taken away by writing.
        if kept.as_ref() != Some(&self.wanted) {
            self.state_writer.changed(self.wanted.generation);
        }
        self.round(Dirty::default()).await;
    }

    /// Reads the parts of the kernel's state that may be out of date.
    async fn read(&mut self, dirty: Dirty) -> Result<(), NetlinkError> {
        let mut dirty = dirty | std::mem::take(&mut self.outdated) | self.events.take();
        self.unplanned = true;
        // Until it has worked, nothing is known.
        self.outdated = Dirty::all();
        let mut all_containers = false;
        for _ in 0..READINGS {
            self.look_at_programs |= dirty.any(Parts::PROGRAMS);
            all_containers |= dirty.any(Parts::CONTAINERS);
            let previous = std::mem::take(&mut self.observed);
            // Not the kernel's to tell, so not lost where reading fails.
            self.observed.holders = previous.holders.clone();
            let scope = Scope {
                cluster: self.settings.cluster.cidr,
                bridge: &self.settings.bridge,
                overlay: &self.settings.overlay,
                peers: &self.wanted.peers,
                source: self.wanted.host_address,
                vxlan_port: self.wanted.node_settings.vxlan_port,
            };
            self.observed = observe(&self.netlink, previous, dirty, scope).await?;
            // What was told meanwhile belongs to the same change: a bridge that is deleted lets go of its ports
            // first, one after the other.
            dirty = self.events.take();
            if dirty.is_clean() {
                break;
            }
        }
        self.note_devices();
        if forget_gone(&mut self.wanted, &self.observed) {
            self.state_writer.changed(self.wanted.generation);
        }
        self.registered
            .show(&mut self.wanted, &self.observed, &self.settings.bridge);
        self.look_inside(all_containers).await?;
        self.registered.occupy(&self.wanted, &self.observed);
        self.outdated = dirty;
        Ok(())
    }

    /// What the kernel has not told of, where it tells nothing of containers: their inside.
    fn containers_unheard(&self) -> Dirty {
        match self.events.hears_containers() {
            true => Dirty::default(),
            false => Parts::CONTAINERS.into(),
        }
    }

    /// Looks into the containers that are new, or of which the kernel has told something.
    async fn look_inside(&mut self, all: bool) -> Result<(), NetlinkError> {
        // Taken before looking, so that what changes meanwhile is looked at again.
        let changed = match self.events.take_namespaces() {
            _ if all => Changed::All,
            some => Changed::Only(some),
        };
        let far_ends = far_ends(&self.observed, &self.settings.bridge);
        let before = std::mem::take(&mut self.observed.containers);
        self.observed.containers = look_inside(&self.netlink, &far_ends, before, &changed).await?;
        if let Some(bridge) = self.observed.link_named(&self.settings.bridge) {
            let holders = &self.observed.holders;
            self.observed.holders =
                holders.after(&self.observed, bridge.index, &self.wanted.endpoints);
        }
        if !self.events.hears_containers() {
            let silent = self
                .observed
                .containers
                .iter()
                .filter(|(_, container)| container.is_silent())
                .map(|(&port, _)| port)
                .collect();
            self.silent_containers.seen(silent, Instant::now());
        }
        Ok(())
    }

    /// Remembers which bridge is ours, and whose neighbours are worth a look.
    fn note_devices(&mut self) {
        let bridge = self.observed.link_named(&self.settings.bridge);
        let overlay = self.observed.link_named(&self.settings.overlay);
        if let Some(bridge) = bridge
            && is_own_bridge_mac(&self.settings.cluster, bridge.mac)
            && self.wanted.own_bridge != Some(bridge.index)
        {
            self.wanted.own_bridge = Some(bridge.index);
            // At the start, nothing is wanted yet.
            if self.wanted.subnet.is_some() {
                self.state_writer.changed(self.wanted.generation);
            }
        }
        if let Some(bridge) = bridge
            && self.wanted.own_bridge == Some(bridge.index)
        {
            let ports = self.observed.ports_of(bridge.index);
            self.wanted.bridge_ports = ports.map(|port| port.index).collect();
        }
        self.events.watch_neighbours(
            bridge.map_or(0, |link| link.index),
            overlay.map_or(0, |link| link.index),
        );
    }

    /// Reads what may have changed and at least `dirty`, and makes the kernel and the fast
    /// path show what is wanted.
    async fn round(&mut self, dirty: Dirty) {
        let mut problems = match self.reconcile_kernel(dirty).await {
            Ok(failed) => {
                let mut problems = self.desired.problems.clone();
                problems.extend(failed);
                let anew = std::mem::take(&mut self.look_at_programs);
                problems.extend(self.show_fast_path(anew));
                self.show_firewall();
                problems.extend(self.unguarded());
                problems
            }
            Err(error) => {
                self.reconnect(&error);
                vec![Problem::Observe(error.to_string())]
            }
        };
        problems.extend(self.state_writer.problem());
        problems.extend(self.firewall_problems());
        problems.extend(self.swallowed_problem());
        self.note_problems(problems);
    }

    /// Makes the kernel's network show what is wanted, and says what it refused.
    async fn reconcile_kernel(&mut self, dirty: Dirty) -> Result<Vec<Problem>, NetlinkError> {
        self.read(dirty).await?;
        let changes = self.compare();
        self.unplanned = false;
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let failed = Applier::new(&self.netlink, &self.settings, &self.observed)
            .apply(&changes)
            .await;
        let of_devices = |change: &Change| change.stage() == Stage::Devices;
        if !failed.is_empty() {
            self.outdated = Dirty::all();
        } else if !changes.iter().any(of_devices) {
            let overlay = self.observed.link_named(&self.settings.overlay);
            if let Some(overlay) = overlay.map(|link| link.index) {
                for change in &changes {
                    self.observed.note(overlay, change);
                }
            }
        }
        if changes.iter().any(of_devices) {
            // The fast path needs the devices as they are now.
            self.read(Dirty::default()).await?;
            let left = self.compare();
            // Somebody may have changed something in between. What failed has its own pace.
            self.unplanned = !left.is_empty() && failed.is_empty();
        }
        Ok(failed)
    }

    /// Computes what the kernel is to show, and what has to be changed for it.
    fn compare(&mut self) -> Vec<Change> {
        self.observed.programs = self.fast_path.programs();
        self.note_new_ports();
        let before = &self.desired.entries;
        self.desired = desired(&self.settings, &self.wanted, &self.observed, Some(before));
        diff(
            &self.settings,
            &self.desired,
            &self.observed,
            &mut self.settled,
        )
    }

    /// Goes on from the generation that the fast path's maps show, so that a call from
    /// before this daemon's start cannot undo what a later one did.
    fn adopt_generation(&mut self) {
        if self.wanted.generation == 0
            && self.wanted.subnet.is_some()
            && let Some(generation) = self.fast_path.generation()
        {
            self.wanted.generation = generation;
        }
    }

    /// Opens the connections again after one broke.
    fn reconnect(&mut self, error: &NetlinkError) {
        if !matches!(error, NetlinkError::Closed)
            && !self.netlink.is_closed()
            && !self.events.is_closed()
        {
            return;
        }
        let connected = Netlink::connect().and_then(|netlink| {
            let events = Events::listen(netlink.port, self.settings.cluster.cidr)?;
            Ok((netlink, events))
        });
        match connected {
            Ok((netlink, events)) => {
                self.netlink = netlink;
                self.events = events;
            }
            Err(error) => tracing::warn!(%error, "cannot open a netlink connection"),
        }
    }

    /// Keeps what went wrong for the status, tells it once, and plans the next attempt.
    fn note_problems(&mut self, problems: Vec<Problem>) {
        for problem in &problems {
            if !self.problems.contains(problem) {
                tracing::warn!("{problem}");
            }
        }
        for problem in &self.problems {
            if !problems.contains(problem) {
                tracing::info!("no longer: {problem}");
            }
        }
        self.schedule
            .round_done(Instant::now(), problems.iter().any(Problem::may_pass));
        self.problems = problems;
        if self.events.is_closed() {
            self.reconnect(&NetlinkError::Closed);
        }
    }
}
