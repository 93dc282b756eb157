//! Boots a kernel and tells what held on it. See the library's documentation.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Parser;
use mesh_vm::{
    ATTACH_VARIABLE, Error, Outcome, Report, Series, Turn,
    initramfs::{self, Program},
    machine::{Ended, Machine},
    package::{Cache, Kernel},
    report,
};

/// Boot a kernel of Debian's under emulation and run Quilt Mesh inside
///
/// Prints one line for each check, as Rust's test programs do. `cargo xtask test --kernel`
/// builds what is needed and runs this. Needs no root.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Options {
    /// Series of the kernel, e.g. 6.1; the newest that apt knows is taken
    #[arg(long, env = "QUILT_MESH_KERNEL", value_name = "SERIES")]
    kernel: Series,

    /// Where packages are unpacked and kept, and consoles written; target/vm if not given
    #[arg(long, env = "QUILT_MESH_DIR", value_name = "PATH")]
    dir: Option<PathBuf>,

    /// Seconds after which the machine is killed; as long it may wait for another process that boots this series
    #[arg(
        long,
        env = "QUILT_MESH_DEADLINE",
        value_name = "SECONDS",
        default_value_t = 600
    )]
    deadline: u64,

    /// Boot to a shell on this terminal instead
    #[arg(long, env = "QUILT_MESH_SHELL")]
    shell: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let started = Instant::now();
    if std::env::consts::ARCH != "x86_64" {
        return Err(Error::Architecture(std::env::consts::ARCH).into());
    }
    let binaries = binaries()?;
    let dir = match &options.dir {
        Some(dir) => dir.clone(),
        // target/release/mesh-vm
        None => binaries.parent().unwrap_or(&binaries).join("vm"),
    };
    let deadline = Duration::from_secs(options.deadline);
    let _turn = Turn::wait(&dir, options.kernel, deadline)?;
    let machine = machine(&options, &binaries, &dir)?;
    let release = &machine.kernel.release;
    if options.shell {
        let status = machine.run_on_terminal()?;
        return Ok(ExitCode::from(u8::from(!status.success())));
    }

    let console = dir.join(format!("console-{}.log", options.kernel));
    eprintln!(
        "booting Linux {release}, its console in {}",
        console.display()
    );
    println!("{}", report::announcement());
    let mut report = Report::default();
    let ended = machine.run(&console, deadline, |outcome| {
        print(&outcome);
        report.add(outcome);
    })?;
    if !report.is_complete() {
        let reason = match ended {
            Ended::ByItself => "the guest ended before".to_owned(),
            Ended::AtDeadline => format!("not reached in {} s", options.deadline),
            Ended::Broken(status) => format!("the emulator ended before, with {status}"),
        };
        report.finish(&reason).iter().for_each(print);
    }
    let failed = report.failures().count();
    if failed > 0 {
        let text = fs::read(&console).unwrap_or_default();
        eprintln!("\n--- console of Linux {release}");
        eprintln!("{}", String::from_utf8_lossy(&text));
        eprintln!("--- end of the console");
    }
    println!("{}", report.result(started.elapsed().as_secs_f64()));
    Ok(ExitCode::from(u8::from(failed > 0)))
}

fn print(outcome: &Outcome) {
    println!("{outcome}");
    if let Some(failure) = &outcome.failure {
        eprintln!("{}: {failure}", outcome.check.name());
    }
}

/// Downloads and builds what there is to boot.
fn machine(options: &Options, binaries: &Path, dir: &Path) -> anyhow::Result<Machine> {
    let cache = Cache::new(dir);
    let kernel = cache.kernel(options.kernel)?;
    let initramfs = write_initramfs(&cache, &kernel, binaries, dir)?;
    let mode = options.kernel.attach_mode().to_owned();
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
    let mut programs = vec![Program {
        from: modprobe()?,
        to: "sbin/modprobe",
    }];
    for (name, to) in [
        ("quilt-runtime", "usr/bin/quilt-runtime"),
        ("mesh-vm-guest", "usr/bin/mesh-vm-guest"),
    ] {
        let from = binaries.join(name);
        if !from.is_file() {
            bail!(
                "{} is missing: `cargo build --release -p mesh-runtime -p mesh-vm`, or set QUILT_MESH_BIN_DIR to the \
                 folder that holds it",
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

/// The host's own loader of modules, for the guest.
fn modprobe() -> anyhow::Result<PathBuf> {
    ["/usr/sbin/modprobe", "/sbin/modprobe", "/usr/bin/modprobe"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file())
        .context("modprobe is missing: `sudo apt-get install kmod`")
}
