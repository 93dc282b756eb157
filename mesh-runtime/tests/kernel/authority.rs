//! A CA of a test's own, and what it signs.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use time::{Duration, OffsetDateTime};

pub(crate) const SERVER: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ServerAuth;
pub(crate) const CLIENT: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ClientAuth;

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// In PEM.
    pub(crate) certificate: String,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two that are asked for by the same name.
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "authority of a test");
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// Signs a certificate that holds now.
    pub(crate) fn sign(&self, usage: ExtendedKeyUsagePurpose) -> Signed {
        let now = OffsetDateTime::now_utc();
        self.sign_for(usage, [now - Duration::HOUR, now + Duration::HOUR])
    }

    /// Signs one that holds from a time on until another.
    pub(crate) fn sign_for(
        &self,
        usage: ExtendedKeyUsagePurpose,
        [from, until]: [OffsetDateTime; 2],
    ) -> Signed {
        let names = ["127.0.0.1", "192.0.2.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        (params.not_before, params.not_after) = (from, until);
        let key = KeyPair::generate().unwrap();
        Signed {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// Writes what a server needs that callers with this authority's certificates may call, each file in the place of one
    /// that may be there.
    pub(crate) fn equip(&self, directory: &Path) {
        let own = self.sign(SERVER);
        write(&directory.join("cert"), &own.certificate, 0o644);
        write(&directory.join("key"), &own.key, 0o600);
        write(&directory.join("ca"), &self.certificate, 0o644);
    }
}

pub(crate) fn write(path: &Path, text: &str, mode: u32) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(new, path).unwrap();
}
