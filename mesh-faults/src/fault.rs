//! What a fault is: a name, what breaks, what is promised, and how it is done.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use crate::{
    scene::{Scene, Settings},
    traffic::Fates,
};

/// One way in which an overlay breaks.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    /// What `--only` selects it by.
    pub(crate) name: &'static str,
    /// What happens, in one line.
    pub(crate) breaks: &'static str,
    /// What has to hold.
    pub(crate) promise: Promise,
    /// How it is done.
    pub(crate) act: Act,
    /// Whether it is part of the run in continuous integration.
    pub(crate) ci: bool,
    /// Whether it is over within seconds and leaves the mesh as it was, so that it can be
    /// drawn at random.
    pub(crate) quick: bool,
    /// Whether the mesh is to run another build of all daemons at first.
    pub(crate) from_other_build: bool,
    /// Whether it holds at any pace: nothing of its promise is a time.
    pub(crate) any_pace: bool,
    /// Commands on the first host before the traffic starts, for what would itself lose packets.
    pub(crate) prepared: &'static [&'static str],
    /// Commands that undo them, once the traffic has ended.
    pub(crate) put_away: &'static [&'static str],
    /// What the traffic shows of it, or why it cannot have been done.
    pub(crate) shows: Option<Mark>,
    /// Why this machine cannot do it; `None` when it can.
    pub(crate) lacking: Option<fn(&Settings) -> Option<String>>,
}

/// Reads in what became of the traffic a word for the report, or why nothing has happened to it.
pub(crate) type Mark = fn(&Fates) -> Result<String, String>;

/// How a fault is done.
#[derive(Clone, Copy)]
pub(crate) enum Act {
    /// Commands on the first host, after which its kernel has to be put right; several times
    /// over.
    Damage(&'static [&'static str]),
    /// Anything else.
    Scene(for<'a> fn(&'a mut Scene) -> LocalBoxFuture<'a, anyhow::Result<()>>),
}

/// What has to hold for a fault to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    /// Whose packets may be lost.
    pub(crate) loss: Loss,
    /// How long after the fault, or after its cause has been removed, the last packet may be
    /// lost.
    pub(crate) flowing_within: Duration,
    /// Whether every route of the mesh has to stay.
    pub(crate) keeps_routes: bool,
}

/// Whose packets may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Nobody's.
    None,
    /// Those from and to the first host, until it has recovered.
    Victim,
}

impl Promise {
    /// Nothing is lost, and no route is removed.
    pub(crate) const LOSSLESS: Self = Self {
        loss: Loss::None,
        flowing_within: Duration::ZERO,
        keeps_routes: true,
    };

    /// Only the victim's packets are lost, and none later than this.
    pub(crate) const fn recovers_within(milliseconds: u64) -> Self {
        Self {
            loss: Loss::Victim,
            flowing_within: Duration::from_millis(milliseconds),
            keeps_routes: false,
        }
    }

    /// Nothing is lost; routes may go and come back.
    pub(crate) const fn lossless_repair() -> Self {
        Self {
            keeps_routes: false,
            ..Self::LOSSLESS
        }
    }

    /// The promise in words, for the documentation.
    pub(crate) fn in_words(&self) -> String {
        let seconds = self.flowing_within.as_secs_f64();
        let loss = match self.loss {
            Loss::None => "no packet is lost".to_owned(),
            Loss::Victim => format!("flows again within {seconds} s; others lose nothing"),
        };
        match self.keeps_routes {
            true => loss + "; no route is removed",
            false => loss,
        }
    }
}

impl Fault {
    /// A quick fault made of commands on one host, part of continuous integration.
    pub(crate) const fn damage(
        name: &'static str,
        breaks: &'static str,
        promise: Promise,
        commands: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            breaks,
            promise,
            act: Act::Damage(commands),
            ci: true,
            quick: true,
            from_other_build: false,
            any_pace: false,
            prepared: &[],
            put_away: &[],
            shows: None,
            lacking: None,
        }
    }

    /// A fault with a course of its own.
    pub(crate) const fn scene(
        name: &'static str,
        breaks: &'static str,
        promise: Promise,
        act: for<'a> fn(&'a mut Scene) -> LocalBoxFuture<'a, anyhow::Result<()>>,
    ) -> Self {
        Self {
            name,
            breaks,
            promise,
            act: Act::Scene(act),
            ci: false,
            quick: false,
            from_other_build: false,
            any_pace: false,
            prepared: &[],
            put_away: &[],
            shows: None,
            lacking: None,
        }
    }

    /// Makes it part of continuous integration.
    pub(crate) const fn in_ci(mut self) -> Self {
        self.ci = true;
        self
    }

    /// Lets it be drawn at random.
    pub(crate) const fn quick(mut self) -> Self {
        self.quick = true;
        self
    }

    /// The command that repeats it.
    pub(crate) fn command(&self) -> String {
        format!("cargo xtask test faults --only {}", self.name)
    }
}
