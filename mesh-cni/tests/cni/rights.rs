//! A caller that may not speak to the runtime.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use mesh_testbed::{Cni, CniAttachment, Host, copy_program};

use crate::{
    engine::{alone, assert_says, failure, plugin},
    mesh::{leases, links, mesh_of, namespace},
    script,
};

/// A directory that anybody may read.
struct Open(PathBuf);

impl Open {
    fn new(label: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("qm-{}-{label}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An engine whose plugin gives up what these words of setpriv(1) say.
fn with_less(host: &Host, dir: &Open, words: &str) -> Cni {
    let copy = dir.0.join("copy");
    copy_program(plugin(), &copy).unwrap();
    let line = format!("exec setpriv {words} {}", copy.display());
    script::write(&dir.0, "quilt-cni", &line);
    Cni::on(host, [&dir.0])
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_without_rights_to_the_socket_is_told_which_they_are() {
    let testbed = mesh_of(1).await;
    let host = &testbed.hosts()[0];
    let web = namespace("web").await;
    let attachment = CniAttachment::new("web", &web);
    let dir = Open::new("rights");
    // Whoever it is gets as far as the socket.
    for open in [host.dir(), testbed.dir()] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let nobody = "--reuid 65534 --regid 65534 --clear-groups";
    let failed = {
        let nobody = with_less(host, &dir, nobody);
        let failed = failure(nobody.del(&alone(host), &attachment).await);
        assert_says(&failed, 5, &["only root", "--socket-group"]);
        failure(nobody.add(&alone(host), &attachment).await)
    };
    assert_says(&failed, 5, &["root"]);
    // Somebody who may do anything inside of containers, and nothing else.
    let may = "+sys_admin,+net_admin";
    let inside = format!("{nobody} --inh-caps {may} --ambient-caps {may}");
    let inside = with_less(host, &dir, &inside);
    let failed = failure(inside.add(&alone(host), &attachment).await);
    assert_says(&failed, 5, &["only root", "--socket-group"]);

    let socket = host.runtime_socket();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).unwrap();
    let powerless = "--bounding-set -all --inh-caps -all";
    let powerless = with_less(host, &dir, powerless);
    let failed = failure(powerless.add(&alone(host), &attachment).await);
    assert_says(&failed, 5, &["root"]);
    let failed = failure(powerless.del(&alone(host), &attachment).await);
    assert_says(&failed, 5, &["only root", "--socket-group"]);
    let status = failure(powerless.status(&alone(host)).await);
    assert_eq!(status.code, 50, "{status}");
    assert_eq!(links(&web), ["lo"]);
    assert!(leases(host).await.is_empty());
}
