//! What an operator asks for: the driver, started by systemd whenever Docker calls.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use mesh_plugin::replace;

use crate::{
    DRIVER,
    serve::{SOCKET, STATE},
};

/// Where units of the host's own are (systemd.unit(5)).
const UNITS: &str = "/etc/systemd/system";

const SOCKET_UNIT: &str = "quilt-docker.socket";
const SERVICE_UNIT: &str = "quilt-docker.service";

/// There while systemd is the service manager (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// Docker answers at once, unless it is busy with stopping.
const DEADLINE: &str = "20";

#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// Directory of systemd's units
    #[arg(long, value_name = "DIRECTORY", default_value = UNITS)]
    unit_dir: PathBuf,

    /// Remove the driver although networks of Docker's are made by it
    #[arg(long)]
    force: bool,
}

impl Place {
    /// Whether systemd runs, and reads the units.
    fn is_of_systemd(&self) -> bool {
        Path::new(BOOTED).is_dir() && self.unit_dir == Path::new(UNITS)
    }

    pub(crate) fn install(&self) -> anyhow::Result<()> {
        if !self.unit_dir.is_absolute() {
            bail!(
                "--unit-dir {} is not an absolute path",
                self.unit_dir.display()
            );
        }
        let own = env::current_exe().context("this program's own file is not to be found")?;
        if self.unit_dir == Path::new(UNITS) {
            check_visible(&own)?;
        }
        for (name, content) in [
            (SOCKET_UNIT, socket_unit()),
            (SERVICE_UNIT, service_unit(&own)?),
        ] {
            let path = self.unit_dir.join(name);
            replace(&path, content.as_bytes(), 0o644)?;
            println!("unit     {}", path.display());
        }
        if self.is_of_systemd() {
            systemctl(&["daemon-reload"])?;
            // Another version of this program answers from now on.
            systemctl(&["stop", SERVICE_UNIT])?;
            systemctl(&["enable", "--now", SOCKET_UNIT])?;
            println!("socket   {SOCKET}, by systemd");
        } else {
            println!(
                "note     no systemd runs here: keep \"quilt-docker serve\" running, whenever it starts. Best before Docker: without it \
                 Docker's networks of this driver fail with: plugin \"{DRIVER}\" not found"
            );
        }
        println!("next     docker network create --driver {DRIVER} --ipam-driver {DRIVER} mesh");
        println!("         docker run --network mesh …");
        Ok(())
    }

    pub(crate) fn uninstall(&self) -> anyhow::Result<()> {
        let filter = format!("driver={DRIVER}");
        let asked = docker(&[
            "network",
            "ls",
            "--filter",
            &filter,
            "--format",
            "{{.Name}}",
        ]);
        match asked {
            _ if self.force => {}
            None => bail!(
                "Docker does not say whether it has networks that are made by this driver: start it, or give --force"
            ),
            Some(networks) if !networks.trim().is_empty() => bail!(
                "Docker has networks that are made by this driver: docker network rm {}",
                networks.split_whitespace().collect::<Vec<_>>().join(" ")
            ),
            Some(_) => {}
        }
        if self.is_of_systemd() {
            systemctl(&["disable", "--now", SOCKET_UNIT, SERVICE_UNIT])?;
        }
        for name in [SOCKET_UNIT, SERVICE_UNIT] {
            let path = self.unit_dir.join(name);
            match fs::remove_file(&path) {
                // An earlier call ended half way.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                removed => removed.with_context(|| format!("cannot remove {}", path.display()))?,
            }
            println!("removed  {}", path.display());
        }
        println!("left     {STATE}, which nobody needs any more");
        if !self.is_of_systemd() {
            println!("note     no systemd runs here: end \"quilt-docker serve\"");
        }
        Ok(())
    }
}

/// It is there before Docker is, so that Docker never waits for it.
fn socket_unit() -> String {
    format!(
        "[Unit]\n\
         Description=Docker's calls of Quilt Mesh\n\
         Before=docker.service\n\
         \n\
         [Socket]\n\
         ListenStream={SOCKET}\n\
         SocketMode=0600\n\
         DirectoryMode=0755\n\
         \n\
         [Install]\n\
         WantedBy=sockets.target docker.service\n"
    )
}

/// Refuses a program that its service could not start.
fn check_visible(program: &Path) -> anyhow::Result<()> {
    match HIDDEN.iter().find(|it| program.starts_with(it)) {
        None => Ok(()),
        Some(hidden) => bail!(
            "{}: the service does not see what is below {hidden}: install this program elsewhere, such as in /usr/local/bin",
            program.display()
        ),
    }
}

/// Where the service does not see programs: people's directories (`ProtectHome`), and those of processes (`PrivateTmp`).
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// It speaks with Docker and the runtime, by Unix sockets, and needs no right beyond that. However often it fails it is started
/// again: after a limit systemd would close the socket as well. It is not ordered after the runtime, for which it waits by itself: an
/// operator's unit of that may be ordered after Docker's.
fn service_unit(program: &Path) -> anyhow::Result<String> {
    let program = program
        .to_str()
        .context("the path of this program is no text")?;
    if program.contains(|it: char| it.is_whitespace() || "%$\"'\\;".contains(it)) {
        bail!(
            "{program}: install this program where no space, quote or sign of systemd's is in its path"
        );
    }
    Ok(format!(
        "[Unit]\n\
         Description=Quilt Mesh for Docker\n\
         Requires={SOCKET_UNIT}\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         ExecStart={program} serve\n\
         Restart=on-failure\n\
         RestartSec=2\n\
         StateDirectory=quilt-docker\n\
         StateDirectoryMode=0700\n\
         CapabilityBoundingSet=\n\
         NoNewPrivileges=yes\n\
         PrivateNetwork=yes\n\
         PrivateDevices=yes\n\
         PrivateTmp=yes\n\
         ProtectSystem=strict\n\
         ProtectHome=yes\n\
         ProtectKernelModules=yes\n\
         ProtectKernelTunables=yes\n\
         ProtectControlGroups=yes\n\
         RestrictAddressFamilies=AF_UNIX\n\
         RestrictNamespaces=yes\n\
         MemoryDenyWriteExecute=yes\n\
         SystemCallArchitectures=native\n\
         SystemCallFilter=@system-service\n"
    ))
}

fn systemctl(arguments: &[&str]) -> anyhow::Result<()> {
    let shown = arguments.join(" ");
    let ended = Command::new("systemctl")
        .args(arguments)
        .stdin(Stdio::null())
        .status();
    let ended = ended.with_context(|| format!("cannot run systemctl {shown}"))?;
    match ended.success() {
        true => Ok(()),
        false => bail!("systemctl {shown}: {ended}"),
    }
}

/// What Docker's client prints, if it succeeds.
fn docker(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("timeout");
    let command = command.args([DEADLINE, "docker"]).args(arguments);
    let asked = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let asked = asked.ok().filter(|it| it.status.success())?;
    Some(String::from_utf8_lossy(&asked.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_starts_this_program_and_its_socket_comes_before_docker() {
        let service = service_unit(Path::new("/usr/local/bin/quilt-docker")).unwrap();
        assert!(service.contains("ExecStart=/usr/local/bin/quilt-docker serve\n"));
        assert!(service.contains("CapabilityBoundingSet=\n"));
        assert!(socket_unit().contains("Before=docker.service\n"));
        assert!(service.contains("StartLimitIntervalSec=0\n"));
        for path in ["/opt/my programs/quilt-docker", "/opt/50%/quilt-docker"] {
            assert!(service_unit(Path::new(path)).is_err(), "{path}");
        }
        for path in ["/root/bin/quilt-docker", "/tmp/quilt-docker"] {
            assert!(check_visible(Path::new(path)).is_err(), "{path}");
        }
        assert!(check_visible(Path::new("/usr/local/bin/quilt-docker")).is_ok());
    }
}
