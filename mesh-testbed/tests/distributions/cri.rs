//! What Kubernetes' node agent asks an engine of its sandboxes.

use std::{collections::HashMap, fs::File, net::Ipv4Addr, path::Path};

use hyper_util::rt::TokioIo;
use mesh_testbed::{Engine, Entrance, wait_until};
use serde_json::Value;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::mesh::SOON;

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    rust_2018_idioms,
    clippy::all,
    reason = "generated"
)]
mod proto {
    tonic::include_proto!("runtime.v1");
}

pub(crate) use proto::RuntimeCondition;
use proto::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ExecSyncRequest, ImageSpec,
    LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PodSandboxStatusRequest,
    PortMapping, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StatusRequest, StopPodSandboxRequest, VersionRequest,
    runtime_service_client::RuntimeServiceClient,
};

/// Where containerd serves, inside.
const SOCKET: &str = "/run/containerd/containerd.sock";

const IMAGE: &str = "localhost/busybox:latest";

/// A client of one engine.
pub(crate) struct Cri<'a> {
    engine: &'a Engine,
    client: RuntimeServiceClient<Channel>,
}

/// What a sandbox is made of.
#[derive(Clone)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    config: PodSandboxConfig,
}

/// How a sandbox shows itself.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Its address; none where it has none.
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) is_ready: bool,
    /// The file that stands for its network namespace, inside the engine's mount namespace.
    pub(crate) netns: String,
}

impl<'a> Cri<'a> {
    /// Waits until the engine answers, which it does a moment after its daemon serves other clients, and knows the network that
    /// [`containerd`](crate::containerd::containerd) installs.
    pub(crate) async fn of(engine: &'a Engine) -> Self {
        let path = engine.seen_from_outside(SOCKET);
        let connect = move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        };
        // Its name means nothing on a Unix socket.
        let channel = Endpoint::from_static("http://localhost");
        let channel = channel.connect_with_connector_lazy(service_fn(connect));
        let client = RuntimeServiceClient::new(channel);
        wait_until("an answer of CRI", SOON, async || {
            let version = VersionRequest::default();
            client.clone().version(version).await.map(drop)
        })
        .await
        .unwrap();
        let cri = Self { engine, client };
        cri.wait_network(&["quilt-cni", "portmap"]).await;
        cri
    }

    /// A condition of the engine's.
    pub(crate) async fn condition(&self, kind: &str) -> RuntimeCondition {
        let asked = self.client.clone().status(StatusRequest::default()).await;
        let status = asked.unwrap().into_inner().status.unwrap();
        let mut conditions = status.conditions.into_iter();
        conditions.find(|it| it.r#type == kind).unwrap()
    }

    /// Waits until the engine has read a network of these plugins, which it does when a file of it changes.
    pub(crate) async fn wait_network(&self, plugins: &[&str]) {
        wait_until("the engine to read its network", SOON, async || {
            let request = StatusRequest { verbose: true };
            let asked = self.client.clone().status(request).await;
            let answer = asked.map_err(|status| status.to_string())?.into_inner();
            let shown = &answer.info["cniconfig"];
            let read: Value = serde_json::from_str(shown).unwrap();
            let networks = read["Networks"].as_array().into_iter().flatten();
            let of_it = networks.flat_map(|it| it["Config"]["Plugins"].as_array());
            let types = of_it.flatten().map(|it| it["Network"]["type"].as_str());
            // That of the loopback interface is always there.
            let types: Vec<_> = types.flatten().filter(|it| *it != "loopback").collect();
            (types == plugins).then_some(()).ok_or(shown.clone())
        })
        .await
        .unwrap();
    }

    /// Runs a sandbox of this name, with ports of the host by which the sandbox's are published, and annotations.
    pub(crate) async fn run(
        &self,
        name: &str,
        ports: &[(u16, u16)],
        annotations: &[(&str, &str)],
    ) -> Result<Sandbox, tonic::Status> {
        let published = ports.iter().map(|(host, container)| PortMapping {
            host_port: i32::from(*host),
            container_port: i32::from(*container),
        });
        let annotations = annotations.iter();
        let annotations = annotations.map(|(key, value)| (key.to_string(), value.to_string()));
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("{name}-uid"),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: "/run/pods".to_owned(),
            port_mappings: published.collect(),
            annotations: annotations.collect::<HashMap<_, _>>(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: self.engine.control_group(),
            }),
        };
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
        };
        let answer = self.client.clone().run_pod_sandbox(request).await?;
        let id = answer.into_inner().pod_sandbox_id;
        Ok(Sandbox { id, config })
    }

    /// What the engine says of a sandbox.
    pub(crate) async fn shown(&self, sandbox: &Sandbox) -> Shown {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: sandbox.id.clone(),
            verbose: true,
        };
        let asked = self.client.clone().pod_sandbox_status(request).await;
        let answer = asked.unwrap().into_inner();
        let status = answer.status.unwrap();
        let info: Value = serde_json::from_str(&answer.info["info"]).unwrap();
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array();
        let mut namespaces = namespaces.into_iter().flatten();
        let netns = namespaces.find(|it| it["type"] == "network");
        Shown {
            address: status.network.and_then(|it| it.ip.parse().ok()),
            is_ready: status.state == 0,
            netns: netns.unwrap()["path"].as_str().unwrap().to_owned(),
        }
    }

    /// A way into a sandbox's network namespace, which lives at least as long as this value.
    pub(crate) async fn entrance(&self, sandbox: &Sandbox) -> Entrance {
        let netns = self.shown(sandbox).await.netns;
        // A symlink, which from outside would lead to our own /run.
        let netns = Path::new("/run").join(Path::new(&netns).strip_prefix("/var/run").unwrap());
        let file = File::open(self.engine.seen_from_outside(netns)).unwrap();
        Entrance::new(&sandbox.id, file.into())
    }

    /// Starts a container that does nothing but be there in a sandbox, and returns its id.
    pub(crate) async fn start(&self, sandbox: &Sandbox) -> String {
        let mut client = self.client.clone();
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(ContainerConfig {
                metadata: Some(ContainerMetadata {
                    name: "main".to_owned(),
                }),
                image: Some(ImageSpec {
                    image: IMAGE.to_owned(),
                }),
                log_path: "main.log".to_owned(),
            }),
            sandbox_config: Some(sandbox.config.clone()),
        };
        let answer = client.create_container(request).await.unwrap();
        let container_id = answer.into_inner().container_id;
        let request = StartContainerRequest {
            container_id: container_id.clone(),
        };
        client.start_container(request).await.unwrap();
        container_id
    }

    /// Runs a program in a container to its end and returns what it printed.
    pub(crate) async fn exec(&self, container: &str, words: &[&str]) -> String {
        let request = ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: words.iter().map(|&word| word.to_owned()).collect(),
            timeout: SOON.as_secs().cast_signed(),
        };
        let answer = self.client.clone().exec_sync(request).await;
        let answer = answer.unwrap().into_inner();
        let [said, complained] =
            [answer.stdout, answer.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
        assert_eq!(answer.exit_code, 0, "{words:?}: {said} {complained}");
        said
    }

    /// Ends all that runs in a sandbox, and takes its network.
    pub(crate) async fn stop(&self, sandbox: &Sandbox) -> Result<(), tonic::Status> {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: sandbox.id.clone(),
        };
        self.client
            .clone()
            .stop_pod_sandbox(request)
            .await
            .map(drop)
    }

    /// Removes a sandbox.
    pub(crate) async fn remove(&self, sandbox: &Sandbox) -> Result<(), tonic::Status> {
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: sandbox.id.clone(),
        };
        self.client
            .clone()
            .remove_pod_sandbox(request)
            .await
            .map(drop)
    }
}
