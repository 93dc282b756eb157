//! The certificate that this control plane shows, and the authorities by which it takes others', kept up with what is
//! stored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use mesh_credentials::authority::CONTROL_PLANE_LIFE;
use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::trust::Trust;
use nix::ifaddrs::getifaddrs;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::http::tls::Tls;
use crate::registry::{Registry, unix_seconds};

/// How often it is looked whether the certificate is in the middle of its life.
const LOOK_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// See the module.
#[derive(Debug)]
pub struct Shown {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    tls: Arc<Tls>,
    trusted: Option<Trust>,
    /// Who signed what is shown, and when, in Unix seconds.
    signed: Option<(KeyDigest, i64)>,
    failing: bool,
}

impl Shown {
    /// Certificates for `host`, by `others` of its names, at `bind` or, where that is any, at the addresses of this host:
    /// for clients that check by name. Nodes check by authority.
    pub fn new(host: &str, others: &[String], bind: IpAddr, tls: Arc<Tls>) -> Self {
        let names = [host, "localhost"].into_iter().map(str::to_owned);
        let mut addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        match bind.is_unspecified() {
            true => addresses.extend(of_this_host()),
            false => addresses.push(bind),
        }
        addresses.sort_unstable();
        addresses.dedup();
        Self {
            names: names.chain(others.iter().cloned()).collect(),
            addresses,
            tls,
            trusted: None,
            signed: None,
            failing: false,
        }
    }

    /// Shows and trusts what is right now.
    pub fn update(&mut self, registry: &Registry) {
        let trust = registry.credentials.trust();
        if trust != self.trusted {
            if let Some(trust) = &trust {
                self.tls.trust(trust.clone());
            }
            self.trusted = trust;
        }
        if let Err(error) = self.show(registry, unix_seconds()) {
            if !self.failing {
                warn!(name: "control-plane-cannot-show-certificate",
                    error,
                    "this control plane cannot show a certificate of the mesh"
                );
            }
            self.failing = true;
        } else {
            self.failing = false;
        }
    }

    fn show(&mut self, registry: &Registry, now: i64) -> Result<(), String> {
        if registry.credentials.signs().is_none() {
            return Ok(());
        }
        let authority = registry.signer().map_err(|error| error.to_string())?;
        let signer = authority.trusted().key();
        let is_fresh = self.signed.is_some_and(|(by, at)| {
            // Also where the clock went back.
            by == signer && now.saturating_sub(at).abs() < CONTROL_PLANE_LIFE / 2
        });
        if is_fresh {
            return Ok(());
        }
        let identity = authority
            .sign_control_plane(&self.names, &self.addresses, now)
            .map_err(|error| error.to_string())?;
        self.tls
            .show_mesh(&identity, authority.trusted())
            .map_err(|error| error.to_string())?;
        self.signed = Some((signer, now));
        info!(name: "shows-certificate-mesh", authority = %signer.short(), "shows a certificate of the mesh");
        Ok(())
    }

    /// Keeps it right until `stop`.
    pub async fn follow(mut self, registry: Arc<Registry>, stop: CancellationToken) {
        let mut changes = registry.credentials.changes();
        loop {
            changes.mark_unchanged();
            self.update(&registry);
            tokio::select! {
                () = stop.cancelled() => return,
                // Fails only without the registry, which is here.
                _ = changes.changed() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }
}

/// The addresses of this host's interfaces; none where the system does not say.
fn of_this_host() -> Vec<IpAddr> {
    /// A certificate has room for more, but nobody calls a host by the addresses of a thousand containers' bridges.
    const MOST: usize = 32;
    let Ok(interfaces) = getifaddrs() else {
        return Vec::new();
    };
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    });
    addresses.take(MOST).collect()
}
