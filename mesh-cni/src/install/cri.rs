//! Where containerd looks for plugins of Kubernetes' pods, which may be elsewhere than where `ctr` looks: distributions change it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What an operator has to do so that pods find a plugin, if there is something.
pub(super) fn missing_link(plugin: &Path) -> Option<String> {
    let ask = |what: &str| {
        let asked = Command::new("containerd")
            .args(["config", what])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()
            .filter(|it| it.status.success())?;
        Some(String::from_utf8_lossy(&asked.stdout).into_owned())
    };
    // With what the operator's own file says, if there is one. Where there is no containerd nothing is known.
    let searched = directories(&ask("dump").or_else(|| ask("default"))?);
    let name = plugin.file_name()?;
    // A link of an earlier time counts.
    if searched.iter().any(|it| it.join(name).is_file()) {
        return None;
    }
    let first = searched.first()?;
    Some(format!(
        "containerd looks for plugins of Kubernetes' pods in {} alone: ln -s {} {}/",
        first.display(),
        plugin.display(),
        first.display()
    ))
}

/// The directories of plugins in a configuration, which has one before containerd 2.1 and a list from then on.
fn directories(configuration: &str) -> Vec<PathBuf> {
    let mut is_about_plugins = false;
    let mut directories = Vec::new();
    for line in configuration.lines().map(str::trim) {
        if line.starts_with('[') {
            is_about_plugins = line.ends_with(".cni]");
        }
        if is_about_plugins
            && let Some((key, value)) = line.split_once('=')
            && ["bin_dir", "bin_dirs"].contains(&key.trim())
        {
            let words = value.split(['\'', '"']).filter(|it| it.starts_with('/'));
            directories.extend(words.map(PathBuf::from));
        }
    }
    directories
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directories_are_those_of_the_plugins_and_no_others() {
        let before = "  [plugins.\"io.containerd.grpc.v1.cri\".cni]\n    bin_dir = \"/usr/lib/cni\"\n    \
             conf_dir = \"/etc/cni/net.d\"\n";
        assert_eq!(directories(before), [Path::new("/usr/lib/cni")]);
        let now = "    [plugins.'io.containerd.cri.v1.runtime'.cni]\n      bin_dir = ''\n      \
             bin_dirs = ['/usr/lib/cni', '/opt/cni/bin']\n      conf_dir = '/etc/cni/net.d'\n\
             [plugins.'io.containerd.image-verifier.v1.bindir']\n  bin_dir = '/opt/containerd/image-verifier/bin'\n";
        let both = ["/usr/lib/cni", "/opt/cni/bin"].map(Path::new);
        assert_eq!(directories(now), both);
        assert!(directories("").is_empty());
    }
}
