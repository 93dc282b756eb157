//! `cargo xtask`: build, demo, test and bench from one place.

mod build_ebpf;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", version, about, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    BuildEbpf(build_ebpf::Options),
}

fn main() -> ExitCode {
    let outcome = match CommandLine::parse().command {
        Task::BuildEbpf(options) => build_ebpf::run(&options),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
