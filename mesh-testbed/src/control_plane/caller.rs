//! How the testbed itself asks the control plane: as an operator's program does.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use mesh_credentials::{
    authority_file,
    control_plane_check::{ControlPlaneCheck, KnownBy},
    tls,
    trust::Trust,
};
use mesh_rest::client::{CallError, Client, Connections};

use rustls::ClientConfig;

use super::{ControlPlane, lock};
use crate::{
    error::{Error, Result},
    stepped_clock::ClockOf,
};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const USER_AGENT: &str = "quilt-mesh-testbed";

impl ControlPlane {
    /// Makes a call from its own namespace, with this operator's token or with none.
    pub(super) async fn call_as<T, F>(&self, operator: Option<String>, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: AsyncFnOnce(Client) -> Result<T, CallError> + Send + 'static,
    {
        let base = self.url();
        let tls = match self.is_plain() {
            true => None,
            false => Some(self.tls()?),
        };
        self.netns()
            .run_async(move || async move {
                let base = base.parse().map_err(|error| Error::Invalid {
                    value: base.clone(),
                    rule: format!("a URL is expected here: {error}"),
                })?;
                let connections = match tls {
                    None => Connections::new(CALL_TIMEOUT, USER_AGENT),
                    Some(tls) => Connections::over_tls(CALL_TIMEOUT, USER_AGENT, tls),
                };
                let connections = connections.map_err(|error| {
                    Error::system("make", "an HTTP client", io::Error::other(error))
                })?;
                let client = Client::new(connections, base, CALL_TIMEOUT);
                let client = match operator {
                    Some(token) => client.bearing(&token),
                    None => client,
                };
                Ok(call(client).await?)
            })
            .await?
    }

    /// The token of an operator who may change things; it is made once for each start.
    ///
    /// # Errors
    ///
    /// When nobody serves who could make it.
    pub fn operator(&self) -> Result<String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if let Some(token) = lock(&self.operator).clone() {
            return Ok(token);
        }
        // A database may have those of an earlier process.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("testbed-{}-{number}", std::process::id());
        let token = self.told(&["operator", "create", &name, "--role", "operate"])?;
        let token = token.trim().to_owned();
        *lock(&self.operator) = Some(token.clone());
        Ok(token)
    }

    /// Its certificate is known by the authorities in its own file, and judged by its own clock.
    fn tls(&self) -> Result<ClientConfig> {
        let failed =
            |error: io::Error| Error::system("read", self.authority().display().to_string(), error);
        let authorities = authority_file::read(&self.authority())
            .map_err(|error| failed(io::Error::other(error)))?;
        let trusted = authorities
            .iter()
            .map(|authority| authority.trusted().clone())
            .collect();
        let trust = Trust::new(trusted).map_err(|error| failed(io::Error::other(error)))?;
        let check = Arc::new(ControlPlaneCheck::new(KnownBy::Trust(trust)));
        let config = tls::client(check, None);
        let mut config = config.map_err(|error| failed(io::Error::other(error)))?;
        config.time_provider = Arc::new(ClockOf::process_with(&lock(&self.last_options)));
        Ok(config)
    }
}
