//! `quilt-netavark`: puts containers of Podman with netavark on the mesh.
//!
//! Podman and netavark run it as the plugin `quilt`, by which driver a network is made (`podman network create --driver quilt
//! mesh`): `create`, `setup NETNS`, `teardown NETNS` and `info`, each with JSON on standard input and output
//! (<https://github.com/containers/netavark/blob/main/plugin-API.md>, version 1.0.0). For the operator it has `install`.
//!
//! | module | what it is |
//! |---|---|
//! | `network` | the network, as it comes on standard input |
//! | `container` | one interface of one container in it, likewise |
//! | `port` | the ports of the host by which it is reached |
//! | `create`, `setup`, `teardown` | the calls |
//! | `place` | where the plugin runs: as root, beside the runtime |
//! | `install` | the plugin, where netavark looks |

mod container;
mod create;
mod install;
mod network;
mod place;
mod port;
mod setup;
mod teardown;

use std::{
    env,
    ffi::OsString,
    io::{self, Read as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Parser as _;
use serde_json::{Value, json};

/// Under which leases are written: Podman's, whatever back end it has.
const ENGINE: &str = "podman";

/// What the plugin calls itself.
const NAME: &str = "quilt-netavark";

/// The driver's name, and so the file's.
const DRIVER: &str = "quilt";

/// The version of the contract that is spoken here.
const API_VERSION: &str = "1.0.0";

/// The longest input that is read, in bytes.
const LONGEST_INPUT: u64 = 4 << 20;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let call = arguments.first().map_or(Some("info"), |it| it.to_str());
    let outcome = match call {
        Some("info") => Ok(Some(info())),
        Some("create") => answer(&arguments, Call::Create),
        Some("setup") => answer(&arguments, Call::Setup),
        Some("teardown") => answer(&arguments, Call::Teardown),
        _ => return operate(),
    };
    let (document, code) = match outcome {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(document)) => (document, ExitCode::SUCCESS),
        Err(error) => (json!({ "error": format!("{error:#}") }), ExitCode::FAILURE),
    };
    match print(&document) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What Podman or netavark asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Create,
    Setup,
    Teardown,
}

/// What an operator asks for.
fn operate() -> ExitCode {
    match install::run(install::Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quilt-netavark: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn info() -> Value {
    json!({ "name": NAME, "version": env!("CARGO_PKG_VERSION"), "api_version": API_VERSION })
}

fn answer(arguments: &[OsString], call: Call) -> anyhow::Result<Option<Value>> {
    let namespace = || -> anyhow::Result<PathBuf> {
        let path = arguments.get(1).filter(|it| !it.is_empty());
        Ok(path
            .context("the path of the container's network namespace is missing behind the command")?
            .into())
    };
    let namespace = match call {
        Call::Create => PathBuf::new(),
        Call::Setup | Call::Teardown => namespace()?,
    };
    let input = read_input()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no event loop")?;
    runtime.block_on(async {
        match call {
            Call::Create => create::create(&input).await.map(Some),
            Call::Setup => setup::setup(namespace, &input).await.map(Some),
            Call::Teardown => teardown::teardown(namespace, &input).await.map(|()| None),
        }
    })
}

fn read_input() -> anyhow::Result<Vec<u8>> {
    let mut input = Vec::new();
    let read = io::stdin().take(LONGEST_INPUT + 1).read_to_end(&mut input);
    read.context("cannot read standard input")?;
    if input.len() as u64 > LONGEST_INPUT {
        bail!("standard input has more than {LONGEST_INPUT} bytes");
    }
    Ok(input)
}

/// Reads JSON; an error names the field.
fn read<'a, T: serde::Deserialize<'a>>(input: &'a [u8]) -> anyhow::Result<T> {
    let mut input = serde_json::Deserializer::from_slice(input);
    let unreadable = |error: &dyn std::fmt::Display| {
        let error = without_middle(&error.to_string());
        anyhow::anyhow!("standard input cannot be read: {error}")
    };
    let read = serde_path_to_error::deserialize(&mut input).map_err(|error| unreadable(&error))?;
    input.end().map_err(|error| unreadable(&error))?;
    Ok(read)
}

fn print(document: &Value) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{document}")?;
    output.flush()
}

/// The beginning of what somebody wrote, for an error.
fn short(text: &str) -> String {
    text.chars().take(48).collect()
}

/// What an error says that quotes somebody: the field and the rule, which stand at its ends.
fn without_middle(text: &str) -> String {
    const END: usize = 120;
    let characters: Vec<char> = text.chars().collect();
    match characters.len() > 2 * END {
        true => {
            let [first, last] = [&characters[..END], &characters[characters.len() - END..]];
            first.iter().chain(&['…']).chain(last).collect()
        }
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_one_value_and_nothing_behind_it() {
        assert_eq!(read::<Value>(b" {} \n").unwrap(), json!({}));
        for behind in ["{}", "]", "x", "\0"] {
            let refused = read::<Value>(format!("{{}}{behind}").as_bytes());
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("trailing characters"), "{refused}");
        }
    }

    #[test]
    fn an_error_names_field_and_rule_however_long_the_value_is() {
        #[derive(Debug, serde::Deserialize)]
        #[allow(dead_code, reason = "it is never read")]
        struct Flags {
            internal: bool,
        }
        let long = json!({ "internal": "ä".repeat(5000) }).to_string();
        let refused = read::<Flags>(long.as_bytes()).unwrap_err().to_string();
        for word in ["internal", "…", "expected a boolean"] {
            assert!(refused.contains(word), "{refused}");
        }
        assert!(refused.chars().count() < 300, "{refused}");
        assert_eq!(without_middle(&"x".repeat(240)), "x".repeat(240));
    }
}
