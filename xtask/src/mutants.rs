//! `cargo xtask mutants`

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use mesh_ebpf_build::Checkout;
use serde_json::Value;

use crate::cargo;
use crate::foreground::{self, Reach};
use crate::setup::{self, Tool};

/// The version of cargo-mutants whose report is read here.
const VERSION: &str = "27.1.0";

/// The rules of the control plane, which decide without a database, a clock or a network.
const CORES: [&str; 7] = [
    "mesh-control/src/cluster/identity.rs",
    "mesh-control/src/cluster/next_subnet.rs",
    "mesh-control/src/cluster/liveness.rs",
    "mesh-control/src/copy/roster.rs",
    "mesh-control/src/cluster/silence.rs",
    "mesh-control/src/cluster/subnet_plan.rs",
    "mesh-control/src/cluster/succession.rs",
];

/// Change code in small ways, one at a time, and see which of these mutants the unit tests notice
///
/// Each mutant is built and tried in a copy of the checkout, with the unit tests of its library (`cargo test --lib`).
/// Prints for each file how many are noticed, and every one that is not; exit code 0 only if the share that --at-least
/// asks for was reached in all of the files together. A mutant takes 10 seconds, and the first one some minutes.
/// Installs cargo-mutants below target. What it told of each mutant is in target/mutants/mutants.out afterwards.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Source files of libraries, as seen from the root of the checkout [default: the rules of the control plane]
    files: Vec<PathBuf>,

    /// How many percent of the mutants that compile have to be noticed
    #[arg(long, env = "QUILT_MESH_AT_LEAST", default_value = "95", value_name = "PERCENT",
        value_parser = clap::value_parser!(u32).range(0..=100))]
    at_least: u32,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    setup::ensure(&[Tool::CCompiler])?;
    let checkout = cargo::checkout()?;
    let files = match options.files.as_slice() {
        [] => CORES.iter().map(PathBuf::from).collect(),
        files => files.to_vec(),
    };
    if let Some(missing) = files
        .iter()
        .find(|file| !checkout.root.join(file).is_file())
    {
        bail!(
            "there is no file {} in {}",
            missing.display(),
            checkout.root.display()
        );
    }
    let programs = installed(&checkout)?;
    let report = try_all(&checkout, &programs, &files)?;
    let tallies = read(&report)?;
    let all = tallies.values().sum::<Tally>();
    if all.viable() == 0 {
        bail!("nothing in these files can be changed in a way that compiles");
    }
    for (file, tally) in &tallies {
        println!("{file}: {tally}");
        for mutant in &tally.missed {
            println!("  not noticed: {mutant}");
        }
    }
    println!("all: {all}");
    let enough = all.caught * 100 >= all.viable() * options.at_least;
    Ok(if enough {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The folder with cargo-mutants, which is compiled unless it is there.
fn installed(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    let root = checkout.target_dir.join(format!("cargo-mutants-{VERSION}"));
    let programs = root.join("bin");
    if programs.join("cargo-mutants").is_file() {
        return Ok(programs);
    }
    eprintln!("compiling cargo-mutants {VERSION} below target");
    // An interrupted installation is never taken for one.
    let unfinished = checkout.target_dir.join("cargo-mutants-unfinished");
    let build_dir = unfinished.join("build");
    let _ = std::fs::remove_dir_all(&unfinished);
    let mut install = cargo::command(
        checkout,
        &[
            "install",
            "cargo-mutants",
            "--locked",
            "--quiet",
            "--no-track",
            "--version",
            VERSION,
        ],
    );
    install
        .arg("--root")
        .arg(&unfinished)
        .arg("--target-dir")
        .arg(&build_dir);
    install
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .stdout(std::io::stderr());
    cargo::finish(&mut install)?;
    let _ = std::fs::remove_dir_all(&build_dir);
    let _ = std::fs::remove_dir_all(&root);
    std::fs::rename(&unfinished, &root)
        .with_context(|| format!("cannot create {}", root.display()))?;
    Ok(programs)
}

/// Tries every mutant, and returns the report about them.
fn try_all(checkout: &Checkout, programs: &Path, files: &[PathBuf]) -> anyhow::Result<Value> {
    let dir = checkout.target_dir.join("mutants");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let report = dir.join("mutants.out/outcomes.json");
    // That of an earlier run is not to be taken for this one's.
    let _ = std::fs::remove_file(&report);
    let mut mutants = command(checkout, programs, &dir, files)?;
    let ended = foreground::run(&mut mutants, Reach::Group, None)?.unless_interrupted()?;
    let text = std::fs::read(&report).with_context(|| {
        format!("cargo mutants {ended} without a report; its messages are above")
    })?;
    serde_json::from_slice(&text).with_context(|| format!("cannot read {}", report.display()))
}

fn command(
    checkout: &Checkout,
    programs: &Path,
    dir: &Path,
    files: &[PathBuf],
) -> anyhow::Result<Command> {
    let mut command = cargo::command(
        checkout,
        &["mutants", "--jobs", "1", "--no-config", "--output"],
    );
    command.arg(dir);
    for file in files {
        command.arg("--file").arg(file);
    }
    // Also for building: the other tests of the package would be linked each time, and are not run.
    command.arg("--cargo-arg=--lib");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: OsString = std::env::join_paths(
        std::iter::once(programs.to_owned()).chain(std::env::split_paths(&path)),
    )
    .context("cannot add to PATH")?;
    command
        .env("PATH", path)
        // Of the copy, which is a new folder each time: what it has in common with the one before is kept.
        .env("CARGO_TARGET_DIR", dir.join("build"))
        .stdout(std::io::stderr());
    Ok(command)
}

/// What became of mutants.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    /// The tests failed.
    caught: u32,
    /// Those among them with which the tests did not end.
    hung: u32,
    /// The tests passed.
    missed: Vec<String>,
    /// They do not compile, which is no merit of the tests.
    unviable: u32,
}

impl Tally {
    fn viable(&self) -> u32 {
        self.caught + u32::try_from(self.missed.len()).unwrap_or(u32::MAX)
    }
}

impl<'a> std::iter::Sum<&'a Self> for Tally {
    fn sum<I: Iterator<Item = &'a Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |mut sum, tally| {
            sum.caught += tally.caught;
            sum.hung += tally.hung;
            sum.missed.extend(tally.missed.iter().cloned());
            sum.unviable += tally.unviable;
            sum
        })
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let viable = self.viable();
        write!(f, "{} of {viable} noticed", self.caught)?;
        if viable > 0 {
            write!(
                f,
                " ({:.1} %)",
                f64::from(self.caught) * 100.0 / f64::from(viable)
            )?;
        }
        if self.hung > 0 {
            write!(f, ", {} of them because the tests did not end", self.hung)?;
        }
        if self.unviable > 0 {
            write!(f, "; {} do not compile", self.unviable)?;
        }
        Ok(())
    }
}

/// Counts by file what cargo-mutants' report says.
fn read(report: &Value) -> anyhow::Result<BTreeMap<String, Tally>> {
    let outcomes = report["outcomes"]
        .as_array()
        .context("the report has no outcomes")?;
    let mut tallies = BTreeMap::<String, Tally>::new();
    for outcome in outcomes {
        let summary = outcome["summary"].as_str().unwrap_or_default();
        let mutant = &outcome["scenario"]["Mutant"];
        let (Some(file), Some(name)) = (mutant["file"].as_str(), mutant["name"].as_str()) else {
            // The code as it is.
            if summary != "Success" {
                bail!(
                    "the tests fail without any change, too; target/mutants/mutants.out/log/baseline.log says how"
                );
            }
            continue;
        };
        let tally = tallies.entry(file.to_owned()).or_default();
        match summary {
            "CaughtMutant" => tally.caught += 1,
            "Timeout" => (tally.caught, tally.hung) = (tally.caught + 1, tally.hung + 1),
            "MissedMutant" => tally.missed.push(name.to_owned()),
            "Unviable" => tally.unviable += 1,
            _ => bail!("{name} was not tried: {summary:?}"),
        }
    }
    Ok(tallies)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcome(file: &str, name: &str, summary: &str) -> Value {
        json!({"scenario": {"Mutant": {"file": file, "name": name}}, "summary": summary})
    }

    #[test]
    fn the_rules_of_the_control_plane_are_where_they_are_looked_for() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for file in CORES {
            assert!(root.join(file).is_file(), "{file}");
        }
    }

    #[test]
    fn mutants_are_counted_by_file_and_those_that_do_not_compile_are_not_in_the_share() {
        let report = json!({"outcomes": [
            {"scenario": "Baseline", "summary": "Success"},
            outcome("a.rs", "a.rs:1", "CaughtMutant"),
            outcome("a.rs", "a.rs:2", "Timeout"),
            outcome("a.rs", "a.rs:3", "Unviable"),
            outcome("b.rs", "b.rs:1", "MissedMutant"),
            outcome("b.rs", "b.rs:2", "CaughtMutant"),
        ]});
        let tallies = read(&report).unwrap();
        let said: Vec<_> = tallies
            .iter()
            .map(|(file, tally)| format!("{file}: {tally}"))
            .collect();
        assert_eq!(
            said,
            [
                "a.rs: 2 of 2 noticed (100.0 %), 1 of them because the tests did not end; 1 do not compile",
                "b.rs: 1 of 2 noticed (50.0 %)"
            ]
        );
        let all = tallies.values().sum::<Tally>();
        assert_eq!(
            all.to_string(),
            "3 of 4 noticed (75.0 %), 1 of them because the tests did not end; 1 do not compile"
        );
        assert_eq!(all.missed, ["b.rs:1"]);
    }

    #[test]
    fn nothing_is_counted_where_the_tests_fail_anyway_or_a_mutant_was_not_tried() {
        for wrong in [
            json!({"outcomes": [{"scenario": "Baseline", "summary": "Failure"}]}),
            json!({"outcomes": [outcome("a.rs", "a.rs:1", "Failure")]}),
            json!({}),
        ] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }
}
