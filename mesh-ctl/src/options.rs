//! The command line.

use std::path::PathBuf;

use mesh_client::mesh::Owner;

use crate::{
    bugreport, capture::Capture, check, doctor, drain, endpoints, explain, firewall, generated,
    leave, monitor::Monitor, node, nodes, peers, ping::Ping, place::Place, port::Port, routes,
    status, token, top, trace::Trace,
};

/// Looks into a node of the mesh, and attaches containers to it.
///
/// Commands that look end with 0 if all is well, with 1 if something is not, and with 2 if that cannot be told.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "meshctl", version)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) place: Place,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Is this node fine, and if not, why not?
    Status(status::Options),
    /// What of this host is in the way of the mesh, and what to do: 0 nothing is in error, 1 something is, 2 not all could be
    /// looked at.
    Doctor(doctor::Options),
    /// The other nodes, and how this one reaches them.
    Peers(peers::Options),
    /// The containers of this node, and the path that their packets take.
    Endpoints(endpoints::Options),
    /// What a problem's code means; without one, all codes.
    Explain(explain::Options),
    /// The routes over the overlay, and what is in their place where one is missing.
    Routes(routes::Options),
    /// What is carried with each peer, as it happens, the busiest first.
    Top(top::Options),
    /// Gives a container an interface on the mesh: address, routes, guards. Repeating it is success.
    Attach(Attach),
    /// Takes a container off the mesh, and its address back. One that is not on it is success.
    Detach(Detach),
    /// Lists the leased addresses of this node.
    Addresses(Addresses),
    /// Gives back an address whose container is gone. What is attached is detached instead.
    Release(Release),
    /// Shows what becomes of packets on this node: what the programs decide, sampled, and what our rules drop.
    Monitor(Monitor),
    /// Captures what goes to and comes from one peer, fast path included, for tcpdump or Wireshark.
    Capture(Capture),
    /// Says what would become of a packet on this node, place by place, without sending it: 0 it passes, 1 it is dropped, 2 it
    /// cannot be told.
    Trace(Trace),
    /// Asks a peer or an address of the overlay: which path answers how fast, and what does not come through.
    Ping(Ping),
    /// The nodes of the cluster, and whether they are fine, as the control plane sees them.
    Nodes(nodes::Options),
    /// What nodes are known by, and those that shall be nodes no more.
    Node(node::Options),
    /// Join tokens: what lets hosts join.
    Token(token::Options),
    /// Has this node take no new containers, and lists what is still here. Repeating it is success.
    Drain(drain::Options),
    /// Takes this node off its mesh for good, unless containers are still here.
    Leave(leave::Options),
    /// The packet filter: whether what guards stands as it should, and who else decides at the same places.
    Firewall(firewall::Options),
    /// Whether nodes reach each other, by every path: 0 all do, 1 not, 2 it cannot be told.
    Check(check::Options),
    /// Collects what somebody elsewhere needs to see to help, as a tar, and lists what is in it.
    Bugreport(bugreport::Options),
    /// Prints what makes a shell complete this command.
    Completions(generated::Completions),
    /// Writes the manual pages of this command and of each below it.
    Man(generated::Man),
}

impl Command {
    /// Whether its exit code says how something is, and not whether something was done.
    pub(crate) fn judges(&self) -> bool {
        match self {
            Self::Status(_)
            | Self::Doctor(_)
            | Self::Peers(_)
            | Self::Endpoints(_)
            | Self::Routes(_)
            | Self::Ping(_)
            | Self::Check(_)
            | Self::Trace(_)
            | Self::Nodes(_)
            | Self::Firewall(_) => true,
            Self::Explain(_)
            | Self::Top(_)
            | Self::Bugreport(_)
            | Self::Completions(_)
            | Self::Man(_)
            | Self::Monitor(_)
            | Self::Capture(_)
            | Self::Attach(_)
            | Self::Detach(_)
            | Self::Addresses(_)
            | Self::Release(_)
            | Self::Node(_)
            | Self::Drain(_)
            | Self::Leave(_)
            | Self::Token(_) => false,
        }
    }
}

/// One interface of one container.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Whose {
    /// The container.
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Name of the interface inside.
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    interface: String,
    /// Whose container it is.
    #[arg(long, value_name = "NAME", default_value = "meshctl")]
    engine: String,
    /// The engine's network.
    #[arg(long, value_name = "NAME", default_value = "quilt")]
    network: String,
}

impl Whose {
    pub(crate) fn owner(&self) -> Owner {
        Owner {
            engine: self.engine.clone(),
            network: self.network.clone(),
            container: self.container.clone(),
            interface: self.interface.clone(),
        }
    }

    pub(crate) fn container(&self) -> &str {
        &self.container
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Attach {
    #[command(flatten)]
    pub(crate) whose: Whose,
    /// The container's network namespace; /run/netns/CONTAINER if it is not given.
    #[arg(long, value_name = "PATH")]
    pub(crate) netns: Option<PathBuf>,
    /// The address it shall have; any that is free if it is not given.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value_t,
        hide_default_value = true
    )]
    pub(crate) address: String,
    /// The MAC address it shall have.
    #[arg(long, value_name = "MAC", default_value_t, hide_default_value = true)]
    pub(crate) mac: String,
    /// The most it sends at once, in bytes; the overlay's MTU if it is not given.
    #[arg(long, value_name = "BYTES", default_value_t, hide_default_value = true)]
    pub(crate) mtu: u32,
    /// Leave the default route alone: the interface reaches the cluster only.
    #[arg(long)]
    pub(crate) no_default_route: bool,
    /// A port of the host by which the container is reached, such as 8080:80, 53:53/udp or
    /// 192.0.2.11:8000-8009:80-89; may be given several times.
    #[arg(long, short, value_name = "PORT")]
    pub(crate) publish: Vec<Port>,
    /// A name by which the container is known; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Vec<String>,
    /// A label to keep with its address; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// Print a document for a machine.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Detach {
    #[command(flatten)]
    pub(crate) whose: Whose,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Release {
    #[command(flatten)]
    pub(crate) whose: Whose,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Addresses {
    /// Those of one engine alone.
    #[arg(long, value_name = "NAME", default_value_t, hide_default_value = true)]
    pub(crate) engine: String,
    /// Those of one network alone.
    #[arg(long, value_name = "NAME", default_value_t, hide_default_value = true)]
    pub(crate) network: String,
    /// Print a document for a machine.
    #[arg(long)]
    pub(crate) json: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Options::command().debug_assert();
    }

    #[test]
    fn a_container_alone_is_an_owner() {
        let options = Options::parse_from(["meshctl", "attach", "web"]);
        let Command::Attach(attach) = options.command else {
            panic!("{options:?}");
        };
        let expected = Owner {
            engine: "meshctl".to_owned(),
            network: "quilt".to_owned(),
            container: "web".to_owned(),
            interface: "eth0".to_owned(),
        };
        assert_eq!(attach.whose.owner(), expected);
    }
}
