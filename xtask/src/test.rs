//! `cargo xtask test`

pub(crate) mod engines;
pub(crate) mod faults;
mod libtest;
mod suite;
mod summary;

use std::num::NonZero;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use mesh_ebpf_build::Checkout;
use nix::unistd::geteuid;

use crate::foreground::{self, Ended, Reach};
use crate::kernel;
use crate::setup;
use crate::{cargo, docker};
use libtest::{Parser, Report};
use suite::{Kind, Suite, parse_list};
use summary::{LeftOut, SuiteResult};

pub(crate) use summary::Summary;

/// No suite takes this long; one that does hangs.
const SUITE_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// How many tests libtest runs at once, unless an option of its own says so.
const THREADS: &str = "RUST_TEST_THREADS";

/// Suites on the real kernel start daemons by the dozen, and their tests wait for them much of the time.
const KERNEL_THREADS: usize = 4;

/// The others wait two thirds of the time, for databases, clocks and clients: so many for each processor.
const OTHER_THREADS: usize = 3;

/// Name of the suite that cargo itself runs. Without a library among the packages it reports nothing.
const DOCUMENTATION: &str = "documentation";

/// Run all tests, with one summary
///
/// Unit, integration and documentation tests of the whole workspace; examples are compiled. Tests on the real kernel
/// need root: those under tests/ named kernel or kernel_*, and everything of tests/ of mesh-testbed, mesh-cni,
/// mesh-docker and mesh-netavark. Installs what any of them needs, with apt, and says so.
#[derive(clap::Args, Debug, Clone)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    /// A suite of its own instead
    #[command(subcommand)]
    suite: Option<faults::Suite>,

    /// Leave out what needs root, and name it
    #[arg(long, env = "QUILT_MESH_UNPRIVILEGED")]
    unprivileged: bool,

    /// Run only the tests of this package; may be given several times
    #[arg(long, short, env = "QUILT_MESH_PACKAGE", value_delimiter = ',')]
    package: Vec<String>,

    /// Instead boot the newest Debian kernel of this series under emulation, for example 6.1, and run Quilt Mesh
    /// inside; may be given several times. "newest" is the newest series of Debian's backports, "all" every kernel
    /// that README tells of. Needs no root
    #[arg(long, env = "QUILT_MESH_KERNEL", value_delimiter = ',', value_name = "SERIES", value_parser = kernel::parse_series,
          conflicts_with_all = ["unprivileged", "package", "filter", "arguments"])]
    kernel: Vec<String>,

    /// Instead run engines and plugins of other distributions than this one, each in a root file system that is made below
    /// target once and kept. Needs root
    #[arg(long, env = "QUILT_MESH_ENGINES", conflicts_with_all = ["unprivileged", "package", "kernel"])]
    engines: bool,

    /// Run only tests whose names contain one of these
    filter: Vec<String>,

    /// Arguments for every test program, for example `-- --nocapture`
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if let Some(suite) = &options.suite {
        return faults::run(suite);
    }
    let summary = collect(options)?;
    println!("\n{}", summary.text());
    if summary.passed() + summary.failed() == 0 {
        bail!("no test was run: none matches {:?}", options.filter);
    }
    Ok(if summary.failed() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn collect(options: &Options) -> anyhow::Result<Summary> {
    if !options.kernel.is_empty() {
        return kernel::collect(&options.kernel);
    }
    if options.engines {
        return engines::collect(options);
    }
    if !options.unprivileged && !geteuid().is_root() {
        bail!(
            "some tests make network namespaces and load eBPF programs, which needs root. Run one of\n  \
             sudo -E env \"PATH=$PATH\" cargo xtask test\n  cargo xtask test --unprivileged"
        );
    }
    let mut tools = setup::UNPRIVILEGED_TESTS.to_vec();
    if !options.unprivileged {
        tools.extend(setup::KERNEL_TESTS);
    }
    setup::ensure(&tools)?;
    if !options.unprivileged {
        docker::ensure()?;
    }
    let checkout = cargo::checkout()?;
    let mut suites = compile(&checkout, &EVERYTHING)?;
    suites.retain(|suite| !suite.is_of_distributions());
    if !options.package.is_empty() {
        suites.retain(|suite| options.package.contains(&suite.package));
    }

    let mut summary = Summary::default();
    for suite in &suites {
        if options.unprivileged && suite.needs_root() {
            summary.left_out.push(LeftOut {
                suite: suite.to_string(),
                tests: list(suite, options)?,
            });
            continue;
        }
        let mut command = suite.command();
        if std::env::var_os(THREADS).is_none() {
            let threads = match suite.needs_root() {
                true => KERNEL_THREADS,
                false => OTHER_THREADS * available_parallelism().map_or(1, NonZero::get),
            };
            command.env(THREADS, threads.to_string());
        }
        command.args(&options.filter).args(&options.arguments);
        summary.results.push(execute(&suite.to_string(), command)?);
    }
    if let Some(command) = documentation(&checkout, &suites, options) {
        summary.results.push(execute(DOCUMENTATION, command)?);
    }
    Ok(summary)
}

/// The tests in documentation, which cargo compiles and runs itself. Only libraries have them, and asked for a
/// package without one cargo refuses.
fn documentation(checkout: &Checkout, suites: &[Suite], options: &Options) -> Option<Command> {
    let mut arguments = vec!["test", "--locked", "--doc"];
    if options.package.is_empty() {
        arguments.push("--workspace");
    } else {
        let libraries = suites.iter().filter(|suite| suite.kind == Kind::Library);
        arguments.extend(libraries.flat_map(|suite| ["--package", suite.package.as_str()]));
        if !arguments.contains(&"--package") {
            return None;
        }
    }
    arguments.push("--");
    arguments.extend(
        options
            .filter
            .iter()
            .chain(&options.arguments)
            .map(String::as_str),
    );
    Some(cargo::command(checkout, &arguments))
}

/// Test programs, examples, and the programs that tests start and look for in the target directory.
const EVERYTHING: [&str; 4] = [
    "--locked",
    "--workspace",
    "--all-targets",
    "--message-format=json-render-diagnostics",
];

/// Compiles all that is asked for at once. Asked in two steps, cargo would compile half of it twice, because only tests see
/// the features that development dependencies turn on.
fn compile(checkout: &Checkout, what: &[&str]) -> anyhow::Result<Vec<Suite>> {
    let suites = Arc::new(Mutex::new(Vec::new()));
    let found = Arc::clone(&suites);
    let (ended, _) = foreground::run_reading(
        cargo::command(checkout, &[&["build"], what].concat()),
        Reach::Group,
        None,
        move |line| {
            found
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(Suite::from_cargo_message(line));
        },
    )?;
    if !ended.unless_interrupted()?.success() {
        bail!("the tests do not compile; the compiler's messages are above");
    }
    let mut suites = std::mem::take(&mut *suites.lock().unwrap_or_else(PoisonError::into_inner));
    // The quick ones first: what they find is often why the slow ones fail.
    suites.sort_by_key(|suite| (suite.needs_root(), suite.clone()));
    Ok(suites)
}

/// Names of the tests that the suite would run.
fn list(suite: &Suite, options: &Options) -> anyhow::Result<Vec<String>> {
    let mut command = suite.command();
    let command = command
        .args(["--list", "--format", "terse"])
        .args(&options.filter)
        .stdin(Stdio::null());
    let output = command
        .output()
        .with_context(|| format!("cannot list the tests of {suite}"))?;
    Ok(parse_list(&String::from_utf8_lossy(&output.stdout)))
}

/// Runs a suite, its lines on the terminal as they come.
pub(crate) fn execute(name: &str, command: Command) -> anyhow::Result<SuiteResult> {
    eprintln!("\n--- {name}");
    let parser = Arc::new(Mutex::new(Parser::default()));
    let sink = Arc::clone(&parser);
    let started = Instant::now();
    let (ended, complete) =
        foreground::run_reading(command, Reach::Group, Some(SUITE_DEADLINE), move |line| {
            println!("{line}");
            sink.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .line(line);
        })?;
    let time = started.elapsed();
    let report =
        std::mem::take(&mut *parser.lock().unwrap_or_else(PoisonError::into_inner)).finish();
    Ok(judge(
        name,
        report,
        ended.unless_interrupted()?,
        complete,
        time,
    ))
}

/// A suite that says it passed has passed only if its end says the same.
fn judge(name: &str, report: Report, ended: Ended, complete: bool, time: Duration) -> SuiteResult {
    let mut failures: Vec<_> = report.failures.into_iter().collect();
    // Counted without a name, should the names have been torn by other output.
    failures.resize_with(failures.len().max(report.failed), || {
        "(a test whose name was not to be read)".to_owned()
    });
    if report.unfinished {
        failures.push(format!("(the program {ended} in the middle of a test)"));
    } else if !ended.success() && failures.is_empty() {
        failures.push(format!("(the program {ended})"));
    } else if ended.success() && report.finished_runs == 0 && name != DOCUMENTATION {
        failures.push("(the program reported no result)".to_owned());
    }
    if !complete {
        failures.push(
            "(processes that its tests started outlived it, and hold its output open)".to_owned(),
        );
    }
    SuiteResult {
        suite: name.to_owned(),
        passed: report.passed,
        failed: failures.len(),
        skipped: report.ignored,
        time,
        failures,
    }
}
