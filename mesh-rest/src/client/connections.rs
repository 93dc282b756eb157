//! Connections to control planes.

use std::{path::Path, sync::Arc, time::Duration};

use reqwest::redirect;
use rustls::{ClientConfig, RootCertStore};

/// Connections to control planes, which are kept. Clones share them.
#[derive(Debug, Clone)]
pub struct Connections(reqwest::Client);

impl Connections {
    /// Opens none yet. `connect_deadline` bounds the time until one stands; `user_agent` says who asks. Over TLS it
    /// trusts nobody: see [`Self::over_tls`].
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn new(connect_deadline: Duration, user_agent: &str) -> Result<Self, reqwest::Error> {
        Self::over_tls(connect_deadline, user_agent, trusting_nobody())
    }

    /// The same; where a URL is of https, `tls` says whom to trust, and what to show.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn over_tls(
        connect_deadline: Duration,
        user_agent: &str,
        tls: ClientConfig,
    ) -> Result<Self, reqwest::Error> {
        // No proxy from the environment and no redirects: one talks to the control plane that one
        // was given, not to whom a variable or an answer names.
        reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(connect_deadline)
            // One call at a time needs no more.
            .pool_max_idle_per_host(1)
            .user_agent(user_agent)
            .tls_backend_preconfigured(tls)
            .build()
            .map(Self)
    }

    /// To the control plane that serves on this host's Unix socket at `path`, wherever a URL leads.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn over_socket(
        connect_deadline: Duration,
        user_agent: &str,
        path: &Path,
    ) -> Result<Self, reqwest::Error> {
        reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(connect_deadline)
            .pool_max_idle_per_host(1)
            .user_agent(user_agent)
            .tls_backend_preconfigured(trusting_nobody())
            .unix_socket(path)
            .build()
            .map(Self)
    }

    pub(super) fn client(&self) -> &reqwest::Client {
        &self.0
    }
}

/// For whoever has nobody to trust: the system's authorities have no say in who is a control plane. A client of reqwest's
/// that is built without such a configuration looks for them.
#[must_use]
pub fn trusting_nobody() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13]);
    // Fails only for a provider that has nothing of TLS 1.3, which ring's has.
    match builder {
        Ok(builder) => builder
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth(),
        Err(_) => unreachable!("ring knows TLS 1.3"),
    }
}
