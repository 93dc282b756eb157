//! One fault as it happens: what it was done to, when, and when it was put right.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use mesh_testbed::{Daemon, Deadline, Host, NetNs, Signal};

use crate::{
    mesh::Mesh,
    pace::Pace,
    state::{difference, summary},
    traffic::Traffic,
};

/// How long a repair of the kernel's state may take before the fault counts as not repaired.
const REPAIR_PATIENCE: Duration = Duration::from_secs(15);
/// How often the kernel's state is looked at while it is being repaired.
const REPAIR_LOOK: Duration = Duration::from_millis(1);

/// The mesh, the traffic through it, and what has happened so far.
pub(crate) struct Scene {
    pub(crate) mesh: Mesh,
    pub(crate) traffic: Traffic,
    pub(crate) strikes: Vec<Strike>,
    /// What is worth a word in the report.
    pub(crate) notes: Vec<String>,
    pub(crate) settings: Settings,
}

/// What the user chose.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How often damage is done in a row.
    pub(crate) repeat: u32,
    /// How long a daemon is stopped by SIGSTOP.
    pub(crate) pause: Duration,
    /// What random choices begin with.
    pub(crate) seed: u64,
    /// How many faults are drawn at random.
    pub(crate) random: u32,
    /// How much slower than a machine all of it goes.
    pub(crate) pace: Pace,
    /// Where another build of the daemons is.
    pub(crate) upgrade_from: Option<PathBuf>,
}

/// One blow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strike {
    /// When it began.
    pub(crate) at: Instant,
    /// From when on recovery counts: the blow itself, or when its cause was removed.
    pub(crate) from: Instant,
    /// How long the kernel's state was wrong.
    pub(crate) repair: Option<Repair>,
}

/// A repair of the kernel's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// Of something whose change the kernel announces.
    Announced(Duration),
    /// Of something that only a look finds: programs, pins, entries of maps.
    Found(Duration),
}

impl Repair {
    pub(crate) fn time(self) -> Duration {
        match self {
            Self::Announced(time) | Self::Found(time) => time,
        }
    }
}

impl Settings {
    /// What matters to a soak test.
    pub(crate) fn for_soak(seed: u64) -> Self {
        Self {
            repeat: 1,
            pause: Duration::ZERO,
            seed,
            random: 0,
            pace: Pace::REAL,
            upgrade_from: None,
        }
    }
}

impl Scene {
    /// Before anything has happened.
    pub(crate) fn new(mesh: Mesh, traffic: Traffic, settings: Settings) -> Self {
        Self {
            mesh,
            traffic,
            strikes: Vec::new(),
            notes: Vec::new(),
            settings,
        }
    }

    /// The host that things happen to.
    pub(crate) fn victim(&self) -> &Host {
        self.mesh.victim()
    }

    /// From here on recovery counts.
    pub(crate) fn strike(&mut self) {
        let now = Instant::now();
        self.mesh.watches[0].arm();
        self.strikes.push(Strike {
            at: now,
            from: now,
            repair: None,
        });
    }

    /// The cause is gone: recovery counts from now on.
    pub(crate) fn cause_removed(&mut self) {
        if let Some(strike) = self.strikes.last_mut() {
            strike.from = Instant::now();
        }
    }

    /// Runs a command on the victim.
    pub(crate) fn run(&self, line: &str) -> anyhow::Result<()> {
        run_on(self.victim(), line)
    }

    /// Does damage to the victim's kernel state, waits until it is repaired, notes how long
    /// that took, and waits until traffic flows; as often as the settings say.
    pub(crate) async fn damage(&mut self, commands: &[&str]) -> anyhow::Result<()> {
        for _ in 0..self.settings.repeat {
            self.strike();
            for command in commands {
                self.run(command)?;
            }
            self.repaired(Instant::now()).await?;
            self.traffic.flowing(REPAIR_PATIENCE).await?;
        }
        Ok(())
    }

    /// Waits until the victim's kernel shows what it showed before, and notes how long it did
    /// not, from the kernel's first notification on; or, if the one who listens for it had to
    /// wait for its turn, from the moment at which the damage was `done` at the latest.
    async fn repaired(&mut self, done: Instant) -> anyhow::Result<()> {
        self.wait_repaired().await?;
        let whole = Instant::now();
        let deadline = Deadline::after(REPAIR_PATIENCE);
        let announced = loop {
            if let Some(announced) = self.mesh.watches[0].first() {
                break announced;
            }
            if deadline.pause().await.is_err() {
                bail!("the fault left no mark: nothing was to be repaired");
            }
        };
        let begin = announced.min(done);
        self.note_repair(Repair::Announced(whole.saturating_duration_since(begin)));
        Ok(())
    }

    /// The same for damage that the kernel does not announce. It has just been done by a command
    /// or call that fails where there is nothing to damage; so when no difference is seen, the
    /// runtime was quicker than the observer.
    pub(crate) async fn found_and_repaired(&mut self) -> anyhow::Result<()> {
        let damaged = Instant::now();
        self.wait_repaired().await?;
        self.note_repair(Repair::Found(damaged.elapsed()));
        Ok(())
    }

    /// Does damage while the runtime is stopped, so that it cannot be quicker than the damage,
    /// and notes how long the repair took once it goes on.
    pub(crate) async fn damage_unseen(&mut self, commands: &[&str]) -> anyhow::Result<()> {
        for _ in 0..self.settings.repeat {
            self.strike();
            self.victim().kill(Daemon::Runtime, Signal::SIGSTOP)?;
            let done = commands.iter().try_for_each(|command| self.run(command));
            self.victim().kill(Daemon::Runtime, Signal::SIGCONT)?;
            let begin = Instant::now();
            done?;
            self.cause_removed();
            self.wait_repaired().await?;
            self.note_repair(Repair::Announced(begin.elapsed()));
            self.traffic.flowing(REPAIR_PATIENCE).await?;
        }
        Ok(())
    }

    /// Waits until the victim's kernel shows what it showed before.
    async fn wait_repaired(&self) -> anyhow::Result<()> {
        let (wanted, observer) = (&self.mesh.baseline[0], &self.mesh.observers[0]);
        let deadline = Deadline::after(REPAIR_PATIENCE);
        loop {
            let seen = observer.observe().await?;
            if seen == *wanted {
                return Ok(());
            }
            if deadline.remaining().is_zero() {
                bail!(
                    "not repaired after {} s: {}",
                    REPAIR_PATIENCE.as_secs(),
                    summary(&difference(wanted, &seen))
                );
            }
            tokio::time::sleep(REPAIR_LOOK).await;
        }
    }

    /// Waits until traffic flows and everything is as it was.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        self.traffic.flowing(REPAIR_PATIENCE).await?;
        let leftovers = self.mesh.whole_within(REPAIR_PATIENCE).await?;
        if !leftovers.is_empty() {
            bail!("not as before: {}", summary(&leftovers));
        }
        Ok(())
    }

    /// Notes how long something was wrong after the last strike.
    pub(crate) fn note_repair(&mut self, repair: Repair) {
        if let Some(strike) = self.strikes.last_mut() {
            strike.repair = Some(repair);
        }
    }
}

/// Runs a command on a host to its end.
pub(crate) fn run_on(host: &Host, line: &str) -> anyhow::Result<()> {
    output_on(host, line).map(drop)
}

/// Runs a command line on a host and returns what it printed.
pub(crate) fn output_on(host: &Host, line: &str) -> anyhow::Result<String> {
    run_in(host.netns(), line)
}

/// Runs a command line in a namespace, in a shell, and returns what it printed.
pub(crate) fn run_in(namespace: &NetNs, line: &str) -> anyhow::Result<String> {
    let name = namespace.name();
    let output = namespace
        .command("/bin/sh")
        .args(["-c", line])
        // The system's folders, which a user's path often leaves out.
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .with_context(|| format!("cannot run `{line}` in {name}"))?;
    if !output.status.success() {
        bail!(
            "`{line}` in {name} {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
