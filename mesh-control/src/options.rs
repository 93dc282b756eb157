//! The command line. `--help` is its reference.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Parser};
use ipnet::Ipv4Net;
use mesh_admin::duration_text;
use mesh_credentials::tls_files::TlsFiles;
use mesh_metrics::MetricsOptions;
use mesh_rest::overlay::{LARGEST_VNI, Overlay};
use tracing_subscriber::EnvFilter;

use crate::cluster::settings::Settings;
use crate::cluster::subnet_plan::parse_cidr;
use crate::commands::Command;

/// Where the database is unless told otherwise; the only directory that is created when missing.
pub const DEFAULT_DB_PATH: &str = "/var/lib/quilt-mesh/control.db";

/// The shortest node timeout: below it, scheduling delays would take nodes down.
const SHORTEST_NODE_TIMEOUT: Duration = Duration::from_millis(100);
/// The longest node timeout: a day.
const LONGEST_NODE_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// The control plane of Quilt Mesh: registers nodes, leases their subnets, watches that they live.
///
/// It needs no privileges. It keeps everything in one SQLite file, or in a PostgreSQL database that several of
/// them share, and takes up where it was after a restart or a crash. SIGTERM and SIGINT stop it in order.
///
/// Nodes join by tokens, and talk to it over TLS. Without a command it serves; the commands talk to the one that serves
/// on this host, over its admin socket.
#[derive(Debug, Clone, Parser)]
#[command(name = "quilt-mesh-control", version)]
pub struct Options {
    /// What to do; to serve, if nothing is said
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Address and port to serve the REST API on; port 0 takes a free one, which the log names
    #[arg(long, visible_alias = "listen", value_name = "ADDR", env = "QUILT_MESH_BIND",
        default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)))]
    pub bind: SocketAddr,

    /// The SQLite database; created if missing, in a directory that exists (the default's is created)
    #[arg(long, value_name = "FILE", env = "QUILT_MESH_DB_PATH", default_value = DEFAULT_DB_PATH, global = true)]
    pub db_path: PathBuf,

    /// The database as a URL, in place of --db-path: sqlite:FILE, or postgres://USER:PASSWORD@HOST/DATABASE for
    /// several control planes that share one PostgreSQL database. Give it as environment variable to keep
    /// the password out of the process list
    #[arg(long, value_name = "URL", env = "QUILT_MESH_DATABASE_URL", hide_env_values = true,
        conflicts_with = "db_path", value_parser = database_url)]
    pub database_url: Option<Database>,

    /// Directory of the certificate authority's keys (file "authority.key.pem") and of the admin socket ("admin.sock") [default:
    /// that of the database's file; /var/lib/quilt-mesh with PostgreSQL]
    #[arg(long, value_name = "DIR", env = "QUILT_MESH_STATE_DIR", global = true)]
    pub state_dir: Option<PathBuf>,

    /// Speak plain HTTP with everybody, and let everybody do everything as long as the cluster has no credentials
    ///
    /// Without it plain HTTP is spoken with processes of this host alone (over loopback), and everybody else needs TLS. Shown in the log,
    /// in every answer, and wherever status is shown.
    #[arg(long, env = "QUILT_MESH_INSECURE", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub insecure: bool,

    /// A name by which browsers may call this control plane over plain HTTP, beside its addresses and this host's name;
    /// several, separated by commas
    #[arg(long, value_name = "NAME", env = "QUILT_MESH_ALLOWED_HOST", action = ArgAction::Append, value_delimiter = ',')]
    pub allowed_host: Vec<String>,

    /// A certificate of your own, in PEM with those between, for clients that do not go by the mesh's own authority; read
    /// again when it is replaced, as are the next two
    #[arg(
        long,
        value_name = "FILE",
        env = "QUILT_MESH_TLS_CERT",
        requires = "tls_key"
    )]
    pub tls_cert: Option<PathBuf>,

    /// Its private key, in PEM; only its owner may be able to read the file
    #[arg(
        long,
        value_name = "FILE",
        env = "QUILT_MESH_TLS_KEY",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,

    /// Authorities of your own, in PEM, whose certificates nodes may show in place of those that joining makes
    ///
    /// A node is the first URI in its certificate, or else the first DNS name, or else the common name.
    #[arg(
        long,
        value_name = "FILE",
        env = "QUILT_MESH_TLS_CA",
        requires = "tls_cert"
    )]
    pub tls_ca: Option<PathBuf>,

    /// Where metrics are served.
    #[command(flatten)]
    pub metrics: MetricsOptions,

    /// How many days the audit is kept: who joined, who was refused, what operators did
    #[arg(long, value_name = "DAYS", env = "QUILT_MESH_AUDIT_DAYS", default_value_t = 90,
        value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub audit_days: u32,

    /// Start with a new certificate authority in the place of one whose key is lost; every node has to join again
    #[arg(long, env = "QUILT_MESH_NEW_AUTHORITY", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub new_authority: bool,

    /// What to log to stderr: error, warn, info, debug or trace, or directives such as
    /// "info,mesh_control=debug"
    #[arg(long, value_name = "LEVEL", env = "QUILT_MESH_LOG_LEVEL", default_value = "info",
        value_parser = log_level)]
    pub log_level: String,

    #[command(flatten)]
    #[allow(missing_docs)] // That would be a heading in --help.
    pub log: mesh_log::LogOptions,

    /// The IPv4 range that all containers have addresses from; fixed once a subnet is leased or reserved
    #[arg(long, value_name = "CIDR", env = "QUILT_MESH_CLUSTER_CIDR", default_value = "10.42.0.0/16",
        value_parser = parse_cidr)]
    pub cluster_cidr: Ipv4Net,

    /// Prefix length of each node's subnet; fixed once a subnet is leased or reserved
    #[arg(
        long,
        value_name = "BITS",
        env = "QUILT_MESH_NODE_PREFIX",
        default_value_t = 24
    )]
    pub node_prefix: u8,

    /// The UDP port on which all nodes speak VXLAN
    ///
    /// Nodes are told when they register, and again with every list, so that it may change: while some have
    /// the new one and some the old one they do not reach each other. The same for all replicas. For networks on which
    /// something swallows 4789, as hypervisors do that use VXLAN themselves
    #[arg(long, value_name = "PORT", env = "QUILT_MESH_VXLAN_PORT", default_value_t = Overlay::default().vxlan_port,
        value_parser = clap::value_parser!(u16).range(1..))]
    pub vxlan_port: u16,

    /// The VXLAN network identifier that all nodes use (1 to 16777215); told as --vxlan-port is
    #[arg(long, value_name = "VNI", env = "QUILT_MESH_VNI", default_value_t = Overlay::default().vni,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(LARGEST_VNI)))]
    pub vni: u32,

    /// A node that is silent for this long is down: 500ms, 30s or 2m (from 100ms to a day)
    ///
    /// Nodes are told to beat three times as often when they register. The same for all replicas
    #[arg(long, value_name = "DURATION", env = "QUILT_MESH_NODE_TIMEOUT", default_value = "30s",
        value_parser = node_timeout)]
    pub node_timeout: Duration,

    /// Release the subnets of nodes that left for good (an agent's --leave) after this long, such as 24h; off by
    /// default, and then they wait for an operator. By the wall clock
    #[arg(long, value_name = "DURATION", env = "QUILT_MESH_RELEASE_AFTER", value_parser = duration_text::parse)]
    pub release_after: Option<Duration>,

    /// How long a stop waits for requests that are under way
    #[arg(long, value_name = "DURATION", env = "QUILT_MESH_SHUTDOWN_TIMEOUT", default_value = "10s",
        value_parser = duration_text::parse)]
    pub shutdown_timeout: Duration,
}

/// Where the nodes and leases are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// In an SQLite file.
    File(PathBuf),
    /// On a PostgreSQL server, by its URL, which may hold a password.
    Server(String),
}

/// Without the password.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Server(_) => f.write_str("Server"),
        }
    }
}

impl Options {
    /// What all control planes of the cluster have to agree on.
    pub fn settings(&self) -> Settings {
        Settings {
            overlay: Overlay {
                vxlan_port: self.vxlan_port,
                vni: self.vni,
            },
            node_timeout: self.node_timeout,
        }
    }

    /// Where the authority's keys and the admin socket are.
    pub fn state_dir(&self) -> PathBuf {
        if let Some(directory) = &self.state_dir {
            return directory.clone();
        }
        let path = match self.database() {
            Database::File(path) => path,
            Database::Server(_) => PathBuf::from(DEFAULT_DB_PATH),
        };
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        }
    }

    /// Where the process that serves is talked to by whoever administers it.
    pub fn admin_socket(&self) -> PathBuf {
        self.state_dir().join("admin.sock")
    }

    /// The certificates of one's own, if there are any.
    pub fn tls_files(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            certificate: self.tls_cert.clone()?,
            key: self.tls_key.clone()?,
            authorities: self.tls_ca.clone(),
        })
    }

    /// Where the nodes and leases are kept.
    pub fn database(&self) -> Database {
        self.database_url
            .clone()
            .unwrap_or_else(|| Database::File(self.db_path.clone()))
    }
}

fn database_url(text: &str) -> Result<Database, String> {
    if let Some(file) = text.strip_prefix("sqlite:") {
        let path = file.strip_prefix("//").unwrap_or(file);
        if path.is_empty() {
            return Err("sqlite: needs a file, as in sqlite:/var/lib/quilt-mesh/control.db".into());
        }
        return Ok(Database::File(path.into()));
    }
    let is_postgres = ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    if is_postgres {
        return Ok(Database::Server(text.to_owned()));
    }
    // The text is not repeated: it may hold a password.
    Err("it must begin with sqlite: or postgres://".to_owned())
}

fn node_timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration_text::parse(text).map_err(|error| error.to_string())?;
    if (SHORTEST_NODE_TIMEOUT..=LONGEST_NODE_TIMEOUT).contains(&timeout) {
        Ok(timeout)
    } else {
        Err(format!("{text:?} is not from 100ms to a day (1440m)"))
    }
}

/// `EnvFilter` reads any unknown word as the name of a module, so that "verbose" would log nothing.
fn log_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',') {
        let level = directive.rsplit('=').next().unwrap_or_default();
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            return Err(format!("{level:?} is not one of {}", LEVELS.join(", ")));
        }
    }
    EnvFilter::try_new(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn every_option_reads_an_environment_variable_of_its_name() {
        for argument in Options::command().get_arguments() {
            let Some(long) = argument.get_long() else {
                continue;
            };
            if ["help", "version"].contains(&long) {
                continue;
            }
            let variable = format!("QUILT_MESH_{}", long.replace('-', "_").to_uppercase());
            assert_eq!(
                argument.get_env().and_then(|name| name.to_str()),
                Some(variable.as_str())
            );
        }
    }

    #[test]
    fn port_and_vni_are_what_vxlan_has_room_for() {
        let read = |port, vni| {
            let line = ["quilt-mesh-control", "--vxlan-port", port, "--vni", vni];
            Options::try_parse_from(line).map(|options| options.settings().overlay)
        };
        let overlay = |vxlan_port, vni| Overlay { vxlan_port, vni };
        assert_eq!(read("1", "1").unwrap(), overlay(1, 1));
        assert_eq!(
            read("65535", "16777215").unwrap(),
            overlay(65_535, 16_777_215)
        );
        for (port, vni) in [
            ("0", "1"),
            ("65536", "1"),
            ("1", "0"),
            ("1", "16777216"),
            ("x", "1"),
        ] {
            assert!(read(port, vni).is_err(), "{port} {vni}");
        }
        let unset = Options::try_parse_from(["quilt-mesh-control"]).unwrap();
        assert_eq!(unset.settings().overlay, overlay(4789, 100));
    }

    #[test]
    fn a_database_url_is_a_file_or_a_server() {
        let file = |path: &str| Ok(Database::File(path.into()));
        assert_eq!(database_url("sqlite:control.db"), file("control.db"));
        assert_eq!(database_url("sqlite:/a b/c%.db"), file("/a b/c%.db"));
        assert_eq!(database_url("sqlite:///a/c.db"), file("/a/c.db"));
        let server = "postgres://quilt:secret@db/mesh";
        let read = database_url(server).unwrap();
        assert_eq!(read, Database::Server(server.to_owned()));
        assert!(!format!("{read:?}").contains("secret"));
        for bad in ["", "sqlite:", "mysql://x", "/var/lib/control.db"] {
            assert!(database_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_level_is_a_level_or_directives() {
        for good in [
            "info",
            "debug",
            "off",
            "info,mesh_control=debug",
            "sqlx=warn",
        ] {
            assert!(log_level(good).is_ok(), "{good}");
        }
        for bad in ["verbose", "", "info,loud", "mesh_control=loud"] {
            assert!(log_level(bad).is_err(), "{bad}");
        }
    }
}
