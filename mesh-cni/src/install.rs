//! What an operator asks for: the network's configuration and the plugin, where an engine looks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use mesh_client::DEFAULT_SOCKET;
use mesh_ipam::Owner;
use mesh_plugin::{install_self, replace};
use serde_json::{Value, json};

use engine::Engine;

mod cri;
mod engine;
mod podman;

/// The plugin's name, by which configurations name it.
const PLUGIN: &str = "quilt-cni";

/// The plugin that publishes ports, of the CNI project.
const PORTMAP: &str = "portmap";

/// Where distributions have the CNI project's plugins, and not every engine looks.
const ELSEWHERE: [&str; 2] = ["/usr/lib/cni", "/usr/libexec/cni"];

/// Puts containers of whatever speaks CNI on the mesh
///
/// Engines run it as a plugin; for a person it has the commands below. As a plugin it speaks versions 0.3.0 to 1.1.0 of
/// the CNI specification.
#[derive(Debug, clap::Parser)]
#[command(name = "quilt-cni", version, args_override_self = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Write the network and this plugin where an engine looks, and say what was written
    ///
    /// The network's file sorts last, so that no engine takes it for its default by accident.
    Install(Install),
    /// Remove the network that `install` wrote for an engine; containers that run stay on the mesh, and the plugin stays for
    /// them
    Uninstall(Place),
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The engine: podman, containerd, nomad, crio, or any other name with --conf-dir and --bin-dir. Leases are
    /// written under it, and freed by it alone
    #[arg(long, value_name = "NAME")]
    engine: String,

    /// Name of the network, as containers ask for it. All names are names of the one mesh
    #[arg(long, value_name = "NAME", default_value = "quilt")]
    network: String,

    /// Directory of the engine's networks [default: where the engine looks]
    #[arg(long, value_name = "DIRECTORY")]
    conf_dir: Option<PathBuf>,

    /// Directory of the engine's plugins [default: where the engine looks]
    #[arg(long, value_name = "DIRECTORY")]
    bin_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Install {
    #[command(flatten)]
    place: Place,

    /// The runtime's Unix socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,

    /// MTU of the containers' interfaces in bytes [default: the overlay's]
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,

    /// Replace a file of the network that was changed by hand
    #[arg(long)]
    force: bool,
}

/// Does it.
pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    match options.what {
        What::Install(install) => install.run(),
        What::Uninstall(place) => place.uninstall(),
    }
}

/// Where everything is, for one engine.
struct Folders {
    networks: PathBuf,
    plugins: PathBuf,
    /// Where the engine finds other plugins.
    others: Vec<PathBuf>,
}

impl Place {
    fn folders(&self) -> anyhow::Result<Folders> {
        let known = Engine::named(&self.engine);
        let folder = |given: &Option<PathBuf>, known: Option<&'static str>, option: &str| {
            let folder = given.clone().or_else(|| known.map(PathBuf::from));
            folder.with_context(|| {
                if self.engine == "docker" {
                    return "Docker runs no CNI plugins: see docs/CONTAINER_ENGINES.md for its own network"
                        .to_owned();
                }
                format!(
                    "where {:?} looks is not known here: say so with {option} (known: {})",
                    self.engine,
                    Engine::names()
                )
            })
        };
        let plugins = folder(&self.bin_dir, known.map(|it| it.plugins[0]), "--bin-dir")?;
        let others = match (&self.bin_dir, known) {
            (Some(given), _) => vec![given.clone()],
            (None, Some(known)) => known.plugins.iter().map(PathBuf::from).collect(),
            (None, None) => Vec::new(),
        };
        Ok(Folders {
            networks: folder(&self.conf_dir, known.map(|it| it.networks), "--conf-dir")?,
            plugins,
            others,
        })
    }

    /// The network's file: after all that begin with a digit or a letter, as engines sort.
    fn file(&self) -> String {
        format!("zz-{}.conflist", self.network)
    }

    fn uninstall(&self) -> anyhow::Result<()> {
        let folders = self.folders()?;
        let file = folders.networks.join(self.file());
        let is_ours = read(&file).is_some_and(|it| engine_of(&it) == Some(self.engine.clone()));
        if !is_ours {
            bail!(
                "there is no network {:?} of {} in {}",
                self.network,
                self.engine,
                file.display()
            );
        }
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        println!("removed  {}", file.display());
        // Containers that run are taken off by it, and other engines may look there, too.
        println!(
            "stays    {}, by which containers that run are taken off",
            folders.plugins.join(PLUGIN).display()
        );
        println!(
            "note     containers that run stay on the mesh, and cannot be started again in {:?} until it is installed again",
            self.network
        );
        Ok(())
    }
}

impl Install {
    fn run(&self) -> anyhow::Result<()> {
        let place = &self.place;
        Owner::new(&place.engine, &place.network, "c", "eth0")?;
        if !self.socket.is_absolute() {
            bail!("--socket {} is not an absolute path", self.socket.display());
        }
        let folders = place.folders()?;
        let file = folders.networks.join(place.file());
        let others: Vec<(PathBuf, Value)> = match folders.networks.exists() {
            true => networks(&folders.networks)?,
            false => Vec::new(),
        };
        let others: Vec<_> = others
            .into_iter()
            .filter(|(path, _)| *path != file)
            .collect();
        let same = others
            .iter()
            .find(|(_, it)| it["name"] == place.network.as_str());
        if let Some((other, _)) = same {
            bail!(
                "{} has a network {:?} already: choose another name with --network",
                other.display(),
                place.network
            );
        }
        let portmap = folders
            .others
            .iter()
            .map(|it| it.join(PORTMAP))
            .find(|it| it.is_file());
        let chain = Chain::with(portmap.as_deref());
        let written = self.text(chain);
        // What was written with other plugins there is ours as well.
        let of_ours = |before: &String| Chain::ALL.map(|it| self.text(it)).contains(before);
        let before = fs::read_to_string(&file).ok();
        let other = read(&file).as_ref().and_then(engine_of);
        if let Some(other) = other.filter(|it| *it != place.engine) {
            // With another name in it, containers that run would not be taken off any more.
            bail!(
                "{} is the network of {other}: choose another name with --network",
                file.display()
            );
        }
        if before.is_some_and(|before| !of_ours(&before)) && !self.force {
            bail!(
                "{} is there and says something else: --force replaces it",
                file.display()
            );
        }
        let plugin = folders.plugins.join(PLUGIN);
        install_self(&plugin)?;
        println!("plugin   {}", plugin.display());
        replace(&file, written.as_bytes(), 0o644)?;
        println!("network  {}, named {:?}", file.display(), place.network);
        self.say_more(&file, &others, &plugin, portmap.is_some());
        Ok(())
    }

    /// What the operator should know.
    fn say_more(&self, file: &Path, others: &[(PathBuf, Value)], plugin: &Path, publishes: bool) {
        let place = &self.place;
        let known = Engine::named(&place.engine);
        // With another directory it is not this host's Podman that will look.
        if place.engine == "podman"
            && place.conf_dir.is_none()
            && let Some(advice) = podman::other_back_end()
        {
            println!("note     {advice}");
        }
        if !publishes {
            let elsewhere = ELSEWHERE.map(|it| Path::new(it).join(PORTMAP));
            let get = match (elsewhere.iter().find(|it| it.is_file()), known) {
                (Some(found), Some(known)) => {
                    format!("ln -s {} {}/", found.display(), known.plugins[0])
                }
                _ => "install the CNI project's plugins there".to_owned(),
            };
            println!(
                "note     no plugin {PORTMAP} is where every {} looks, so that ports are not published: {get}, and run this again",
                place.engine
            );
        }
        if known.is_some_and(|it| it.takes_first) {
            println!("note     {}", first_network(&place.engine, file, others));
        }
        if known.is_some_and(|it| it.has_pods)
            && let Some(link) = cri::missing_link(plugin)
        {
            println!("note     {link}");
        }
        let ours: Vec<String> = others
            .iter()
            .filter(|(_, it)| engine_of(it).is_some())
            .map(|(_, it)| it["name"].to_string())
            .collect();
        if !ours.is_empty() {
            println!(
                "note     {} is there as well: both are names of one mesh, whose containers all reach each other",
                ours.join(", ")
            );
        }
        if let Some(known) = known {
            println!("next     {}", known.next.replace("NETWORK", &place.network));
        }
    }

    fn text(&self, chain: Chain) -> String {
        format!("{:#}\n", self.conflist(chain))
    }

    /// The network as an engine reads it.
    fn conflist(&self, chain: Chain) -> Value {
        let place = &self.place;
        let mut plugin = json!({
            "type": PLUGIN,
            "engine": place.engine,
            "capabilities": { "ips": true, "mac": true, "aliases": true },
        });
        if self.socket != Path::new(DEFAULT_SOCKET) {
            plugin["socket"] = self.socket.display().to_string().into();
        }
        if let Some(mtu) = self.mtu {
            plugin["mtu"] = mtu.into();
        }
        let mut plugins = vec![plugin];
        if chain != Chain::Alone {
            plugins.push(json!({ "type": PORTMAP, "capabilities": { "portMappings": true } }));
        }
        let mut conflist = json!({
            "cniVersion": "1.0.0",
            "name": place.network,
            "plugins": plugins,
        });
        match chain {
            // Its CHECK fails on every host that has tables of IPv6, whatever plugin comes before it (mended in its 1.3.0).
            Chain::WithOldPortmap => conflist["disableCheck"] = true.into(),
            // Engines that know the list take the latest that they speak themselves.
            Chain::Alone | Chain::WithPortmap => {
                conflist["cniVersions"] = json!(["1.0.0", "1.1.0"]);
            }
        }
        // So that Podman's prune can spare it: what no container of Podman's uses would go, whose ever it is.
        conflist["args"] = json!({ "podman_labels": { "quilt-mesh": "yes" } });
        conflist
    }
}

/// What comes after this plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chain {
    /// Nothing: ports are not published.
    Alone,
    /// The plugin that publishes ports, which speaks 1.0.0 at the latest.
    WithOldPortmap,
    /// And one that speaks 1.1.0 as well.
    WithPortmap,
}

impl Chain {
    const ALL: [Self; 3] = [Self::Alone, Self::WithOldPortmap, Self::WithPortmap];

    fn with(portmap: Option<&Path>) -> Self {
        match portmap {
            None => Self::Alone,
            Some(portmap) if speaks_latest(portmap) => Self::WithPortmap,
            Some(_) => Self::WithOldPortmap,
        }
    }
}

/// What an engine that takes the first network does with `own` beside others, which are sorted as it sorts them.
fn first_network(engine: &str, own: &Path, others: &[(PathBuf, Value)]) -> String {
    match others.first().filter(|(file, _)| file.as_path() < own) {
        None => format!(
            "it is the first network there, so that {engine} gives it to whoever asks for none"
        ),
        Some((file, network)) => format!(
            "{engine} takes the first network there, {} of {}, and this one only where it is asked for by name; where \
             nobody can (ctr run --cni), it has to be moved away, if nobody else needs it: mv {} {}.off",
            network["name"],
            file.display(),
            file.display(),
            file.display()
        ),
    }
}

/// Whether a plugin speaks version 1.1.0 of the specification.
fn speaks_latest(plugin: &Path) -> bool {
    let asked = Command::new(plugin)
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let answer = asked
        .ok()
        .and_then(|it| serde_json::from_slice::<Value>(&it.stdout).ok());
    let versions = answer
        .as_ref()
        .and_then(|it| it["supportedVersions"].as_array());
    versions.is_some_and(|it| it.iter().any(|version| version == "1.1.0"))
}

/// The networks of a directory.
fn networks(directory: &Path) -> anyhow::Result<Vec<(PathBuf, Value)>> {
    let cannot = || format!("cannot read {}", directory.display());
    let mut networks = Vec::new();
    for entry in fs::read_dir(directory).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        if let Some(network) = read(&path) {
            networks.push((path, network));
        }
    }
    networks.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(networks)
}

fn read(file: &Path) -> Option<Value> {
    let extension = file.extension()?.to_str()?;
    let is_network = ["conflist", "conf", "json"].contains(&extension);
    serde_json::from_slice(&fs::read(file).ok().filter(|_| is_network)?).ok()
}

/// Whose network it is, if it is one of ours.
fn engine_of(network: &Value) -> Option<String> {
    let plugins = network["plugins"].as_array()?;
    let own = plugins.iter().find(|it| it["type"] == PLUGIN)?;
    Some(own["engine"].as_str()?.to_owned())
}

#[cfg(test)]
mod tests;
