//! What an operator asks for: the plugin, where netavark looks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use mesh_plugin::install_self;
use serde_json::Value;

use crate::{DRIVER, NAME};

/// The first directory that netavark looks in (containers.conf(5), `netavark_plugin_dirs`).
const PLUGINS: &str = "/usr/local/libexec/netavark";

/// Podman answers at once, unless somebody holds its locks.
const DEADLINE: &str = "20";

/// Puts containers of Podman with netavark on the mesh
///
/// Podman and netavark run it as a plugin, with create, setup, teardown or info; for a person it has the commands below.
#[derive(Debug, clap::Parser)]
#[command(name = "quilt-netavark", version, args_override_self = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Write this plugin where netavark looks, under the name by which networks are made, and say what is to be done
    Install(Place),
    /// Remove the plugin, once no network of Podman's is made by it
    Uninstall(Place),
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Directory of netavark's plugins, one of netavark_plugin_dirs in containers.conf
    #[arg(long, value_name = "DIRECTORY", default_value = PLUGINS)]
    plugin_dir: PathBuf,

    /// Replace a file of that name that is not this plugin, or remove the plugin although networks are made by it
    #[arg(long)]
    force: bool,
}

/// Does it.
pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    match options.what {
        What::Install(place) => place.install(),
        What::Uninstall(place) => place.uninstall(),
    }
}

impl Place {
    fn file(&self) -> PathBuf {
        self.plugin_dir.join(DRIVER)
    }

    fn install(&self) -> anyhow::Result<()> {
        if !self.plugin_dir.is_absolute() {
            let given = self.plugin_dir.display();
            bail!("--plugin-dir {given} is not an absolute path");
        }
        let file = self.file();
        if file.symlink_metadata().is_ok() && !is_ours(&file) && !self.force {
            bail!(
                "{} is there and is not {NAME}: --force replaces it",
                file.display()
            );
        }
        install_self(&file)?;
        println!("plugin   {}", file.display());
        let asked = podman(&[
            "info",
            "--format",
            "{{.Host.NetworkBackend}} {{.Plugins.Network}}",
        ]);
        if let Some(note) = note(asked.as_deref(), &self.plugin_dir) {
            println!("note     {note}");
        }
        println!("next     podman network create --driver {DRIVER} mesh");
        println!("         podman run --network mesh …");
        Ok(())
    }

    fn uninstall(&self) -> anyhow::Result<()> {
        let file = self.file();
        if !is_ours(&file) {
            bail!("{} is not there, or is not {NAME}", file.display());
        }
        let filter = format!("driver={DRIVER}");
        let asked = podman(&[
            "network",
            "ls",
            "--filter",
            &filter,
            "--format",
            "{{.Name}}",
        ]);
        // Containers of such networks are taken off by it.
        match asked {
            _ if self.force => {}
            None => bail!(
                "Podman does not say whether it has networks that are made by this plugin: see that podman network ls answers, or \
                 give --force"
            ),
            Some(networks) if !networks.trim().is_empty() => bail!(
                "Podman has networks that are made by it: podman network rm {}",
                networks.split_whitespace().collect::<Vec<_>>().join(" ")
            ),
            Some(_) => {}
        }
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        println!("removed  {}", file.display());
        Ok(())
    }
}

/// What Podman lacks to find the plugin, by what it says of its back end and its drivers.
fn note(podman: Option<&str>, plugins: &Path) -> Option<String> {
    let Some(said) = podman else {
        return Some(
            "Podman was not asked whether it finds the plugin: it is not there, or does not answer"
                .to_owned(),
        );
    };
    let mut words = said.split(|it: char| it.is_whitespace() || "[]".contains(it));
    let backend = words.next().unwrap_or_default();
    if backend != "netavark" {
        return Some(format!(
            "this Podman has the network back end {backend:?}, which knows no plugins of netavark: take quilt-cni install --engine \
             podman"
        ));
    }
    if words.any(|it| it == DRIVER) {
        return None;
    }
    Some(format!(
        "this Podman does not find the plugin: write to /etc/containers/containers.conf.d/quilt.conf the lines [network] and \
         netavark_plugin_dirs = [\"{}\"]; netavark before 1.6, such as Debian 12's, has no plugins",
        plugins.display()
    ))
}

/// Whether a file is this plugin, in whatever version.
fn is_ours(file: &Path) -> bool {
    let said = ask(Command::new("timeout").arg(DEADLINE).arg(file).arg("info"));
    let said = said.and_then(|it| serde_json::from_str::<Value>(&it).ok());
    said.is_some_and(|it| it["name"] == NAME)
}

fn podman(arguments: &[&str]) -> Option<String> {
    ask(Command::new("timeout")
        .args([DEADLINE, "podman"])
        .args(arguments))
}

/// What a program prints, if it succeeds.
fn ask(command: &mut Command) -> Option<String> {
    let command = command.stdin(Stdio::null()).stderr(Stdio::null());
    let asked = command.output().ok().filter(|it| it.status.success())?;
    Some(String::from_utf8_lossy(&asked.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podman_lacks_nothing_when_it_lists_the_driver() {
        let plugins = Path::new("/opt/netavark");
        let note = |said: Option<&str>| note(said, plugins);
        assert_eq!(note(Some("netavark [bridge macvlan ipvlan quilt]\n")), None);
        let hidden = note(Some("netavark [bridge macvlan ipvlan]\n")).unwrap();
        assert!(
            hidden.contains("netavark_plugin_dirs = [\"/opt/netavark\"]"),
            "{hidden}"
        );
        let other = note(Some("cni [bridge macvlan ipvlan]\n")).unwrap();
        assert!(other.contains("quilt-cni"), "{other}");
        assert!(note(None).unwrap().contains("not asked"));
    }

    #[test]
    fn somebody_elses_file_of_that_name_is_neither_replaced_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place {
            plugin_dir: folder.path().to_owned(),
            force: false,
        };
        assert!(place.uninstall().is_err());
        mesh_testbed::write_script(&place.file(), "echo '{\"version\":\"1\"}'").unwrap();
        let refused = place.install().unwrap_err().to_string();
        assert!(refused.contains("--force"), "{refused}");
        assert!(place.uninstall().is_err());
        assert!(place.file().exists());
        let relative = Place {
            plugin_dir: "plugins".into(),
            force: false,
        };
        assert!(
            relative
                .install()
                .unwrap_err()
                .to_string()
                .contains("absolute")
        );
    }
}
