//! The program `nft`, on which the rules depend: where there is none, and how often it is run.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mesh_proto::mesh::Peer;
use mesh_testbed::{DaemonOptions, Testbed, wait_until, write_script};

use crate::{
    inside::try_run,
    pair::{Pair, SOON, configure, sync_peers},
    rules::{reaches, settled},
    tables::own_rules,
};

/// A directory for PATH, removed with the value.
pub(crate) struct Programs(tempfile::TempDir);

impl Programs {
    fn none() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With an `nft` that writes down when it runs, and then is the true one.
    fn logged() -> Self {
        let programs = Self::none();
        let log = programs.log();
        programs.wrap(&format!("date +%s%N >> {}\nexec nft \"$@\"", log.display()))
    }

    /// With an `nft` that takes a second more than the true one, as on a busy host.
    pub(crate) fn slow() -> Self {
        Self::none().wrap("sleep 1\nexec nft \"$@\"")
    }

    /// With an `nft` that says what the kernel says without its module nft_masq, and is the true one
    /// about everything else.
    fn without_nat() -> Self {
        let programs = Self::none();
        let input = programs.path().join("input");
        programs.wrap(&format!(
            "cat > {0}\nif grep -q masquerade {0}; then\n\
             echo 'Error: Could not process rule: No such file or directory' >&2\nexit 1\nfi\n\
             exec nft -f {0}",
            input.display()
        ))
    }

    /// With an `nft` that waits while [`held`](Self::held) is there.
    pub(crate) fn holdable() -> Self {
        let programs = Self::none();
        let held = programs.held();
        programs.wrap(&format!(
            "while test -e {}; do sleep 0.1; done\nexec nft \"$@\"",
            held.display()
        ))
    }

    /// A file that has a [holdable](Self::holdable) `nft` wait.
    pub(crate) fn held(&self) -> PathBuf {
        self.path().join("held")
    }

    /// Has `nft` be a program that can be run, or not.
    pub(crate) fn allow(&self, run: bool) {
        let mode = if run { 0o755 } else { 0o600 };
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(self.path().join("nft"), permissions).unwrap();
    }

    /// With a script in the place of `nft`, that finds the true one.
    fn wrap(self, script: &str) -> Self {
        let programs = self;
        let path = "PATH=/usr/sbin:/sbin:/usr/bin:/bin";
        let wrapper = programs.path().join("nft");
        write_script(&wrapper, &format!("{path}\n{script}")).unwrap();
        for program in ["sh", "date"] {
            symlink(
                Path::new("/bin").join(program),
                programs.path().join(program),
            )
            .unwrap();
        }
        programs
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    fn log(&self) -> PathBuf {
        self.path().join("runs")
    }

    /// When `nft` was run, in nanoseconds.
    fn runs(&self) -> Vec<u128> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_the_nft_program_works_and_says_so() {
    let programs = Programs::none();
    let options = DaemonOptions::new().env("PATH", programs.path());
    let pair = Pair::start(&options).await;
    pair.wait_fast().await;
    for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        reaches(from, to).await;
    }
    wait_until("a problem that names nftables", SOON, || async {
        let status = pair.host_a().status().await;
        let problems = status.map_err(|error| error.to_string())?.problems();
        let named = problems.iter().filter(|it| it.contains("nftables"));
        match named.count() {
            1 => Ok(()),
            _ => Err(format!("{problems:?}")),
        }
    })
    .await
    .unwrap();
    let shown = try_run(pair.host_a().netns(), "nft", "list ruleset");
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_that_cannot_translate_addresses_has_the_guards_and_says_so() {
    let programs = Programs::without_nat();
    let options = DaemonOptions::new().env("PATH", programs.path());
    let pair = Pair::start(&options).await;
    pair.wait_fast().await;
    wait_until("a problem that names the modules", SOON, || async {
        let status = pair.host_a().status().await;
        let problems = status.map_err(|error| error.to_string())?.problems();
        let named = problems.iter().filter(|it| it.contains("nft_masq"));
        match named.count() == 1 && problems.len() == 1 {
            true => Ok(()),
            false => Err(format!("{problems:?}")),
        }
    })
    .await
    .unwrap();
    let shown = try_run(pair.host_a().netns(), "nft", "list ruleset");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for chain in ["chain vxlan_in", "chain routed", "chain claims"] {
        assert!(shown.contains(chain), "{chain} in {shown}");
    }
    assert!(!shown.contains("type nat"), "{shown}");
    for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        reaches(from, to).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_join_in_a_burst_are_written_with_at_most_one_run_a_second() {
    const PEERS: u8 = 60;
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let host = &testbed.hosts()[0];
    let programs = Programs::logged();
    let options = DaemonOptions::new()
        .env("PATH", programs.path())
        .binary(env!("CARGO_BIN_EXE_quilt-runtime"));
    host.start_runtime(&options).await.unwrap();
    configure(host, "10.42.1.0/24").await;
    let peers: Vec<Peer> = (1..=PEERS)
        .map(|number| Peer {
            subnet: format!("10.42.{}.0/24", number + 1),
            host_address: format!("192.0.2.{}", number + 100),
            hostname: String::new(),
            ..Peer::default()
        })
        .collect();
    let before = programs.runs().len();
    let started = Instant::now();
    for joined in 1..=peers.len() {
        let generation = u64::try_from(joined).unwrap();
        let answer = sync_peers(host, generation, peers[..joined].to_vec()).await;
        assert!(answer.success, "{}", answer.error);
        // As nodes join: some in every tenth of a second.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let last = peers.last().unwrap().host_address.clone();
    wait_until("the last peer in the set", SOON, || async {
        let rules = own_rules(host.netns()).unwrap_or_default();
        let there = |peer: &Peer| rules.iter().flatten().any(|it| *it == peer.host_address);
        let missing = peers.iter().filter(|peer| !there(peer)).count();
        match missing {
            0 => Ok(()),
            _ => Err(format!("{missing} are missing up to {last}")),
        }
    })
    .await
    .unwrap();
    let took = started.elapsed();
    let runs = programs.runs();
    let during = runs.len() - before;
    // One that was due when the burst began, and one that was begun when it ended.
    let allowed = usize::try_from(took.as_secs()).unwrap() + 2;
    println!("{during} runs of nft in {took:?} for {PEERS} peers");
    assert!(!runs.is_empty(), "nft was run by another way than PATH");
    assert!(during <= allowed, "{during} runs in {took:?}: {runs:?}");
}

/// What nobody changes is not written again.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_node_does_not_run_nft() {
    let programs = Programs::logged();
    let options = DaemonOptions::new().env("PATH", programs.path());
    let pair = Pair::start(&options).await;
    pair.wait_fast().await;
    settled(pair.host_a().netns()).await;
    // Five seconds in a row, once what the start brought about is over.
    wait_until("five seconds without a run of nft", SOON, || async {
        let runs = programs.runs();
        let last = Duration::from_nanos(u64::try_from(*runs.last().unwrap()).unwrap());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let quiet = now.saturating_sub(last);
        match quiet >= Duration::from_secs(5) {
            true => Ok(()),
            false => Err(format!("{} runs, the last {quiet:?} ago", runs.len())),
        }
    })
    .await
    .unwrap();
}
