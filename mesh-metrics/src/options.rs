//! The options by which metrics are served, the same on all daemons.

use std::{
    fmt,
    net::{AddrParseError, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use mesh_credentials::tls_files::TlsFiles;

use crate::{
    door::{Door, DoorError},
    tls::Certificate,
    token::TokenFile,
};

/// The options by which metrics are served.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct MetricsOptions {
    /// Address and port on which metrics for Prometheus, /livez and /readyz are served over HTTP; "off" for nowhere, port 0
    /// for a free one. Beyond loopback they are served over TLS alone, to those who show a token (--metrics-tls-cert,
    /// --metrics-tls-key, --metrics-token-file) [default: 127.0.0.1:9471 for quilt-runtime, :9472 for quilt-mesh-agent,
    /// :9473 for quilt-mesh-control]
    #[arg(long, env = "QUILT_MESH_METRICS_ADDR", value_name = "ADDRESS|off")]
    pub metrics_addr: Option<MetricsAddress>,

    /// Certificate of the metrics' port, in PEM, with those between it and its authority; with it the port speaks TLS
    /// alone, also on loopback. Read again when it is replaced, as are the next two
    #[arg(
        long,
        env = "QUILT_MESH_METRICS_TLS_CERT",
        value_name = "FILE",
        requires = "metrics_tls_key"
    )]
    pub metrics_tls_cert: Option<PathBuf>,

    /// Key of --metrics-tls-cert, in PEM. Only its owner may be able to read the file
    #[arg(
        long,
        env = "QUILT_MESH_METRICS_TLS_KEY",
        value_name = "FILE",
        requires = "metrics_tls_cert"
    )]
    pub metrics_tls_key: Option<PathBuf>,

    /// File with the token that has to be shown at the metrics' port (Authorization: Bearer), of 16 characters or more;
    /// with it also on loopback. Only its owner may be able to read the file
    #[arg(long, env = "QUILT_MESH_METRICS_TOKEN_FILE", value_name = "FILE")]
    pub metrics_token_file: Option<PathBuf>,
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

impl FromStr for MetricsAddress {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        match text {
            "off" => Ok(Self::Off),
            address => address.parse().map(Self::At),
        }
    }
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl MetricsOptions {
    /// The door that they describe, on loopback at `default_port` where they name no address; `None`: there is none.
    ///
    /// # Errors
    ///
    /// An address beyond loopback without TLS and a token, or files that are of no use.
    pub fn door(&self, default_port: u16) -> Result<Option<Door>, DoorError> {
        let default = MetricsAddress::At((Ipv4Addr::LOCALHOST, default_port).into());
        let MetricsAddress::At(address) = self.metrics_addr.unwrap_or(default) else {
            return Ok(None);
        };
        let files = match (&self.metrics_tls_cert, &self.metrics_tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                authorities: None,
            }),
            _ => None,
        };
        let is_guarded = files.is_some() && self.metrics_token_file.is_some();
        if !address.ip().to_canonical().is_loopback() && !is_guarded {
            return Err(DoorError::BeyondLoopback(address));
        }
        let certificate = files.map(Certificate::open).transpose()?;
        let token = self.metrics_token_file.as_deref();
        let token = token.map(TokenFile::open).transpose()?;
        Ok(Some(Door::new(address, certificate, token)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        metrics: MetricsOptions,
    }

    fn options(arguments: &[&str]) -> MetricsOptions {
        let line = ["daemon"].iter().chain(arguments);
        CommandLine::try_parse_from(line).unwrap().metrics
    }

    #[test]
    fn without_options_the_port_is_on_loopback_and_it_can_be_closed() {
        let door = options(&[]).door(9471).unwrap().unwrap();
        assert_eq!(door.address().to_string(), "127.0.0.1:9471");
        assert!(
            options(&["--metrics-addr", "off"])
                .door(1)
                .unwrap()
                .is_none()
        );
        let door = options(&["--metrics-addr", "[::1]:80"]).door(1).unwrap();
        assert_eq!(door.unwrap().address().to_string(), "[::1]:80");
        let line = ["daemon", "--metrics-addr", "nowhere"];
        assert!(CommandLine::try_parse_from(line).is_err());
    }

    #[test]
    fn beyond_loopback_nothing_is_served_without_tls_and_a_token() {
        for address in [
            "0.0.0.0:9471",
            "[::]:9471",
            "192.0.2.1:9471",
            "[::ffff:192.0.2.1]:1",
        ] {
            for others in [
                &[][..],
                &["--metrics-token-file", "token"],
                &["--metrics-tls-cert", "cert", "--metrics-tls-key", "key"],
            ] {
                let arguments = [&["--metrics-addr", address], others].concat();
                let error = options(&arguments).door(1).unwrap_err().to_string();
                for option in [
                    "--metrics-tls-cert",
                    "--metrics-tls-key",
                    "--metrics-token-file",
                ] {
                    assert!(error.contains(option), "{address} {others:?}: {error}");
                }
            }
        }
    }

    #[test]
    fn files_that_are_of_no_use_are_named_by_their_options() {
        let files = ["--metrics-tls-cert", "/none", "--metrics-tls-key", "/none"];
        let error = options(&files).door(1).unwrap_err().to_string();
        assert!(error.starts_with("--metrics-tls-cert /none"), "{error}");
        let error = options(&["--metrics-token-file", "/none"]).door(1);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("--metrics-token-file /none"), "{error}");
        let line = ["daemon", "--metrics-tls-cert", "/none"];
        assert!(CommandLine::try_parse_from(line).is_err());
    }
}
