//! `quilt-cni`: puts containers of whatever speaks CNI on the mesh.
//!
//! With `CNI_COMMAND` set it is a plugin, and says what became of a call on standard output as the specification has it
//! (<https://www.cni.dev/docs/spec/>, versions 0.3.0 to 1.1.0). Without, it is a command for the operator:
//! `quilt-cni install --engine podman`.
//!
//! | module | what it is |
//! |---|---|
//! | `call` | what is called, from the environment |
//! | `network` | the configuration, from standard input |
//! | `version` | the specification's versions, and what differs |
//! | `failure` | what cannot be done, with the specification's codes |
//! | `add`, `del`, `check`, `gc`, `status` | the calls |
//! | `attachment` | the result of ADD, as it is printed and as it comes back |
//! | `namespace` | the container's network namespace |
//! | `install` | configuration and binary, where an engine looks |

mod add;
mod attachment;
mod call;
mod check;
mod del;
mod failure;
mod gc;
mod install;
mod namespace;
mod network;
mod status;
mod version;

use std::{
    env,
    io::{self, Read as _, Write as _},
    process::ExitCode,
};

use clap::Parser as _;
use serde_json::Value;

use call::{Call, Command};
use failure::{Code, Failure};
use network::Network;
use version::Version;

/// The longest configuration that is read, in bytes: whole results of earlier plugins are in it.
const LONGEST_INPUT: u64 = 4 << 20;

fn main() -> ExitCode {
    if env::var_os("CNI_COMMAND").is_none() {
        return operate();
    }
    let mut version = Version::LATEST;
    match plugin(&mut version) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(result)) => match print(&result) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(failure) => {
            // Nobody may be reading any more, and the exit code says the same.
            let _ = print(&failure.json(version));
            ExitCode::FAILURE
        }
    }
}

/// What an operator asks for.
fn operate() -> ExitCode {
    match install::run(install::Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quilt-cni: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One call. `version` becomes that of the configuration, as soon as it is known: a failure is told in it.
fn plugin(version: &mut Version) -> Result<Option<Value>, Failure> {
    let command = Command::read()?;
    let input = read_input()?;
    if command == Command::Version {
        return Ok(Some(version::supported(&input)));
    }
    *version = version::of(&input)?;
    command.check_version(*version)?;
    let network = match command {
        Command::Del => Network::read_names(&input, *version)?,
        _ => Network::read(&input, *version)?,
    };
    let call = Call::read(command, &network)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|error| Failure::new(Code::Io, format!("no event loop: {error}")))?;
    runtime.block_on(async {
        match command {
            Command::Add => add::add(&call, &network).await.map(Some),
            Command::Del => del::del(&call, &network).await.map(|()| None),
            Command::Check => check::check(&call, &network).await.map(|()| None),
            Command::Gc => gc::gc(&network).await.map(|()| None),
            Command::Status => status::status(&network).await.map(|()| None),
            Command::Version => Ok(None),
        }
    })
}

fn read_input() -> Result<Vec<u8>, Failure> {
    let mut input = Vec::new();
    let read = io::stdin().take(LONGEST_INPUT + 1).read_to_end(&mut input);
    read.map_err(|error| Failure::new(Code::Io, format!("cannot read standard input: {error}")))?;
    if input.len() as u64 > LONGEST_INPUT {
        return Err(Failure::new(
            Code::Decode,
            format!("the configuration on standard input has more than {LONGEST_INPUT} bytes"),
        ));
    }
    Ok(input)
}

fn print(document: &Value) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{document}")?;
    output.flush()
}
