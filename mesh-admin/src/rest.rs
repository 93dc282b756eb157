//! REST, as an operator who is somewhere else uses it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::Method;
use mesh_credentials::{
    control_plane_check::{ControlPlaneCheck, KnownBy},
    operator_token::{OperatorToken, OperatorTokenError},
    secret_file::{self, SecretFileError},
    tls,
    trust::Trust,
};
use mesh_rest::client::{CallError, Client, Connections, trusting_nobody};
pub use reqwest::Url;

use crate::{door::Answer, error::AdminError};

/// How long a connection, and an answer, are waited for.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const USER_AGENT: &str = concat!("quilt-mesh-admin/", env!("CARGO_PKG_VERSION"));

/// The control plane over REST: one or several replicas of it.
#[derive(Debug)]
pub struct Rest {
    replicas: Vec<Client>,
}

/// Why it cannot even be asked.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// Nobody says where it is.
    #[error(
        "no URL of the control plane: give --control, or start the agent of this host, which knows it"
    )]
    NoUrl,
    /// A token would go to whomever the agent names, which has no right to it.
    #[error(
        "--control-token-file needs --control URL: an operator's token is not shown to whomever the agent of this host names"
    )]
    NobodyNamed,
    /// A URL is of no use.
    #[error("--control {url}: {rule}")]
    Url {
        /// What was given.
        url: String,
        /// What it has to be.
        rule: String,
    },
    /// The token would be read by others on the way.
    #[error(
        "--control {0}: an operator's token is shown over https:// alone, or over loopback: anybody on the way could read it"
    )]
    Plain(Url),
    /// Nothing says by whom the control plane is known.
    #[error(
        "https:// needs something to know the control plane by: give --control-ca FILE with the authorities of the mesh \
         (quilt-mesh-control ca show --pem prints them)"
    )]
    NoAuthorities,
    /// The authorities cannot be read.
    #[error("--control-ca {}: {reason}", .path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The token cannot be read.
    #[error("--control-token-file: {0}")]
    TokenFile(SecretFileError),
    /// There is none.
    #[error("--control-token-file: there is no {}", .0.display())]
    NoToken(PathBuf),
    /// It is none.
    #[error("--control-token-file {}: {reason}", .path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: OperatorTokenError,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up an HTTP client: {0}")]
    Client(reqwest::Error),
}

impl Rest {
    /// The replicas at these URLs, in this order. `token` is a file with an operator's token, which nobody but its owner may
    /// read; `authorities` one with those by which the control plane is known.
    ///
    /// # Errors
    ///
    /// [`RestError`].
    pub fn open(
        urls: Vec<Url>,
        authorities: Option<&Path>,
        token: Option<&Path>,
    ) -> Result<Self, RestError> {
        if urls.is_empty() {
            return Err(RestError::NoUrl);
        }
        let token = token.map(read_token).transpose()?;
        let plain = urls
            .iter()
            .find(|url| url.scheme() != "https" && !is_loopback(url));
        if let (Some(url), Some(_)) = (plain, &token) {
            return Err(RestError::Plain(url.clone()));
        }
        let encrypted = urls.iter().any(|url| url.scheme() == "https");
        let tls = match (encrypted, authorities) {
            (false, _) => trusting_nobody(),
            (true, None) => return Err(RestError::NoAuthorities),
            (true, Some(path)) => config(path)?,
        };
        let connections =
            Connections::over_tls(CONNECT_DEADLINE, USER_AGENT, tls).map_err(RestError::Client)?;
        let client = |url| {
            let client = Client::new(connections.clone(), url, DEADLINE);
            match &token {
                Some(token) => client.bearing(&token.to_string()),
                None => client,
            }
        };
        Ok(Self {
            replicas: urls.into_iter().map(client).collect(),
        })
    }

    /// A client of each replica.
    pub(crate) fn clients(&self) -> Vec<Client> {
        self.replicas.clone()
    }

    /// Asks one replica after another, until one can be reached.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Answer, AdminError> {
        let mut last = None;
        for replica in &self.replicas {
            let asked = replica.ask(method.clone(), path, body.as_deref()).await;
            match asked {
                Ok(answer) => return Ok(answer),
                // Anything else may have been heard: what is asked is not asked twice.
                Err(error @ (CallError::Unreachable { .. } | CallError::Tls { .. })) => {
                    last = Some(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        // There is at least one replica.
        Err(last.map_or(AdminError::Silent(DEADLINE), AdminError::from))
    }
}

/// A base URL of a control plane.
///
/// # Errors
///
/// [`RestError::Url`].
pub fn control_url(text: &str) -> Result<Url, RestError> {
    let failed = |rule: String| RestError::Url {
        url: text.to_owned(),
        rule,
    };
    let url: Url = text.parse().map_err(|error| {
        failed(format!(
            "{error}; write a URL such as https://192.0.2.10:8080"
        ))
    })?;
    let rule = match url.scheme() {
        "http" | "https" if !url.username().is_empty() || url.password().is_some() => {
            "user names and passwords in the URL are not supported"
        }
        "http" | "https" if url.query().is_some() || url.fragment().is_some() => {
            "a base URL has no query and no fragment"
        }
        "http" | "https" => return Ok(url),
        _ => "neither an http nor an https URL; write one such as https://192.0.2.10:8080",
    };
    Err(failed(rule.to_owned()))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|it: std::net::IpAddr| it.is_loopback())
}

fn read_token(path: &Path) -> Result<OperatorToken, RestError> {
    let text = secret_file::read(path).map_err(RestError::TokenFile)?;
    let text = text.ok_or_else(|| RestError::NoToken(path.to_owned()))?;
    text.parse().map_err(|reason| RestError::Token {
        path: path.to_owned(),
        reason,
    })
}

/// By authorities of a mesh the control plane is known by whatever name it is called; by others, those of a certificate of
/// one's own, by that name.
fn config(path: &Path) -> Result<rustls::ClientConfig, RestError> {
    let failed = |reason: String| RestError::Authorities {
        path: path.to_owned(),
        reason,
    };
    let text = fs::read_to_string(path).map_err(|error| failed(said(&error)))?;
    let made = match Trust::from_pem(&text) {
        Ok(trust) => {
            let check = Arc::new(ControlPlaneCheck::new(KnownBy::Trust(trust)));
            tls::client(check, None)
        }
        Err(_) => tls::client_of_own_authority(&text, None),
    };
    made.map_err(|error| failed(error.to_string()))
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{error}; take a copy of it that this user may read, it is no secret")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown_where_others_could_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let token = OperatorToken {
            id: "4f1c".to_owned(),
            secret: mesh_credentials::secret::Secret::make().unwrap(),
        };
        secret_file::replace(&path, &token.to_string()).unwrap();
        let open = |url: &str| Rest::open(vec![control_url(url).unwrap()], None, Some(&path));
        assert!(matches!(
            open("http://192.0.2.1:8080"),
            Err(RestError::Plain(_))
        ));
        assert!(open("http://127.0.0.1:8080").is_ok());
        assert!(matches!(
            open("https://192.0.2.1:8080"),
            Err(RestError::NoAuthorities)
        ));
        let missing = dir.path().join("nothing");
        let none = Rest::open(
            vec![control_url("http://[::1]:1").unwrap()],
            None,
            Some(&missing),
        );
        assert!(matches!(none, Err(RestError::NoToken(_))));
        fs::write(&missing, "").unwrap();
        let none = Rest::open(
            vec![control_url("http://[::1]:1").unwrap()],
            None,
            Some(&missing),
        );
        assert!(
            matches!(none, Err(RestError::TokenFile(_))),
            "others may read it"
        );
    }

    #[test]
    fn a_url_that_is_no_base_is_refused_with_the_rule() {
        for bad in ["192.0.2.1:8080", "ftp://x", "https://a:b@c", "https://c/?d"] {
            assert!(
                matches!(control_url(bad), Err(RestError::Url { .. })),
                "{bad}"
            );
        }
        assert!(control_url("https://192.0.2.1:8080/mesh").is_ok());
    }
}
