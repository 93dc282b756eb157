//! `quilt-docker`: puts containers of Docker on the mesh.
//!
//! Docker calls it as the plugin `quilt`, which is both a network driver and an IPAM driver: `docker network create --driver quilt
//! --ipam-driver quilt mesh`. Each call is JSON over HTTP on a Unix socket
//! (<https://github.com/moby/moby/blob/v28.5.2/libnetwork/docs/remote.md>, `ipam.md` beside it).
//!
//! | module | what it is |
//! |---|---|
//! | `serve` | the socket, and what ends with it |
//! | `calls` | from Docker's requests to its answers |
//! | `ipam_driver` | addresses |
//! | `lease` | how an address is leased, confirmed and given back |
//! | `network_driver` | networks, and containers' interfaces |
//! | `pool`, `network`, `port` | what Docker asks for, and what of it can be |
//! | `record` | what was given to Docker, on the disk |
//! | `turn` | one thing at a time for each container |
//! | `unfinished` | what is undone once the runtime is back |
//! | `forgotten` | what Docker forgot to give back |
//! | `runtime` | the runtime behind its socket |
//! | `install` | the service, where systemd finds it |

mod calls;
mod forgotten;
mod install;
mod ipam_driver;
mod lease;
mod network;
mod network_driver;
mod pool;
mod port;
mod record;
mod runtime;
mod serve;
mod turn;
mod unfinished;

use std::process::ExitCode;

use clap::Parser as _;

/// Under which leases are written.
const ENGINE: &str = "docker";

/// The network's name in leases: whatever Docker's networks are called, they are names of one mesh.
const NETWORK: &str = "quilt";

/// The drivers' name, and so the socket's.
const DRIVER: &str = "quilt";

/// Puts containers of Docker on the mesh
#[derive(Debug, clap::Parser)]
#[command(name = "quilt-docker", version, args_override_self = true)]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Serve Docker's calls, until SIGTERM or SIGINT
    Serve(serve::Options),
    /// Have systemd start it whenever Docker calls, and say what is to be done
    Install(install::Place),
    /// Undo that, once no network of Docker's is made by it
    Uninstall(install::Place),
}

fn main() -> ExitCode {
    let done = match Options::parse().what {
        What::Serve(options) => serve::run(options),
        What::Install(place) => place.install(),
        What::Uninstall(place) => place.uninstall(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quilt-docker: {error:#}");
            ExitCode::FAILURE
        }
    }
}
