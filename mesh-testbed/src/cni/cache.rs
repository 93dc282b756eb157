//! What an engine remembers of each attachment, in a file of its own.

use std::{fs, io, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{attachment::CniAttachment, error::CniError, list::List};

#[derive(Debug, Clone)]
pub(super) struct Cache {
    dir: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Cached {
    network: String,
    #[serde(flatten)]
    attachment: CniAttachment,
    pub(super) result: Value,
}

impl Cached {
    pub(super) fn new(list: &List, attachment: &CniAttachment, result: &Value) -> Self {
        Self {
            network: list.name().to_owned(),
            attachment: attachment.clone(),
            result: result.clone(),
        }
    }
}

impl Cache {
    pub(super) fn in_dir(dir: PathBuf) -> Self {
        Self {
            dir: dir.join("results"),
        }
    }

    fn path(&self, network: &str, attachment: &CniAttachment) -> PathBuf {
        let (container, interface) = (attachment.container(), attachment.interface());
        self.dir.join(format!("{network}-{container}-{interface}"))
    }

    pub(super) fn write(&self, cached: &Cached) -> Result<(), CniError> {
        let path = self.path(&cached.network, &cached.attachment);
        let written = fs::create_dir_all(&self.dir)
            .and_then(|()| fs::write(&path, serde_json::to_vec(cached)?));
        written.map_err(|error| failed(path, &error))
    }

    /// `None` for what is not remembered.
    pub(super) fn read(
        &self,
        network: &str,
        attachment: &CniAttachment,
    ) -> Result<Option<Cached>, CniError> {
        let path = self.path(network, attachment);
        match fs::read(&path) {
            Ok(bytes) => {
                let read = serde_json::from_slice(&bytes);
                read.map(Some).map_err(|error| failed(path, &error))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(path, &error)),
        }
    }

    pub(super) fn remove(&self, network: &str, attachment: &CniAttachment) -> Result<(), CniError> {
        let path = self.path(network, attachment);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, &error)),
            _ => Ok(()),
        }
    }

    /// What is remembered of a network, by container and interface.
    pub(super) fn of_network(&self, network: &str) -> Result<Vec<CniAttachment>, CniError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| failed(self.dir.clone(), &error))?,
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        // Others may be forgotten meanwhile, and what is no attachment is passed over, as libcni does.
        let cached = paths.iter().filter_map(|path| fs::read(path).ok());
        let cached = cached.filter_map(|bytes| serde_json::from_slice::<Cached>(&bytes).ok());
        let of_it = cached.filter(|it| it.network == network);
        Ok(of_it.map(|it| it.attachment).collect())
    }
}

fn failed(path: PathBuf, error: &dyn std::error::Error) -> CniError {
    CniError::Cache {
        path,
        reason: error.to_string(),
    }
}
