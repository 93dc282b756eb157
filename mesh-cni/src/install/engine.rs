//! Where engines look for networks and plugins, unless their own configuration says otherwise.

/// An engine that reads CNI networks.
#[derive(Debug)]
pub(super) struct Engine {
    name: &'static str,
    /// Directory of its networks.
    pub(super) networks: &'static str,
    /// Directories of its plugins; ours goes to the first.
    pub(super) plugins: &'static [&'static str],
    /// Whether a container that asks for no network gets the first.
    pub(super) takes_first: bool,
    /// Whether it is containerd, which Kubernetes may ask for pods.
    pub(super) has_pods: bool,
    /// What to do now.
    pub(super) next: &'static str,
}

const ENGINES: [Engine; 4] = [
    // containers.conf(5): network_config_dir, cni_plugin_dirs.
    Engine {
        name: "podman",
        networks: "/etc/cni/net.d",
        plugins: &[
            "/usr/local/libexec/cni",
            "/usr/libexec/cni",
            "/usr/local/lib/cni",
            "/usr/lib/cni",
            "/opt/cni/bin",
        ],
        takes_first: false,
        has_pods: false,
        next: "podman run --network NETWORK …",
    },
    // go-cni's defaults, which containerd's CRI plugin and ctr have.
    Engine {
        name: "containerd",
        networks: "/etc/cni/net.d",
        plugins: &["/opt/cni/bin"],
        takes_first: true,
        has_pods: true,
        next: "ctr run --cni …",
    },
    // cni_config_dir and cni_path of the client's configuration.
    Engine {
        name: "nomad",
        networks: "/opt/cni/config",
        plugins: &["/opt/cni/bin"],
        takes_first: false,
        has_pods: false,
        next: "restart the Nomad client, which looks for networks when it starts; then network { mode = \"cni/NETWORK\" }",
    },
    // crio.conf(5): network_dir, plugin_dirs.
    Engine {
        name: "crio",
        networks: "/etc/cni/net.d",
        plugins: &["/opt/cni/bin", "/usr/libexec/cni"],
        takes_first: true,
        has_pods: false,
        next: "crio sees new networks by itself",
    },
];

impl Engine {
    /// The engine of that name, if it is known here.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        ENGINES.iter().find(|it| it.name == name)
    }

    /// All that are known.
    pub(super) fn names() -> String {
        ENGINES.map(|it| it.name).join(", ")
    }
}
