//! How fast addresses are leased and released, and what a caller waits: with 1 and 64 callers, in
//! subnets of two sizes that are half full.
//!
//! ```text
//! cargo run --release -p mesh-ipam --example rate -- DIRECTORY [SECONDS]
//! ```

use std::{
    path::Path,
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use mesh_ipam::{EndpointPlan, Ipam, Lifetime, NamedLabels, NetworkNamespace, Owner, Request};
use tokio::task::JoinSet;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const LIFE: &str = "4a1b6b0e-8a2e-4d6f-9d0a-0c5b8f3f8c2f/4026531840";

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: rate DIRECTORY [SECONDS]")?;
    let seconds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    println!("In {directory}, {seconds} s each; pairs are an allocation and its release.\n");
    println!("| subnet | callers | pairs/s | allocate p50 | p99 | release p50 | p99 | file |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    for subnet in ["10.42.1.0/24", "10.42.0.0/16"] {
        let subnet: Ipv4Net = subnet.parse()?;
        for callers in [1, 64] {
            let directory = Path::new(&directory).join("rate-of-leases");
            let time = Duration::from_secs(seconds);
            let result = runtime.block_on(measure(&directory, subnet, callers, time));
            std::fs::remove_dir_all(&directory)?;
            println!("{}", result?);
        }
    }
    Ok(())
}

async fn measure(
    directory: &Path,
    subnet: Ipv4Net,
    callers: usize,
    time: Duration,
) -> Result<String, Failure> {
    let ipam = Ipam::open(directory, LIFE)?;
    ipam.set_subnet(subnet).await?;
    let mut fill = JoinSet::new();
    let half = ipam.usage().capacity / 2;
    for caller in 0..64 {
        let ipam = ipam.clone();
        fill.spawn(async move {
            for number in (caller..half).step_by(64) {
                ipam.allocate(request(&format!("resident-{number}"))?)
                    .await?;
            }
            Ok::<(), Failure>(())
        });
    }
    while let Some(result) = fill.join_next().await {
        result??;
    }
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for caller in 0..callers {
        let ipam = ipam.clone();
        tasks.spawn(async move {
            let request = request(&format!("caller-{caller}"))?;
            let mut waits = (Vec::new(), Vec::new());
            while start.elapsed() < time {
                let asked = Instant::now();
                let granted = ipam.allocate(request.clone()).await?;
                waits.0.push(asked.elapsed());
                let asked = Instant::now();
                ipam.release(&request.owner, Some(granted.lease.address))
                    .await?;
                waits.1.push(asked.elapsed());
            }
            Ok::<_, Failure>(waits)
        });
    }
    let (mut allocations, mut releases) = (Vec::new(), Vec::new());
    while let Some(result) = tasks.join_next().await {
        let waits = result??;
        allocations.extend(waits.0);
        releases.extend(waits.1);
    }
    let rate = allocations.len() as f64 / start.elapsed().as_secs_f64();
    let length = std::fs::metadata(directory.join("leases"))?.len();
    let [one, two] = [allocations, releases].map(|mut waits| {
        waits.sort_unstable();
        let at = |part: usize| waits[(waits.len() - 1) * part / 100].as_secs_f64() * 1e3;
        format!("{:.3} ms | {:.3} ms", at(50), at(99))
    });
    let length = length as f64 / f64::from(1 << 20);
    Ok(format!(
        "| /{} | {callers} | {rate:.0} | {one} | {two} | {length:.1} MiB |",
        subnet.prefix_len()
    ))
}

/// As an engine asks: with a name, labels and the interface that it is about to make.
fn request(container: &str) -> Result<Request, Failure> {
    let labels = [
        ("com.example.project", "shop"),
        ("com.example.service", "web"),
    ];
    Ok(Request {
        owner: Owner::new("docker", "quilt", container, "eth0")?,
        wished: None,
        named: NamedLabels {
            names: vec![format!("{container}.shop")],
            labels: labels.map(|(key, value)| (key.into(), value.into())).into(),
        },
        namespace: Some(NetworkNamespace {
            path: format!("/run/netns/{container}").into(),
            inode: 4_026_532_000,
        }),
        lifetime: Lifetime::Released,
        endpoint: Some(EndpointPlan {
            link: "veth0123456789a".into(),
            mac: None,
            mtu: 1450,
            default_route: true,
            published: Vec::new(),
            namespace: None,
            moved_by_engine: false,
        }),
    })
}
