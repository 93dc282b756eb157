//! Whether Podman looks at CNI networks: it may have chosen netavark for good when it first ran.

use std::process::{Command, Stdio};

/// Where operators write what they change, beside the file that distributions may replace.
const DROP_IN: &str = "/etc/containers/containers.conf.d/50-quilt-cni.conf";

/// What an operator has to do so that Podman sees CNI networks, if there is something. Podman that has never run chooses
/// its back end by this question, and the network is there by now.
pub(super) fn other_back_end() -> Option<String> {
    let asked = Command::new("podman")
        .args([
            "info",
            "--format",
            "{{.Host.NetworkBackend}} {{.Version.Version}}",
        ])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let said = match asked.status.success() {
        true => asked.stdout,
        false => asked.stderr,
    };
    advice(asked.status.success(), &String::from_utf8_lossy(&said))
}

/// What to do about what Podman says of itself, or about its error.
fn advice(succeeded: bool, said: &str) -> Option<String> {
    let mut words = said.split_whitespace();
    match (succeeded, words.next(), words.next()) {
        (true, Some("cni"), _) => None,
        (true, Some("netavark"), Some(version)) if is_without_cni(version) => Some(format!(
            "Podman {version} knows no CNI networks, so that this one is of no use to it: take quilt-netavark install"
        )),
        (true, Some("netavark"), _) => Some(with_cni()),
        // It cannot find what it has chosen.
        (false, ..) if said.contains("netavark") => Some(with_cni()),
        (false, ..) => {
            let reason = said.lines().next().unwrap_or_default();
            Some(format!(
                "whether Podman sees it is not known (podman info: {reason})"
            ))
        }
        (true, ..) => None,
    }
}

/// Podman has no CNI back end from version 5 on.
fn is_without_cni(version: &str) -> bool {
    let major = version.split('.').next().and_then(|it| it.parse().ok());
    major.is_some_and(|major: u32| major >= 5)
}

fn with_cni() -> String {
    format!(
        "Podman has chosen netavark and sees no CNI network; so that it does: mkdir -p {} && printf \
         '[network]\\nnetwork_backend = \"cni\"\\n' > {DROP_IN}",
        DROP_IN
            .rsplit_once('/')
            .map_or("/", |(directory, _)| directory)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_podman_has_chosen_is_told_with_what_helps() {
        assert_eq!(advice(true, "cni 4.3.1\n"), None);
        let chosen = advice(true, "netavark 4.3.1\n").unwrap();
        assert!(
            chosen.contains(DROP_IN) && chosen.contains("network_backend"),
            "{chosen}"
        );
        let lost = "Error: could not find \"netavark\" in one of [/usr/lib/podman]\n";
        assert_eq!(advice(false, lost), Some(chosen));
        let newer = advice(true, "netavark 5.4.2\n").unwrap();
        assert!(
            newer.contains("5.4.2") && newer.contains("quilt-netavark") && !newer.contains(DROP_IN),
            "{newer}"
        );
        let broken = advice(false, "Error: no storage\nmore\n").unwrap();
        assert!(
            broken.contains("(podman info: Error: no storage)"),
            "{broken}"
        );
    }
}
