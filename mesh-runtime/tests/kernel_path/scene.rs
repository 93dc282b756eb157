//! Two nodes that know each other, and what comes of asking one for the other.

use mesh_client::{
    ClientError, Pinger,
    mesh::{CarriedBy, PathResult, PathSubject, PingRequest, Pong, ping_event::Event},
};
use mesh_testbed::{DaemonOptions, Host, NetNs, Testbed, wait_until};

use crate::pair::{SOON, introduce, start_runtimes};

pub(crate) const PROBES_B: &str = "10.42.2.254";

/// What came of a ping.
pub(crate) struct Pinged {
    pub(crate) subject: PathSubject,
    pub(crate) pongs: Vec<Pong>,
    pub(crate) result: PathResult,
}

impl Pinged {
    pub(crate) fn ways(&self) -> Vec<(CarriedBy, CarriedBy)> {
        let answered = self.pongs.iter().filter(|pong| pong.answered);
        answered.map(|pong| (pong.out(), pong.r#in())).collect()
    }

    pub(crate) fn codes(&self) -> Vec<&str> {
        codes(&self.result)
    }
}

pub(crate) fn codes(result: &PathResult) -> Vec<&str> {
    result.findings.iter().map(|it| it.code.as_str()).collect()
}

/// What is found, and it is one thing.
pub(crate) fn observed<'a>(result: &'a PathResult, code: &str) -> &'a str {
    assert_eq!(codes(result), [code], "{result:?}");
    &result.findings[0].observed
}

pub(crate) async fn pinger(host: &Host) -> Pinger {
    Pinger::connect(&host.runtime_socket()).await.unwrap()
}

pub(crate) async fn ping_with(host: &Host, request: PingRequest) -> Result<Pinged, ClientError> {
    let mut pings = pinger(host).await.ping(request).await?;
    let (mut subject, mut pongs) = (None, Vec::new());
    while let Some(event) = pings.next().await? {
        match event {
            Event::Subject(it) => subject = Some(it),
            Event::Pong(pong) => pongs.push(pong),
            Event::Result(result) => {
                assert!(pings.next().await?.is_none(), "an event after the last");
                let subject = subject.unwrap();
                return Ok(Pinged {
                    subject,
                    pongs,
                    result,
                });
            }
        }
    }
    panic!("no result");
}

pub(crate) fn three(target: &str) -> PingRequest {
    PingRequest {
        target: target.to_owned(),
        count: 3,
        interval_ms: 100,
        timeout_ms: 600,
        ..PingRequest::default()
    }
}

pub(crate) async fn ping_three(host: &Host, target: &str) -> Pinged {
    ping_with(host, three(target)).await.unwrap()
}

/// Waits until a host has its endpoint for probes, guarded, and with a program where programs carry traffic.
pub(crate) async fn wait_endpoint(host: &Host, address: &str, fast: bool) {
    wait_until("the endpoint for probes", SOON, || async {
        let status = host.status().await.map_err(|error| error.to_string())?;
        let known = status.probe_endpoint == address;
        let attached = status.fast_path.unwrap_or_default().attachments;
        let carries = attached.contains(&"quilt-probe: encapsulate".to_owned());
        match known && (carries || !fast) {
            true => Ok(()),
            false => Err(format!("{:?} {attached:?}", status.probe_endpoint)),
        }
    })
    .await
    .unwrap();
}

/// Waits until the fast path carries probes there and back: neighbours are known then.
pub(crate) async fn wait_fast(host: &Host, target: &str) {
    wait_until("the fast path", SOON, || async {
        let pinged = ping_three(host, target).await;
        let fast = (CarriedBy::FastPath, CarriedBy::FastPath);
        match pinged.ways() == [fast; 3] {
            true => Ok(()),
            false => Err(format!("{:?}", pinged.pongs)),
        }
    })
    .await
    .unwrap();
}

pub(crate) fn kernel_path() -> DaemonOptions {
    DaemonOptions::new().args(["--fast-path", "off"])
}

/// Two hosts that know each other, with their endpoints for probes.
pub(crate) async fn nodes(on_a: &DaemonOptions, on_b: &DaemonOptions) -> Testbed {
    let testbed = start_runtimes(on_a, on_b).await;
    introduce(&testbed, 1).await;
    testbed
}

pub(crate) async fn fast_nodes() -> Testbed {
    let options = DaemonOptions::new();
    let testbed = nodes(&options, &options).await;
    wait_endpoint(&testbed.hosts()[0], "10.42.1.254", true).await;
    wait_endpoint(&testbed.hosts()[1], PROBES_B, true).await;
    wait_fast(&testbed.hosts()[0], "10.42.2.0/24").await;
    testbed
}

pub(crate) async fn kernel_nodes() -> Testbed {
    let testbed = nodes(&kernel_path(), &kernel_path()).await;
    wait_endpoint(&testbed.hosts()[0], "10.42.1.254", false).await;
    wait_endpoint(&testbed.hosts()[1], PROBES_B, false).await;
    testbed
}

pub(crate) fn nft(namespace: &NetNs, rules: &[&str]) {
    for words in [
        "add table bridge hypervisor",
        "add chain bridge hypervisor swallows { type filter hook forward priority 0 ; }",
    ] {
        run_nft(namespace, words);
    }
    for rule in rules {
        run_nft(
            namespace,
            &format!("add rule bridge hypervisor swallows {rule} drop"),
        );
    }
}

fn run_nft(namespace: &NetNs, words: &str) {
    let mut command = namespace.command("nft");
    let output = command.args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "nft {words}: {output:?}");
}
