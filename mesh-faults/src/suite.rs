//! Which faults are done, in the words of Rust's test programs, so that whatever reads theirs
//! reads this.

use std::{io::Write as _, process::ExitCode, time::Instant};

use anyhow::{Context as _, bail};

use crate::{
    fault::Fault,
    faults,
    options::FaultOptions,
    report::{Machine, Report},
    run::Stage,
    scene::Settings,
};

/// What is to become of a fault.
enum Choice {
    Do,
    /// Not this time, and why.
    Leave(String),
}

pub(crate) async fn run(options: &FaultOptions) -> anyhow::Result<ExitCode> {
    let all = faults::all();
    if options.list {
        for fault in &all {
            let ci = if fault.ci { "ci" } else { "  " };
            println!("{:28} {ci}  {}", fault.name, fault.breaks);
            println!("{:28}     {}", "", fault.promise.in_words());
        }
        return Ok(ExitCode::SUCCESS);
    }
    // Daemons are started in directories of their own.
    let upgrade_from = options
        .upgrade_from_dir
        .as_deref()
        .map(std::path::absolute)
        .transpose()
        .context("cannot find the current directory")?;
    let seed = options.seed.unwrap_or_else(rand::random);
    let settings = Settings {
        repeat: options.repeat,
        pause: options.pause(),
        seed,
        random: options.random,
        pace: options.pace(),
        upgrade_from,
    };
    let chosen = choose(&all, options, &settings)?;
    let mut report = Report::new(Machine::here(), seed);
    let mut stage = Stage::new(settings);
    let started = Instant::now();
    println!("running {} tests", chosen.len());
    for (fault, choice) in chosen {
        match choice {
            Choice::Leave(reason) => {
                println!("test {} ... ignored, {reason}", fault.name);
                report.leave_out(fault, reason);
            }
            Choice::Do => {
                print!("test {} ... ", fault.name);
                // A person waits for minutes: they want to see for what.
                let _ = std::io::stdout().flush();
                let outcome = stage.perform(fault).await;
                println!("{}", if outcome.passed() { "ok" } else { "FAILED" });
                for broken in &outcome.broken {
                    eprintln!("    {broken}");
                }
                report.add(fault, outcome);
            }
        }
    }
    println!("\n{}", report.table());
    if let Some(path) = &options.json {
        std::fs::write(path, report.json()?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &options.markdown {
        std::fs::write(path, report.markdown())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{}", report.result(started.elapsed().as_secs_f64()));
    println!("{}", report.last_line());
    Ok(match report.failed() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn choose<'a>(
    all: &'a [Fault],
    options: &FaultOptions,
    settings: &Settings,
) -> anyhow::Result<Vec<(&'a Fault, Choice)>> {
    let is_named = |fault: &Fault| {
        options.only.is_empty() || options.only.iter().any(|name| fault.name.starts_with(name))
    };
    if let Some(name) = options
        .only
        .iter()
        .find(|name| !all.iter().any(|fault| fault.name.starts_with(*name)))
    {
        bail!("no fault is called {name:?}: `cargo xtask test faults --list` names them all");
    }
    Ok(all
        .iter()
        .filter(|fault| is_named(fault))
        .map(|fault| {
            let choice = match fault.lacking.and_then(|lacking| lacking(settings)) {
                _ if options.ci && !fault.ci => {
                    Choice::Leave("left out of continuous integration".into())
                }
                _ if settings.pace.is_slow() && !fault.any_pace => {
                    Choice::Leave("its times mean nothing where everything is slower".into())
                }
                Some(reason) => Choice::Leave(reason),
                None => Choice::Do,
            };
            (fault, choice)
        })
        .collect())
}
