//! `cargo xtask ci`

use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::foreground::Interrupted;
use crate::test::Summary;
use crate::{build_ebpf, cargo, demo, kernel, setup, test};

/// Run what has to hold beside the tests before a change goes in, with the time of each step
///
/// Formatting, clippy and rustdoc with warnings as errors, the demo, those faults that are quick, and the kernels that
/// Debian 12 ships, 6.1 and 6.12, under emulation; the build is what these two run. A failed step does not keep the
/// later ones from running. Needs root, and apt for the kernels. `.ci/run` runs `cargo xtask test` as well.
#[derive(clap::Args)]
pub(crate) struct Options {}

/// A step that is over.
struct Step {
    name: &'static str,
    took: Duration,
    error: Option<anyhow::Error>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = if self.error.is_none() { "ok" } else { "FAILED" };
        write!(
            f,
            "{:<14} {outcome:<6} {:>6.1} s",
            self.name,
            self.took.as_secs_f64()
        )?;
        self.error
            .iter()
            .try_for_each(|error| write!(f, "  {error:#}"))
    }
}

pub(crate) fn run(_: &Options) -> anyhow::Result<ExitCode> {
    setup::require_root("ci")?;
    let mut steps = Vec::new();
    let mut step = |name, work: &mut dyn FnMut() -> anyhow::Result<()>| {
        eprintln!("\n=== {name}");
        let started = Instant::now();
        let error = work().err();
        let step = Step {
            name,
            took: started.elapsed(),
            error,
        };
        eprintln!("=== {step}");
        match step.error {
            Some(error) if error.is::<Interrupted>() => return Err(error),
            error => steps.push(Step { error, ..step }),
        }
        Ok(())
    };
    let checkout = cargo::checkout()?;
    let cargo = |arguments: &[&str]| cargo::run(&checkout, arguments);

    step("setup", &mut || {
        let tools = [setup::Tool::CCompiler, setup::Tool::Bpftool];
        setup::ensure(&[&tools[..], &kernel::TOOLS].concat())?;
        setup::ensure_components()?;
        build_ebpf::build().map(drop)
    })?;
    step("fmt", &mut || cargo(&["fmt", "--all", "--check"]))?;
    step("clippy", &mut || {
        cargo(&[
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])
    })?;
    step("rustdoc", &mut || {
        let mut rustdoc =
            cargo::command(&checkout, &["doc", "--locked", "--workspace", "--no-deps"]);
        rustdoc
            .env("RUSTDOCFLAGS", "-D warnings")
            .stdout(std::io::stderr());
        cargo::finish(&mut rustdoc)
    })?;
    step("build", &mut || cargo::build_ci(&checkout).map(drop))?;
    step("demo", &mut || {
        let ended = demo::demonstrate(&demo::Options::default())?.unless_interrupted()?;
        if !ended.success() {
            bail!("the demo {ended}");
        }
        Ok(())
    })?;
    let mut total = Summary::default();
    let mut suites = |collect: &mut dyn FnMut() -> anyhow::Result<Summary>| {
        let summary = collect()?;
        println!("\n{}", summary.text());
        let failed = summary.failed();
        total.append(summary);
        if failed > 0 {
            bail!("{failed} failed");
        }
        Ok(())
    };
    step("faults", &mut || suites(&mut test::faults::collect_ci))?;
    step("kernels", &mut || {
        suites(&mut || kernel::collect(&kernel::IN_CI))
    })?;

    println!();
    for step in &steps {
        println!("{step}");
    }
    // The line that says how many ran and held comes last: .ci/run reads it.
    println!("\n{}", total.last_line());
    let all_held = steps.iter().all(|step| step.error.is_none());
    Ok(if all_held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
