//! Where an attack takes place: a pair of nodes with an attacker among their containers, in one
//! of the states in which the guards have to hold.

use std::{
    any::Any,
    net::{Ipv4Addr, SocketAddrV4},
    panic::AssertUnwindSafe,
    sync::Mutex,
};

use futures_util::FutureExt as _;
use mesh_proto::mesh::fast_path_status::State;
use mesh_testbed::{Container, Daemon, DaemonOptions, Host, NetNs, Signal, Testbed, wait_until};

use crate::{
    held_shut::HeldShut,
    inside::{datagram, mac},
    pair::{Pair, SOON, peer_of, sync_peers},
    register::{Registered, Registration, known, lease},
    witness::PORT,
};

/// A state of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Programs carry the traffic.
    Fast,
    /// `--fast-path off`: programs guard, and the kernel carries the traffic.
    Off,
    /// The runtimes were killed when their programs were attached.
    Killed,
    /// The same, and the attacker's port was made afterwards: it has no program.
    MadeWhileDead,
    /// Programs are filters, and the ports came a moment ago: they have none yet.
    New,
    /// The runtimes run, and their programs are still being loaded: there are none yet.
    Loading,
}

/// For attacks out of a container.
pub(crate) const MODES: &[Mode] = &[
    Mode::Fast,
    Mode::Off,
    Mode::Killed,
    Mode::MadeWhileDead,
    Mode::New,
];

/// For attacks that come from no container.
pub(crate) const HOST_MODES: &[Mode] = &[Mode::Fast, Mode::Off, Mode::Killed];

/// For what needs a living runtime.
pub(crate) const ALIVE: &[Mode] = &[Mode::Fast, Mode::Off];

/// For what rules alone can judge: until the programs are there.
pub(crate) const LOADING: &[Mode] = &[Mode::Loading];

/// What a scene needs beyond the usual.
#[derive(Default)]
pub(crate) struct Plan {
    /// The attacker and its victims are the second node's containers.
    pub(crate) on_second_node: bool,
    /// The third host, which runs nothing, is a peer of both nodes: 10.42.3.0/24.
    pub(crate) third_is_peer: bool,
    /// More options of both runtimes.
    pub(crate) arguments: Vec<String>,
    /// The hosts have no `nft`, and so no rules: programs guard alone.
    pub(crate) without_rules: bool,
    /// The hosts cannot pin programs, and so have none: rules guard alone.
    pub(crate) without_programs: bool,
    /// What is done to the hosts before the runtimes start.
    pub(crate) prepare: Option<fn(&Testbed)>,
    /// A registered container stands on the attacker's node besides.
    pub(crate) registered: Option<Registration>,
}

pub(crate) struct Scene {
    /// Why the programs are not there, where they are [`Loading`](Mode::Loading). Gone before the runtimes
    /// are ended, which would wait for it.
    held_shut: Mutex<Vec<HeldShut>>,
    pub(crate) mode: Mode,
    pub(crate) pair: Pair,
    /// The container that attacks.
    pub(crate) attacker: Container,
    /// One more on the same bridge, beside the attacker's [sibling](Self::sibling).
    pub(crate) other: Container,
    /// One that is registered, where the plan wants it.
    registered: Option<Registered>,
    on_second_node: bool,
}

/// Runs an attack in each of these states, and panics with the names of those in which it
/// panicked.
pub(crate) async fn in_modes(modes: &[Mode], plan: Plan, attack: impl AsyncFn(&Scene)) {
    let mut failures = Vec::new();
    for &mode in modes {
        let run = async {
            let scene = Scene::set(mode, &plan).await;
            attack(&scene).await;
        };
        if let Err(panic) = AssertUnwindSafe(run).catch_unwind().await {
            failures.push(format!("{mode:?}: {}", words_of(&*panic)));
        }
    }
    let failed = failures.len();
    assert!(
        failed == 0,
        "in {failed} of {modes:?}:\n{}",
        failures.join("\n")
    );
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
}

impl Scene {
    async fn set(mode: Mode, plan: &Plan) -> Self {
        let testbed = Testbed::builder().hosts(3).build().await.unwrap();
        if let Some(prepare) = plan.prepare {
            prepare(&testbed);
        }
        let mut options = DaemonOptions::new().args(plan.arguments.clone());
        if mode == Mode::Off {
            options = options.args(["--fast-path", "off"]);
        }
        if mode == Mode::New {
            options = options.args(["--attach", "clsact"]);
        }
        if plan.without_rules {
            options = options.env("PATH", "/nonexistent");
        }
        if plan.without_programs {
            options = options.args(["--bpffs", "/dev/null"]);
        }
        let held_shut = match mode {
            Mode::Loading => testbed.hosts().iter().map(no_programs_yet).collect(),
            _ => Vec::new(),
        };
        let pair = Pair::start_on(testbed, &options, &options).await;
        if plan.third_is_peer {
            let [a, b, third] = pair.testbed.hosts() else {
                panic!("three hosts are needed");
            };
            for (host, other, subnet) in [(a, b, "10.42.2.0/24"), (b, a, "10.42.1.0/24")] {
                let peers = vec![peer_of(other, subnet), peer_of(third, "10.42.3.0/24")];
                assert!(sync_peers(host, 2, peers).await.success);
            }
        }
        let home = match plan.on_second_node {
            true => pair.host_b(),
            false => pair.host_a(),
        };
        let other = home.add_container().await.unwrap();
        for (host, container) in [
            (home, &other),
            (pair.host_a(), &pair.a),
            (pair.host_b(), &pair.b),
        ] {
            match mode {
                Mode::New | Mode::Loading => seen(host, container).await,
                _ => guarded(host, container).await,
            }
        }
        let mut registered = None;
        if mode == Mode::MadeWhileDead {
            if let Some(plan) = &plan.registered {
                registered = Some(plan.make(home).await);
            }
            kill(&pair).await;
        }
        let attacker = home.add_container().await.unwrap();
        if mode != Mode::MadeWhileDead {
            match mode {
                Mode::New => is_new(home, &attacker).await,
                Mode::Loading => has_no_programs_yet(home, &attacker).await,
                _ => guarded(home, &attacker).await,
            }
            if let Some(plan) = &plan.registered {
                if let Some(first) = plan.first {
                    lease(home).await;
                    first(&attacker);
                    known(home, &attacker).await;
                }
                registered = Some(plan.make(home).await);
            }
        }
        if mode == Mode::Killed {
            kill(&pair).await;
        }
        Self {
            held_shut: Mutex::new(held_shut),
            mode,
            pair,
            attacker,
            other,
            registered,
            on_second_node: plan.on_second_node,
        }
    }

    /// The attacker's node.
    pub(crate) fn home(&self) -> &Host {
        match self.on_second_node {
            true => self.pair.host_b(),
            false => self.pair.host_a(),
        }
    }

    /// The other node.
    pub(crate) fn away(&self) -> &Host {
        match self.on_second_node {
            true => self.pair.host_a(),
            false => self.pair.host_b(),
        }
    }

    /// A container of the attacker's node that does no harm.
    pub(crate) fn sibling(&self) -> &Container {
        match self.on_second_node {
            true => &self.pair.b,
            false => &self.pair.a,
        }
    }

    /// The registered container.
    pub(crate) fn registered(&self) -> &Registered {
        let registered = self.registered.as_ref();
        registered.expect("the plan has to ask for it")
    }

    /// A container of the other node.
    pub(crate) fn far(&self) -> &Container {
        match self.on_second_node {
            true => &self.pair.a,
            false => &self.pair.b,
        }
    }

    /// The bridge's address on the attacker's node.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        gateway_of(self.attacker.address())
    }

    /// The bridge's MAC on the attacker's node.
    pub(crate) fn gateway_mac(&self) -> [u8; 6] {
        mac(self.home().netns(), mesh_testbed::BRIDGE)
    }

    /// Sends what may arrive to a witness.
    pub(crate) fn marker(from: &NetNs, to: Ipv4Addr) -> impl Fn(&[u8]) {
        move |payload| datagram(from, SocketAddrV4::new(to, PORT), payload)
    }

    /// Has the runtimes go on to load their programs, where they wait.
    pub(crate) fn go_on_loading(&self) {
        self.held_shut.lock().unwrap().clear();
    }

    /// Starts the runtimes that were killed.
    pub(crate) async fn revive(&self) {
        for host in [self.pair.host_a(), self.pair.host_b()] {
            host.restart(Daemon::Runtime).unwrap();
            host.wait_serving(SOON).await.unwrap();
        }
        guarded(self.pair.host_a(), &self.pair.a).await;
        guarded(self.pair.host_b(), &self.pair.b).await;
    }
}

/// The address of the bridge of a container's node.
pub(crate) fn gateway_of(container: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, _] = container.octets();
    Ipv4Addr::new(a, b, c, 1)
}

/// Kills both runtimes, as a bug or the kernel would.
pub(crate) async fn kill(pair: &Pair) {
    for host in [pair.host_a(), pair.host_b()] {
        host.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
            .await
            .unwrap();
    }
}

/// Waits until the runtime has seen a container, and the rules are those for it.
async fn seen(host: &Host, container: &Container) {
    let address = container.address().to_string();
    wait_until("the rules for a container", SOON, || async {
        let mut command = host.netns().command("nft");
        let listed = command
            .args(["list", "set", "bridge", "quilt_mesh", "held"])
            .output();
        let listed = listed.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        match text
            .split([' ', ',', '\n', '\t'])
            .any(|word| word == address)
        {
            true => Ok(()),
            false => Err(format!("{text}{}", String::from_utf8_lossy(&listed.stderr))),
        }
    })
    .await
    .unwrap();
    wait_until("a container that is known", SOON, || async {
        let status = host.status().await.map_err(|error| error.to_string())?;
        match status.endpoints.iter().any(|it| it.address == address) {
            true => Ok(()),
            false => Err(format!("{:?}", status.endpoints)),
        }
    })
    .await
    .unwrap();
}

/// The same of a container whose port has no program yet, and the bridge has.
async fn is_new(host: &Host, container: &Container) {
    seen(host, container).await;
    let attachments = bridge_has_program(host).await;
    let port = format!("{}: encapsulate", container.host_interface());
    assert!(!attachments.contains(&port), "{attachments:?}");
}

/// Waits until the bridge has its program, and says what else is attached then.
pub(crate) async fn bridge_has_program(host: &Host) -> Vec<String> {
    let bridge = format!("{}: catch_all", mesh_testbed::BRIDGE);
    wait_until("the bridge's program", SOON, || async {
        let status = host.status().await.map_err(|error| error.to_string())?;
        let attachments = status.fast_path.unwrap_or_default().attachments;
        match attachments.contains(&bridge) {
            true => Ok(attachments),
            false => Err(format!("{attachments:?}")),
        }
    })
    .await
    .unwrap()
}

/// Has a host's runtime wait before it loads its programs.
fn no_programs_yet(host: &Host) -> HeldShut {
    HeldShut::new(&host.bpffs_dir().join("quilt-mesh"))
}

/// The same as [`seen`], of a container on a host whose programs are not there yet.
async fn has_no_programs_yet(host: &Host, container: &Container) {
    seen(host, container).await;
    let fast_path = host.status().await.unwrap().fast_path.unwrap();
    assert_eq!(fast_path.state(), State::Waiting, "{fast_path:?}");
    assert!(fast_path.attachments.is_empty(), "{fast_path:?}");
}

/// Waits until a container's port has its program, unless there are none, and the runtime knows
/// whose port it is.
pub(crate) async fn guarded(host: &Host, container: &Container) {
    let address = container.address().to_string();
    let port = format!("{}: encapsulate", container.host_interface());
    wait_until("the guard of the container's port", SOON, || async {
        let status = host.status().await.map_err(|error| error.to_string())?;
        let fast_path = status.fast_path.unwrap_or_default();
        let attached = fast_path.attachments.contains(&port);
        let none = fast_path.state() == State::Unavailable;
        let known = status.endpoints.iter().any(|it| it.address == address);
        match (attached || none) && known {
            true => Ok(()),
            false => Err(format!("{:?} {fast_path:?}", status.endpoints)),
        }
    })
    .await
    .unwrap();
}
