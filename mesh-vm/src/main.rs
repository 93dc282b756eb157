//! Boots a kernel and tells what held on it. See the library's documentation.

use std::{
    collections::BTreeSet,
    fs,
    path::{self, Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use clap::Parser;
use mesh_vm::{
    ATTACH_VARIABLE, Check, Error, Outcome, Report, Series, Standing, Turn,
    initramfs::{self, Program},
    machine::{Ended, Limits, Machine, Word},
    package::{Cache, Kernel},
    report,
};

/// Boot kernels of Debian's under emulation and run Quilt Mesh inside
///
/// All of them at once. Prints one line for each check, as Rust's test programs do. `cargo xtask test --kernel`
/// builds what is needed and runs this. Needs no root.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Options {
    /// Series of a kernel, e.g. 6.1, of which the newest package that apt knows is taken, or "newest" for the newest
    /// series that Debian's backports have; may be given several times
    #[arg(
        long,
        env = "QUILT_MESH_KERNEL",
        value_name = "SERIES",
        value_delimiter = ',',
        required = true
    )]
    kernel: Vec<Wanted>,

    /// Where packages are unpacked and kept, and consoles written; target/vm if not given
    #[arg(long, env = "QUILT_MESH_DIR", value_name = "PATH")]
    dir: Option<PathBuf>,

    /// Seconds after which the machine is killed; as long it may wait for another process that boots this series
    #[arg(
        long,
        env = "QUILT_MESH_DEADLINE",
        value_name = "SECONDS",
        default_value_t = 1200
    )]
    deadline: u64,

    /// Seconds after which a machine is killed that says nothing; one that lives says every few seconds what it does
    #[arg(
        long,
        env = "QUILT_MESH_SILENCE",
        value_name = "SECONDS",
        default_value_t = 180
    )]
    silence: u64,

    /// Boot to a shell on this terminal instead
    #[arg(long, env = "QUILT_MESH_SHELL")]
    shell: bool,
}

/// What is to be booted.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Series(Series),
    /// Of those in Debian's backports.
    Newest,
}

impl FromStr for Wanted {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "newest" => Ok(Self::Newest),
            series => series.parse().map(Self::Series),
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let started = Instant::now();
    if std::env::consts::ARCH != "x86_64" {
        return Err(Error::Architecture(std::env::consts::ARCH).into());
    }
    let binaries = binaries()?;
    let dir = match &options.dir {
        // Programs that work on it begin in folders of their own.
        Some(dir) => path::absolute(dir)
            .with_context(|| format!("cannot tell where {} is", dir.display()))?,
        // target/release/mesh-vm
        None => binaries.parent().unwrap_or(&binaries).join("vm"),
    };
    let deadline = Duration::from_secs(options.deadline);
    let series: BTreeSet<Series> = options
        .kernel
        .iter()
        .map(|wanted| match wanted {
            Wanted::Series(series) => Ok(*series),
            Wanted::Newest => Cache::new(&dir).newest(),
        })
        .collect::<Result<_, _>>()?;
    let mut turns = Vec::new();
    let mut machines = Vec::new();
    for series in series {
        turns.push(Turn::wait(&dir, series, deadline)?);
        machines.push((series, machine(&options, series, &binaries, &dir)?));
    }
    if options.shell {
        let [(_, machine)] = &machines[..] else {
            bail!("one kernel at a time has a shell on this terminal");
        };
        let status = machine.run_on_terminal()?;
        return Ok(ExitCode::from(u8::from(!status.success())));
    }

    let checks = machines.iter().map(|(series, _)| Check::of(*series).len());
    println!("{}", report::announcement(checks.sum()));
    // All at once: each emulator has a thread of its own, and waits most of the time.
    let booted: Vec<(Series, (Report, Option<Standing>))> = thread::scope(|scope| {
        let booted: Vec<_> = machines
            .iter()
            .map(|(series, machine)| scope.spawn(|| boot(*series, machine, &options, &dir)))
            .collect();
        let reports = machines.iter().zip(booted).map(|((series, _), booted)| {
            let report = booted.join().map_err(|_| anyhow!("a thread has panicked"));
            anyhow::Ok((*series, report??))
        });
        reports.collect::<anyhow::Result<_>>()
    })?;
    let mut reports = Vec::new();
    let mut standings = Vec::new();
    for (series, (report, standing)) in booted {
        reports.push((series, report));
        standings.extend(standing);
    }
    println!("\n{}", Standing::table(&standings));
    println!(
        "{}",
        report::result(&reports, started.elapsed().as_secs_f64())
    );
    let failed = reports.iter().any(|(_, it)| it.failures().next().is_some());
    Ok(ExitCode::from(u8::from(failed)))
}

/// Boots a machine to its end, and prints what it says of each check and, if one failed, the
/// end of its console.
fn boot(
    series: Series,
    machine: &Machine,
    options: &Options,
    dir: &Path,
) -> anyhow::Result<(Report, Option<Standing>)> {
    let release = &machine.kernel.release;
    let console = dir.join(format!("console-{series}.log"));
    eprintln!(
        "booting Linux {release}, its console in {}",
        console.display()
    );
    let limits = Limits {
        deadline: Duration::from_secs(options.deadline),
        silence: Duration::from_secs(options.silence),
    };
    let mut report = Report::of_checks(Check::of(series));
    let mut last = "none".to_owned();
    let mut standing = None;
    let ended = machine.run(&console, limits, |word| match word {
        Word::Outcome(outcome) => {
            last = format!("the end of {}", outcome.check.name());
            print(series, &outcome);
            report.add(outcome);
        }
        Word::Doing(doing) => last = doing.to_string(),
        Word::Standing(said) => standing = Some(said),
    })?;
    if !report.is_complete() {
        let reason = match ended {
            Ended::ByItself => "the guest ended before".to_owned(),
            Ended::AtDeadline => format!("not reached in {} s", options.deadline),
            Ended::Silent => format!("the guest fell silent for {} s", options.silence),
            Ended::Broken(status) => format!("the emulator ended before, with {status}"),
        };
        let reason = format!("{reason}; its last word: {last}");
        let added = report.finish(&reason);
        added.iter().for_each(|outcome| print(series, outcome));
    }
    if report.failures().next().is_some() {
        let text = fs::read(&console).unwrap_or_default();
        eprintln!(
            "\n--- last lines of the console of Linux {release}, which {} holds\n{}\n--- end of the console",
            console.display(),
            last_lines(&String::from_utf8_lossy(&text))
        );
    }
    Ok((report, standing))
}

fn print(series: Series, outcome: &Outcome) {
    println!("{}", report::line(series, outcome));
    if let Some(failure) = &outcome.failure {
        eprintln!("{}: {failure}", report::name(series, outcome));
    }
}

/// As much of a console as a person reads.
fn last_lines(text: &str) -> &str {
    const LINES: usize = 400;
    let start = text.rmatch_indices('\n').nth(LINES);
    start.map_or(text, |(at, _)| &text[at + 1..])
}

/// Downloads and builds what there is to boot.
fn machine(
    options: &Options,
    series: Series,
    binaries: &Path,
    dir: &Path,
) -> anyhow::Result<Machine> {
    let cache = Cache::new(dir);
    let kernel = cache.kernel(series)?;
    let initramfs = write_initramfs(&cache, &kernel, binaries, dir)?;
    let mode = series.attach_mode().to_owned();
    let mut environment = vec![(ATTACH_VARIABLE, mode)];
    if options.shell {
        environment.push(("QUILT_MESH_VM_SHELL", "1".to_owned()));
    }
    Ok(Machine {
        kernel,
        initramfs,
        environment,
    })
}

fn write_initramfs(
    cache: &Cache,
    kernel: &Kernel,
    binaries: &Path,
    dir: &Path,
) -> anyhow::Result<PathBuf> {
    let mut programs = Vec::new();
    for (name, package, to) in [
        // Busybox's shell would run its own tc, which knows nothing of netem, whatever the path.
        ("sh", "dash", "bin/sh"),
        ("modprobe", "kmod", "sbin/modprobe"),
        ("tc", "iproute2", "sbin/tc"),
        ("nft", "nftables", "usr/sbin/nft"),
        ("unshare", "util-linux", "usr/bin/unshare"),
    ] {
        let from = system_program(name)
            .with_context(|| format!("{name} is missing: `sudo apt-get install {package}`"))?;
        programs.push(Program { from, to });
    }
    let bandwidth = mesh_testbed::cni_plugins()
        .map(|plugins| plugins.join("bandwidth"))
        .ok()
        .filter(|plugin| plugin.is_file());
    programs.push(Program {
        from: bandwidth.context(
            "the CNI plugin bandwidth is missing: `sudo apt-get install containernetworking-plugins`",
        )?,
        to: "usr/lib/cni/bandwidth",
    });
    for (name, to) in [
        ("quilt-runtime", "usr/bin/quilt-runtime"),
        ("quilt-mesh-agent", "usr/bin/quilt-mesh-agent"),
        ("quilt-mesh-control", "usr/bin/quilt-mesh-control"),
        ("mesh-faults", "usr/bin/mesh-faults"),
        ("quilt-cni", "usr/bin/quilt-cni"),
        ("mesh-vm-guest", "usr/bin/mesh-vm-guest"),
    ] {
        let from = binaries.join(name);
        if !from.is_file() {
            bail!(
                "{} is missing: `cargo build --release --workspace --bins`, or set QUILT_MESH_BIN_DIR to the folder that \
                 holds it",
                from.display()
            );
        }
        programs.push(Program { from, to });
    }
    let archive = initramfs::build(kernel, &cache.busybox()?, &programs)?;
    let path = dir.join(format!("initramfs-{}", kernel.release));
    fs::write(&path, archive).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The folder of the binaries: `QUILT_MESH_BIN_DIR`, or this program's own.
fn binaries() -> anyhow::Result<PathBuf> {
    if let Some(dir) = std::env::var_os("QUILT_MESH_BIN_DIR").filter(|dir| !dir.is_empty()) {
        return Ok(dir.into());
    }
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let dir = program.parent().context("this program is in no folder")?;
    Ok(dir.to_owned())
}

/// One of the host's own programs, for the guest.
fn system_program(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .map(|dir| Path::new(dir).join(name))
        .into_iter()
        .find(|path| path.is_file())
}
