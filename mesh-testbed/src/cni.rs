//! An engine that speaks CNI, reduced to its network: what libcni makes of a list of plugins.

mod attachment;
mod cache;
mod error;
mod list;
mod plugin;
mod version;

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use self::{
    cache::{Cache, Cached},
    list::List,
    plugin::Plugins,
    version::Version,
};
use crate::{host::Host, netns::NetNs};

pub use attachment::CniAttachment;
pub use error::{CniError, CniFailure};

/// The newest version of the specification that this engine speaks unless it is told otherwise.
const NEWEST: Version = Version(1, 1, 0);

/// An engine on a host: finds plugins, runs them inside the host's namespace one after the other, hands each the
/// result of the one before, and remembers what it attached in files.
///
/// It removes nothing by itself: neither after an ADD that failed nor when it is dropped. Its files are the host's.
#[derive(Debug, Clone)]
pub struct Cni {
    plugins: Plugins,
    cache: Cache,
    speaks: Version,
}

impl Cni {
    /// An engine on a host that finds its plugins in these directories, the first one first. It remembers
    /// attachments in `cni` below the host's directory.
    pub fn on<I: IntoIterator<Item: Into<PathBuf>>>(host: &Host, dirs: I) -> Self {
        Self::inside(host.netns(), host.dir().join("cni"), dirs)
    }

    /// The same in any namespace, which remembers attachments in `cache`.
    pub fn inside<I>(namespace: &NetNs, cache: impl Into<PathBuf>, dirs: I) -> Self
    where
        I: IntoIterator<Item: Into<PathBuf>>,
    {
        Self {
            plugins: Plugins::new(namespace.entrance(), dirs.into_iter().map(Into::into)),
            cache: Cache::in_dir(cache.into()),
            speaks: NEWEST,
        }
    }

    /// Has it speak no newer version of the specification than this one, as an engine of that time.
    ///
    /// # Errors
    ///
    /// [`CniError::List`] for what is not a version.
    pub fn speaking(mut self, version: &str) -> Result<Self, CniError> {
        self.speaks = version.parse()?;
        Ok(self)
    }

    /// Runs one plugin, as this engine does, with nothing but the given variables beside the caller's environment
    /// (which loses its own CNI and Quilt Mesh variables), and returns the object that it answers; null if it is
    /// silent.
    ///
    /// # Errors
    ///
    /// [`CniError`].
    pub async fn exec(
        &self,
        plugin: &str,
        variables: &[(&str, &str)],
        input: &[u8],
    ) -> Result<Value, CniError> {
        self.plugins.exec(plugin, variables, input).await
    }

    /// Attaches a container: ADD of each plugin, and what they answered last. What fails is not remembered, and
    /// nobody is asked to undo what the plugins before it did.
    ///
    /// # Errors
    ///
    /// [`CniError`] of the first plugin that failed.
    pub async fn add(&self, list: &Value, attachment: &CniAttachment) -> Result<Value, CniError> {
        let list = List::read(list, self.speaks)?;
        attachment.check()?;
        let mut result = None;
        for plugin in list.plugins() {
            let config = list.config(plugin, attachment, result.as_ref());
            let answer = self.run("ADD", plugin, attachment, &config).await?;
            result = Some(list.result(plugin, answer)?);
        }
        let result = result.unwrap_or_default();
        self.cache.write(&Cached::new(&list, attachment, &result))?;
        Ok(result)
    }

    /// Detaches a container: DEL of each plugin, the last one first, with the result that ADD is remembered to have
    /// had, if any. It is forgotten when all of them succeeded.
    ///
    /// # Errors
    ///
    /// [`CniError`] of the first plugin that failed; those before it in the list were not asked.
    pub async fn del(&self, list: &Value, attachment: &CniAttachment) -> Result<(), CniError> {
        let list = List::read(list, self.speaks)?;
        self.del_from(&list, attachment).await
    }

    async fn del_from(&self, list: &List, attachment: &CniAttachment) -> Result<(), CniError> {
        let previous = match list.version() >= Version::WITH_CHECK {
            true => self.cached_result(list, attachment).unwrap_or_default(),
            false => None,
        };
        for plugin in list.plugins().iter().rev() {
            let config = list.config(plugin, attachment, previous.as_ref());
            self.run("DEL", plugin, attachment, &config).await?;
        }
        self.cache.remove(list.name(), attachment)
    }

    /// Asks each plugin whether a container is still attached as ADD left it. A list that says `disableCheck` asks
    /// nobody.
    ///
    /// # Errors
    ///
    /// [`CniError`] of the first plugin that says no; [`CniError::Unsupported`] below version 0.4.0.
    pub async fn check(&self, list: &Value, attachment: &CniAttachment) -> Result<(), CniError> {
        let list = List::read(list, self.speaks)?;
        if list.version() < Version::WITH_CHECK {
            return Err(CniError::Unsupported {
                command: "CHECK",
                version: list.version().to_string(),
            });
        }
        if list.disables("disableCheck")? {
            return Ok(());
        }
        let previous = self.cached_result(&list, attachment)?;
        for plugin in list.plugins() {
            let config = list.config(plugin, attachment, previous.as_ref());
            self.run("CHECK", plugin, attachment, &config).await?;
        }
        Ok(())
    }

    /// Detaches what is remembered of this network and not among `valid` (container and interface), then has each
    /// plugin free what it holds for anybody else (from version 1.1.0 on). A list that says `disableGC` does neither.
    ///
    /// # Errors
    ///
    /// All that failed; what follows is done all the same.
    pub async fn gc(&self, list: &Value, valid: &[(&str, &str)]) -> Result<(), Vec<CniError>> {
        let list = List::read(list, self.speaks).map_err(|error| vec![error])?;
        if list.disables("disableGC").map_err(|error| vec![error])? {
            return Ok(());
        }
        let mut failed = Vec::new();
        let cached = self.cache.of_network(list.name());
        for attachment in cached.map_err(|error| vec![error])? {
            let is_it = |it: &(&str, &str)| *it == (attachment.container(), attachment.interface());
            if !valid.iter().any(is_it)
                && let Err(error) = self.del_from(&list, &attachment).await
            {
                failed.push(error);
            }
        }
        if list.version() >= Version::WITH_GC {
            let valid: Vec<Value> = valid
                .iter()
                .map(
                    |(container, interface)| json!({"containerID": container, "ifname": interface}),
                )
                .collect();
            // An earlier libcni took the specification's word for the second key.
            let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
            for plugin in list.plugins() {
                let mut config = list.own_config(plugin);
                config.extend(keys.map(|key| (key.to_owned(), json!(valid))));
                let asked = self
                    .run("GC", plugin, &CniAttachment::nobody(), &config)
                    .await;
                failed.extend(asked.err());
            }
        }
        match failed.is_empty() {
            true => Ok(()),
            false => Err(failed),
        }
    }

    /// Asks each plugin whether ADD could succeed; below version 1.1.0 nobody is asked.
    ///
    /// # Errors
    ///
    /// [`CniError`] of the first plugin that says no.
    pub async fn status(&self, list: &Value) -> Result<(), CniError> {
        let list = List::read(list, self.speaks)?;
        if list.version() < Version::WITH_GC {
            return Ok(());
        }
        for plugin in list.plugins() {
            let config = list.own_config(plugin);
            self.run("STATUS", plugin, &CniAttachment::nobody(), &config)
                .await?;
        }
        Ok(())
    }

    /// The versions of the specification that a plugin speaks.
    ///
    /// # Errors
    ///
    /// [`CniError`].
    pub async fn versions(&self, plugin: &str) -> Result<Vec<String>, CniError> {
        let input = json!({"cniVersion": NEWEST.to_string()}).to_string();
        // Plugins of a time when there was no VERSION want all of them.
        let variables = [
            ("CNI_COMMAND", "VERSION"),
            ("CNI_NETNS", "dummy"),
            ("CNI_IFNAME", "dummy"),
            ("CNI_PATH", "dummy"),
        ];
        let answer = self.exec(plugin, &variables, input.as_bytes()).await?;
        let versions = answer["supportedVersions"].as_array();
        let versions = versions.into_iter().flatten().filter_map(Value::as_str);
        Ok(versions.map(str::to_owned).collect())
    }

    /// What ADD answered for an attachment that is remembered.
    ///
    /// # Errors
    ///
    /// [`CniError::Cache`] for a file that cannot be read.
    pub fn remembered(
        &self,
        list: &Value,
        attachment: &CniAttachment,
    ) -> Result<Option<Value>, CniError> {
        let list = List::read(list, self.speaks)?;
        self.cached_result(&list, attachment)
    }

    fn cached_result(
        &self,
        list: &List,
        attachment: &CniAttachment,
    ) -> Result<Option<Value>, CniError> {
        let cached = self.cache.read(list.name(), attachment)?;
        // The list may have another version than when the container was attached.
        Ok(cached.map(|it| version::as_version(it.result, list.version())))
    }

    async fn run(
        &self,
        command: &'static str,
        plugin: &Map<String, Value>,
        attachment: &CniAttachment,
        config: &Map<String, Value>,
    ) -> Result<Value, CniError> {
        let args = attachment.args();
        let netns = attachment.netns();
        let path = self.plugins.path();
        let variables = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", attachment.container()),
            ("CNI_NETNS", &*netns),
            ("CNI_ARGS", &*args),
            ("CNI_IFNAME", attachment.interface()),
            ("CNI_PATH", &*path),
        ];
        let input = Value::Object(config.clone()).to_string();
        let exec = self.exec(list::kind(plugin), &variables, input.as_bytes());
        exec.await
    }
}
