use std::{collections::BTreeSet, path::Path};

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::{
    api::command::{Ground, Made, Shown},
    wanted::attachment::Attachment,
};

/// A registry whose loop is the test, and an attachment of it.
struct Scene {
    registry: Registry,
    commands: mpsc::Receiver<Command>,
    attachment: Attachment,
}

impl Scene {
    async fn new(directory: &Path) -> Self {
        let ipam = Ipam::open(directory, "this life").unwrap();
        ipam.set_subnet("10.42.1.0/24".parse().unwrap())
            .await
            .unwrap();
        let (commands, queue) = mpsc::channel(8);
        Self {
            registry: Registry::new(
                ipam,
                commands,
                Ipv4Net::new_assert([10, 42, 0, 0].into(), 16),
                "this life",
                None,
            ),
            commands: queue,
            attachment: Attachment {
                owner: Owner::new("test", "quilt", "web", "eth0").unwrap(),
                namespace: Some("/proc/self/ns/net".to_owned()),
                caller: None,
                wished: None,
                mac: None,
                mtu: None,
                default_route: true,
                published: Vec::new(),
                ports_held: false,
                named: NamedLabels::default(),
            },
        }
    }

    /// Begins an attachment, and gives it up when the loop is asked to make the interface. Returns where the loop would
    /// have answered.
    async fn given_up(&mut self) -> oneshot::Sender<Result<Made, Refusal>> {
        let registry = self.registry.clone();
        let mut attach = registry
            .attach_in(self.attachment.clone(), Some(Namespace::own()))
            .boxed();
        loop {
            let command = tokio::select! {
                command = self.commands.recv() => command.unwrap(),
                attached = &mut attach => panic!("{attached:?}"),
            };
            match command {
                Command::Ground { reply } => reply
                    .send(Ok(Ground {
                        subnet: "10.42.1.0/24".parse().unwrap(),
                        cluster: "10.42.0.0/16".parse().unwrap(),
                        mtu: 1450,
                        vxlan_port: 4789,
                    }))
                    .unwrap(),
                Command::MakeEndpoint { reply, .. } => return reply,
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn who_gives_an_attachment_up_is_seen_to_have_gone_and_what_it_began_is_swept_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(directory.path()).await;
    let reply = scene.given_up().await;
    assert!(reply.is_closed());
    let owner = scene.attachment.owner.clone();
    let lease = scene.registry.ipam().lease_of(&owner).unwrap();
    let endpoint = lease.endpoint.unwrap();
    assert!(!endpoint.settled);

    // The next look at the leases takes all of it back.
    let registry = scene.registry.clone();
    let sweep = tokio::spawn(async move { registry.sweep(&BTreeSet::new()).await });
    let mut unmade = Vec::new();
    while let Some(command) = scene.commands.recv().await {
        match command {
            Command::Shown { reply } => reply.send(Shown::default()).unwrap(),
            Command::UnmakeEndpoint { link, reply } => {
                unmade.push(link);
                reply.send(Ok(())).unwrap();
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    sweep.await.unwrap().unwrap();
    assert_eq!(unmade, [endpoint.link]);
    assert_eq!(scene.registry.ipam().lease_of(&owner), None);
}
