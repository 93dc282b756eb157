//! `cargo xtask setup`

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use mesh_ebpf_build::install_packages;
use nix::unistd::geteuid;

use crate::foreground::{self, Reach};
use crate::{build_ebpf, cargo, docker, kernel};

/// Install what this machine lacks for building, testing and the demo
///
/// As root on a machine with apt: a C compiler (for SQLite), bpftool, nft, iptables, iproute2, PostgreSQL's programs and PgBouncer (no
/// database cluster is made, no server left running), Prometheus (not left running either), Podman with runc and CNI plugins, Docker and containerd (unpacked below
/// target, not installed), Python with venv, what the emulated kernels need, and the eBPF toolchain. With rustup: the components
/// rustfmt and clippy. Otherwise prints the commands to run. Every other command calls the parts it needs by itself.
#[derive(clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(_: &Options) -> anyhow::Result<ExitCode> {
    ensure(&[UNPRIVILEGED_TESTS, KERNEL_TESTS, &kernel::TOOLS].concat())?;
    docker::ensure()?;
    ensure_components()?;
    build_ebpf::build()?;
    eprintln!("everything is there");
    Ok(ExitCode::SUCCESS)
}

/// What tests need that need no root. Those of mesh-vm pack the machine's own modprobe and tc, and a CNI plugin, for the guest.
pub(crate) const UNPRIVILEGED_TESTS: &[Tool] = &[
    Tool::CCompiler,
    Tool::Postgres,
    Tool::Pgbouncer,
    Tool::PythonVenv,
    Tool::Depmod,
    Tool::Iproute,
    Tool::CniPlugins,
];

/// What tests on the real kernel need besides.
pub(crate) const KERNEL_TESTS: &[Tool] = &[
    Tool::Bpftool,
    Tool::Iproute,
    Tool::Nftables,
    Tool::Iptables,
    Tool::Tcpdump,
    Tool::Ext4,
    Tool::Podman,
    Tool::Runc,
    Tool::CniPlugins,
    Tool::Busybox,
    Tool::Prometheus,
];

/// A program that comes from a package of the distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Compiles the SQLite inside libsqlite3-sys, and links every binary.
    CCompiler,
    /// Prints pinned maps with the names of their fields.
    Bpftool,
    /// Boots other kernels.
    Emulator,
    /// Indexes the modules of another kernel. Its package brings modprobe, which the emulated machines load them with.
    Depmod,
    /// Shows and changes links, routes and queues (ip, bridge, tc); tc delays packets in the emulated machines.
    Iproute,
    /// Installs the netfilter rules of Docker and flannel.
    Iptables,
    /// Keeps a runtime's rules, and drops packets between hosts of a test.
    Nftables,
    /// Reads what meshctl captures.
    Tcpdump,
    /// Makes the small disks that a test fills.
    Ext4,
    /// Keeps what the control plane stores, in tests of several replicas.
    Postgres,
    /// Stands between a control plane and PostgreSQL, in a test.
    Pgbouncer,
    /// Runs real containers on the mesh.
    Podman,
    /// Starts Podman's containers also where control groups are hybrid.
    Runc,
    /// Connect Podman's containers to the bridge, and do something of their own after ours, also in the emulated machines.
    CniPlugins,
    /// The contents of the containers' image.
    Busybox,
    /// Scrapes a cluster in a test; promtool, which checks metrics and rules, comes with it.
    Prometheus,
    /// Makes the root file system of a bare Debian.
    Bootstrap,
    /// Clones the checkout into it.
    Git,
    /// Makes the environment for schemathesis, which fuzzes the control plane's API.
    PythonVenv,
}

impl Tool {
    /// Name of the program.
    fn program(self) -> &'static str {
        match self {
            Self::CCompiler => "cc",
            Self::Bpftool => "bpftool",
            Self::Emulator => "qemu-system-x86_64",
            Self::Depmod => "depmod",
            Self::Iproute => "tc",
            Self::Iptables => "iptables-restore",
            Self::Nftables => "nft",
            Self::Tcpdump => "tcpdump",
            Self::Ext4 => "mkfs.ext4",
            Self::Postgres => "initdb",
            Self::Pgbouncer => "pgbouncer",
            Self::Podman => "podman",
            Self::Runc => "runc",
            Self::CniPlugins => "CNI plugins",
            Self::Busybox => "busybox",
            Self::Prometheus => "prometheus",
            Self::Bootstrap => "mmdebstrap",
            Self::Git => "git",
            Self::PythonVenv => "python3 with venv",
        }
    }

    /// Debian's packages with it.
    pub(crate) fn packages(self) -> &'static [&'static str] {
        match self {
            Self::CCompiler => &["gcc", "libc6-dev"],
            Self::Bpftool => &["bpftool"],
            Self::Emulator => &["qemu-system-x86"],
            Self::Depmod => &["kmod"],
            Self::Iproute => &["iproute2"],
            Self::Iptables => &["iptables"],
            Self::Nftables => &["nftables"],
            Self::Tcpdump => &["tcpdump"],
            Self::Ext4 => &["e2fsprogs"],
            Self::Postgres => &["postgresql"],
            Self::Pgbouncer => &["pgbouncer"],
            Self::Podman => &["podman"],
            Self::Runc => &["runc"],
            Self::CniPlugins => &["containernetworking-plugins"],
            Self::Busybox => &["busybox-static"],
            Self::Prometheus => &["prometheus"],
            // Not every distribution knows Debian's keys.
            Self::Bootstrap => &["mmdebstrap", "debian-archive-keyring"],
            Self::Git => &["git"],
            Self::PythonVenv => &["python3", "python3-venv"],
        }
    }

    /// What Debian's package starts for the machine where it can, besides bringing the program.
    fn service(self) -> Option<&'static str> {
        match self {
            Self::Pgbouncer => Some("pgbouncer.service"),
            Self::Prometheus => Some("prometheus.service"),
            _ => None,
        }
    }

    fn is_there(self) -> bool {
        if self == Self::PythonVenv {
            // Debian leaves both modules out of python3.
            let probe = Command::new("python3")
                .args(["-c", "import ensurepip, venv"])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .status();
            return probe.is_ok_and(|status| status.success());
        }
        if self == Self::CniPlugins {
            let dirs = ["/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"];
            return dirs
                .iter()
                .any(|dir| Path::new(dir).join("bridge").is_file());
        }
        find(self.program(), std::env::var_os("PATH").as_deref()).is_some()
            || (self == Self::Postgres && holds_a_server(Path::new("/usr/lib/postgresql")))
    }
}

/// Debian keeps each version of PostgreSQL in a folder of its own.
fn holds_a_server(versions: &Path) -> bool {
    let versions = std::fs::read_dir(versions).into_iter().flatten().flatten();
    let mut programs = versions.map(|version| version.path().join("bin/initdb"));
    programs.any(|program| program.is_file())
}

/// Tells Debian's packages of PostgreSQL, as long as it exists, not to make and start a database cluster
/// (createcluster.conf, pg_createcluster(1)): tests make their own, and the machine's owner may not want one.
struct NoCluster(PathBuf);

impl NoCluster {
    fn new(settings: &Path) -> anyhow::Result<Self> {
        let file = settings.join("createcluster.d/quilt-mesh-setup.conf");
        let written = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        written
            .and_then(|()| std::fs::write(&file, "create_main_cluster = false\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self(file))
    }
}

impl Drop for NoCluster {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        // Fails if it holds somebody's own settings.
        let _ = self.0.parent().map(std::fs::remove_dir);
    }
}

/// Where a program is. The system's folders count although a user's `PATH` often leaves them out.
pub(crate) fn find(program: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    let path = path.unwrap_or_default();
    std::env::split_paths(path)
        .chain(["/usr/sbin".into(), "/sbin".into(), "/usr/bin".into()])
        .map(|dir: PathBuf| dir.join(program))
        .find(|path| path.is_file())
}

/// Which packages bring these tools, each once.
fn packages(tools: &[Tool]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for package in tools.iter().flat_map(|tool| tool.packages()) {
        if !packages.contains(package) {
            packages.push(*package);
        }
    }
    packages
}

/// Installs those of the tools that are missing.
pub(crate) fn ensure(tools: &[Tool]) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for tool in tools {
        // Some are in more than one list.
        if !missing.contains(tool) && !tool.is_there() {
            missing.push(*tool);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let packages = packages(&missing);
    let names = missing
        .iter()
        .map(|tool| tool.program())
        .collect::<Vec<_>>()
        .join(", ");
    let command = format!(
        "apt-get update && apt-get install --no-install-recommends {}",
        packages.join(" ")
    );
    if !geteuid().is_root() || !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "missing: {names}. On Debian or Ubuntu: `sudo sh -c '{command}'`. Elsewhere install the packages that \
             bring these programs"
        );
    }
    eprintln!(
        "installing {} with apt-get: {names} missing",
        packages.join(" ")
    );
    let packages: Vec<_> = packages.into_iter().map(str::to_owned).collect();
    let _no_cluster = missing
        .contains(&Tool::Postgres)
        .then(|| NoCluster::new(Path::new("/etc/postgresql-common")))
        .transpose()?;
    install_packages(&packages, &cargo::checkout()?.ebpf_dir())?;
    for tool in missing {
        if let Some(service) = tool.service() {
            stop(service);
        }
    }
    Ok(())
}

/// Stops a service that Debian's package has started for the machine, which nobody asked for here. Without systemd it does
/// not.
fn stop(service: &str) {
    let mut stop = Command::new("systemctl");
    stop.args(["disable", "--now", "--quiet", service])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // One that goes on hurts nobody: a pooler serves no database and listens on loopback alone, a Prometheus scrapes itself alone.
    let _ = stop.status();
}

/// rustfmt and clippy, which rustup's minimal profile leaves out.
pub(crate) fn ensure_components() -> anyhow::Result<()> {
    let checkout = cargo::checkout()?;
    for component in ["rustfmt", "clippy"] {
        let subcommand = if component == "rustfmt" {
            "fmt"
        } else {
            component
        };
        let mut probe = cargo::command(&checkout, &[subcommand, "--version"]);
        let probe = probe
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if probe.status().context("cannot run cargo")?.success() {
            continue;
        }
        let by_hand = format!("rustup component add {component}");
        eprintln!("{component} is missing: {by_hand}");
        let mut command = Command::new("rustup");
        command
            .args(["component", "add", component])
            .stdout(std::io::stderr());
        let ended = foreground::run(&mut command, Reach::Program, Some(Duration::from_secs(600)))
            .with_context(|| format!("{component} is missing and rustup is not there to add it"))?
            .unless_interrupted()?;
        if !ended.success() {
            bail!("`{by_hand}` {ended}; install {component} by hand");
        }
    }
    Ok(())
}

/// The kernel's part of demo, tests and bench needs root; says how to get it.
pub(crate) fn require_root(task: &str) -> anyhow::Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("`cargo xtask {task}` makes network namespaces, which only Linux has");
    }
    if !geteuid().is_root() {
        bail!(
            "`cargo xtask {task}` makes network namespaces and loads eBPF programs, which needs root. \
             Run: sudo -E env \"PATH=$PATH\" cargo xtask {task}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_is_installed_once() {
        assert_eq!(
            packages(&[Tool::CCompiler, Tool::Bpftool, Tool::CCompiler]),
            ["gcc", "libc6-dev", "bpftool"]
        );
    }

    #[test]
    fn tests_bring_what_they_run_and_rely_on_no_other_command() {
        // Each is a program that some test starts, or packs for an emulated machine.
        let unprivileged = packages(UNPRIVILEGED_TESTS);
        for package in [
            "gcc",
            "kmod",
            "iproute2",
            "containernetworking-plugins",
            "postgresql",
            "pgbouncer",
            "python3-venv",
        ] {
            assert!(unprivileged.contains(&package), "{package}");
        }
        let kernel = packages(KERNEL_TESTS);
        for package in [
            "bpftool",
            "nftables",
            "iptables",
            "iproute2",
            "e2fsprogs",
            "prometheus",
        ] {
            assert!(kernel.contains(&package), "{package}");
        }
    }

    #[test]
    fn no_cluster_is_made_only_while_setup_installs() {
        let settings =
            std::env::temp_dir().join(format!("quilt-mesh-setup-{}", std::process::id()));
        let folder = settings.join("createcluster.d");
        let no_cluster = NoCluster::new(&settings).unwrap();
        let written = std::fs::read_to_string(folder.join("quilt-mesh-setup.conf")).unwrap();
        drop(no_cluster);
        let left = folder.exists();
        std::fs::remove_dir_all(&settings).unwrap();
        assert_eq!(written, "create_main_cluster = false\n");
        assert!(!left);
    }

    #[test]
    fn a_program_in_the_systems_folders_is_found_although_the_path_leaves_them_out() {
        assert!(find("sh", Some(OsStr::new("/nonexistent"))).is_some());
        assert_eq!(
            find("no-such-program-anywhere", Some(OsStr::new("/usr/bin"))),
            None
        );
    }
}
