//! A wall clock of control planes' own, which a test steps while they run.

use mesh_testbed::stepped_clock;
pub(crate) use mesh_testbed::stepped_clock::machine_seconds;

use crate::process::Setup;

/// See the module. The clock is the machine's until it is stepped.
pub(crate) struct SteppedClock(stepped_clock::SteppedClock);

impl SteppedClock {
    pub(crate) fn new() -> Self {
        Self(stepped_clock::SteppedClock::new().unwrap())
    }

    /// Sets the clock to so many seconds from the machine's.
    pub(crate) fn step(&self, seconds: i64) {
        self.0.step(seconds).unwrap();
    }

    /// Control planes that have this clock.
    pub(crate) fn of(&self, setup: Setup) -> Setup {
        let environment = self.0.environment().into_iter();
        environment.fold(setup, |setup, (name, path)| {
            setup.with_environment(name, path.to_str().unwrap())
        })
    }
}
