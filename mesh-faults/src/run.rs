//! Does faults one after the other, each under traffic, and judges each.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::{
    fault::{Act, Fault},
    judge::{Evidence, Measured, judge},
    mesh::Mesh,
    scene::{Scene, Settings, run_on},
    traffic::{Fates, Traffic},
};

/// How long the mesh may take to be as it was before.
const WHOLE_PATIENCE: Duration = Duration::from_secs(20);
/// Traffic that goes on after all is well, to see that it stays so.
const AFTERWARDS: Duration = Duration::from_millis(300);
/// How long a TCP connection may take for the rest: its retransmission timer has doubled
/// while nothing got through (RFC 6298, section 5.5).
const TCP_PATIENCE: Duration = Duration::from_secs(30);

/// What became of a fault.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) measured: Measured,
    /// Parts of the promise that were broken; empty when it held.
    pub(crate) broken: Vec<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) seconds: f64,
}

impl Outcome {
    pub(crate) fn passed(&self) -> bool {
        self.broken.is_empty()
    }
}

/// The mesh that faults happen to; built when it is needed, and again after it was broken.
pub(crate) struct Stage {
    settings: Settings,
    mesh: Option<Mesh>,
}

impl Stage {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            mesh: None,
        }
    }

    /// Does one fault. An error that keeps it from happening counts as a broken promise.
    pub(crate) async fn perform(&mut self, fault: &Fault) -> Outcome {
        let started = Instant::now();
        let mut outcome = Outcome {
            measured: Measured::default(),
            broken: Vec::new(),
            notes: Vec::new(),
            seconds: 0.0,
        };
        if let Err(error) = self.try_perform(fault, &mut outcome).await {
            outcome.broken.push(format!("{error:#}"));
        }
        if !outcome.passed() {
            // Whatever is wrong with it is not the next fault's.
            self.mesh = None;
        }
        outcome.seconds = started.elapsed().as_secs_f64();
        outcome
    }

    async fn try_perform(&mut self, fault: &Fault, outcome: &mut Outcome) -> anyhow::Result<()> {
        let pace = self.settings.pace;
        let other_build = match fault.from_other_build {
            true => self.settings.upgrade_from.as_deref(),
            false => None,
        };
        let mesh = match self.mesh.take() {
            Some(mesh) if other_build.is_none() => mesh,
            _ => Mesh::build(other_build, pace)
                .await
                .context("cannot build a mesh")?,
        };
        for watch in &mesh.watches {
            watch.take_routes_removed()?;
        }
        for command in fault.prepared {
            run_on(mesh.victim(), command)?;
        }
        let traffic = Traffic::start(&mesh.containers, pace).await?;
        let mut scene = Scene::new(mesh, traffic, self.settings.clone());
        let acted = match fault.act {
            Act::Damage(commands) => scene.damage(commands).await,
            Act::Scene(act) => act(&mut scene).await,
        };
        let flowing = match &acted {
            Ok(()) => scene.traffic.flowing(pace.time(WHOLE_PATIENCE)).await,
            Err(_) => Ok(()),
        };
        let leftovers = match &acted {
            Ok(()) => scene.mesh.whole_within(pace.time(WHOLE_PATIENCE)).await?,
            Err(_) => scene.mesh.differences().await?,
        };
        tokio::time::sleep(AFTERWARDS).await;
        // What does not flow any more has failed already; nobody waits for its rest.
        let patience = match acted.is_ok() && flowing.is_ok() {
            true => pace.time(TCP_PATIENCE),
            false => Duration::from_secs(1),
        };
        let fates = scene.traffic.stop(patience).await?;
        for command in fault.put_away {
            run_on(scene.mesh.victim(), command)?;
        }
        if let (Ok(()), Some(shows)) = (&acted, fault.shows) {
            match shows(&fates) {
                Ok(note) => scene.notes.push(note),
                Err(missing) => outcome.broken.push(format!("it was not done: {missing}")),
            }
        }
        let routes_removed = routes_removed(&scene.mesh)?;
        let evidence = Evidence {
            strikes: &scene.strikes,
            fates: &fates,
            routes_removed: &routes_removed,
            leftovers: &leftovers,
        };
        let (measured, broken) = judge(&fault.promise, &evidence);
        outcome.measured = measured;
        outcome.notes = scene.notes;
        outcome.notes.extend(duplicates(&fates));
        outcome.broken.extend(
            [acted, flowing]
                .into_iter()
                .filter_map(Result::err)
                .map(|error| format!("{error:#}")),
        );
        outcome.broken.extend(broken);
        // A mesh that another build began has no credentials: the next fault's nodes could not join it.
        if other_build.is_none() {
            self.mesh = Some(scene.mesh);
        }
        Ok(())
    }
}

fn routes_removed(mesh: &Mesh) -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    for (host, watch) in mesh.hosts().iter().zip(&mesh.watches) {
        let routes = watch.take_routes_removed()?;
        removed.extend(
            routes
                .iter()
                .map(|route| format!("{route} on {}", host.name())),
        );
    }
    Ok(removed)
}

fn duplicates(fates: &Fates) -> Option<String> {
    let duplicates: u64 = fates.flows.iter().map(|flow| flow.duplicates).sum();
    (duplicates > 0).then(|| format!("{duplicates} packets arrived twice"))
}
