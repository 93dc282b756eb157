//! What the runtimes of a pair do while something changes on their hosts: with them alive, killed and stopped, their
//! programs in place, and on the kernel path.

#![allow(unused_macros, unused_imports, reason = "each test file uses its part")]

use mesh_testbed::{Daemon, DaemonOptions, NetNs, Signal, Testbed};

use super::{Pair, SOON};

/// What the runtimes do while things change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtimes {
    Alive,
    Killed,
    Stopped,
    /// Alive, and carrying nothing by programs.
    OnKernelPath,
}

impl Runtimes {
    pub(crate) async fn pair(self) -> Pair {
        self.pair_on(Testbed::builder().hosts(3).build().await.unwrap())
            .await
    }

    /// The same on hosts that the test has made and prepared.
    pub(crate) async fn pair_on(self, testbed: Testbed) -> Pair {
        let options = match self {
            Self::OnKernelPath => DaemonOptions::new().args(["--fast-path", "off"]),
            _ => DaemonOptions::new(),
        };
        let pair = Pair::start_on(testbed, &options, &options).await;
        if self != Self::OnKernelPath {
            pair.wait_fast().await;
        }
        for host in [pair.host_a(), pair.host_b()] {
            // Nobody here is told of better ways than those that a test makes.
            for interface in ["all", "eth0"] {
                for setting in ["send_redirects", "accept_redirects"] {
                    let key = format!("net/ipv4/conf/{interface}/{setting}");
                    host.netns().sysctl(&key, "0").unwrap();
                }
            }
        }
        pair
    }

    /// Lets them do it from now on.
    pub(crate) async fn begin(self, pair: &Pair) {
        for host in [pair.host_a(), pair.host_b()] {
            match self {
                Self::Alive | Self::OnKernelPath => {}
                Self::Killed => {
                    let dead = host.stop(Daemon::Runtime, Signal::SIGKILL, SOON);
                    dead.await.unwrap();
                }
                Self::Stopped => host.kill(Daemon::Runtime, Signal::SIGSTOP).unwrap(),
            }
        }
    }

    pub(crate) fn is_alive(self) -> bool {
        matches!(self, Self::Alive | Self::OnKernelPath)
    }
}

pub(crate) fn ip(namespace: &NetNs, words: &str) {
    let mut command = namespace.command("ip");
    let output = command.args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {output:?}");
}

/// What `ip` prints.
pub(crate) fn shown(namespace: &NetNs, words: &str) -> String {
    let mut command = namespace.command("ip");
    let output = command.args(words.split_whitespace()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The tests of what happens, one for each thing that the runtimes may do meanwhile.
macro_rules! whatever_the_runtimes_do {
    ($($what:ident => [$alive:ident, $killed:ident, $stopped:ident, $kernel:ident];)+) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $alive() {
            $what(Runtimes::Alive).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn $killed() {
            $what(Runtimes::Killed).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn $stopped() {
            $what(Runtimes::Stopped).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn $kernel() {
            $what(Runtimes::OnKernelPath).await;
        }
    )+};
}

pub(crate) use whatever_the_runtimes_do;
