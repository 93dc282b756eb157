//! Docker, reduced to what libnetwork does with a plugin that is both a network driver and an IPAM driver.

use std::{
    fmt, io,
    net::Ipv4Addr,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use ipnet::Ipv4Net;
use mesh_testbed::Host;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::{Instant, timeout},
};

use crate::container::{Container, Network, Step};

/// The longest a driver may take, by what it says of itself: a runtime that is waited for, and one that does not answer.
const DEADLINE: Duration = Duration::from_secs(45);

/// So long Docker repeats a call whose connection breaks (`callWithRetry`, pkg/plugins/client.go).
const REPEATED_FOR: Duration = Duration::from_secs(30);

/// Docker's part in a host that calls one driver.
#[derive(Clone, Debug)]
pub(crate) struct Docker {
    socket: PathBuf,
}

/// What the driver says, under the key at which Docker looks for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) type Answer<T> = Result<T, Refused>;

impl Docker {
    pub(crate) fn calling(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// One request, and what is answered: a status, and a body.
    pub(crate) async fn post(&self, call: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        self.request("POST", call, body).await
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        call: &str,
        body: &[u8],
    ) -> io::Result<(u16, Vec<u8>)> {
        let exchange = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            let head = format!(
                "{method} /{call} HTTP/1.1\r\nHost: quilt\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await?;
            // Who is answered before it has said all need not say the rest.
            let _ = stream.write_all(body).await;
            let mut answer = Vec::new();
            match stream.read_to_end(&mut answer).await {
                Err(error) if answer.is_empty() => return Err(error),
                _ => {}
            }
            let end = answer.windows(4).position(|it| it == b"\r\n\r\n");
            let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
            let status = std::str::from_utf8(&answer[..end]).unwrap();
            let status = status.split(' ').nth(1).unwrap().parse().unwrap();
            Ok((status, answer[end + 4..].to_vec()))
        };
        let answered = timeout(DEADLINE, exchange).await;
        answered.unwrap_or_else(|_| panic!("{call} is not answered within {DEADLINE:?}"))
    }

    /// A call, repeated for as long as its connection breaks.
    pub(crate) async fn call(&self, call: &str, request: &Value) -> Answer<Value> {
        let begun = Instant::now();
        let answer = loop {
            match self.post(call, request.to_string().as_bytes()).await {
                Ok(answer) => break answer,
                Err(error) => assert!(begun.elapsed() < REPEATED_FOR, "{call}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        read(call, answer)
    }

    /// A network of the driver's, as `docker network create --driver quilt --ipam-driver quilt` makes it.
    pub(crate) async fn create_network(&self) -> Answer<Network> {
        self.create_network_with("", &json!({})).await
    }

    pub(crate) async fn create_network_with(
        &self,
        subnet: &str,
        options: &Value,
    ) -> Answer<Network> {
        let network = self.network(subnet).await?;
        let options = json!({
            "com.docker.network.enable_ipv6": false,
            "com.docker.network.generic": options,
        });
        self.call("NetworkDriver.CreateNetwork", &network.creation(&options))
            .await?;
        Ok(network)
    }

    /// The pool and the gateway of a network that is not created yet.
    pub(crate) async fn network(&self, subnet: &str) -> Answer<Network> {
        let request = json!({ "AddressSpace": "quilt", "Pool": subnet, "SubPool": "", "Options": {}, "V6": false });
        let pool = self.call("IpamDriver.RequestPool", &request).await?;
        let text = |it: &Value| it.as_str().unwrap_or_else(|| panic!("{pool}")).to_owned();
        let mut network = Network {
            id: id(),
            pool_id: text(&pool["PoolID"]),
            pool: text(&pool["Pool"]),
            gateway: Ipv4Addr::UNSPECIFIED,
        };
        let shown: Ipv4Net = text(&pool["Data"]["com.docker.network.gateway"])
            .parse()
            .unwrap();
        network.gateway = shown.addr();
        let given = self.gateway(&network).await?;
        assert_eq!(given, shown);
        Ok(network)
    }

    /// Asks for the gateway of a network by its address.
    pub(crate) async fn gateway(&self, network: &Network) -> Answer<Ipv4Net> {
        let request = json!({
            "PoolID": network.pool_id,
            "Address": network.gateway.to_string().replace("0.0.0.0", ""),
            "Options": { "RequestAddressType": "com.docker.network.gateway" },
        });
        self.address(&request).await
    }

    pub(crate) async fn delete_network(&self, network: &Network) -> Answer<()> {
        let request = json!({ "NetworkID": network.id });
        self.call("NetworkDriver.DeleteNetwork", &request).await?;
        let gateway = json!({ "PoolID": network.pool_id, "Address": network.gateway });
        self.call("IpamDriver.ReleaseAddress", &gateway).await?;
        let pool = json!({ "PoolID": network.pool_id });
        self.call("IpamDriver.ReleasePool", &pool).await?;
        Ok(())
    }

    /// A request for an address.
    pub(crate) async fn address(&self, request: &Value) -> Answer<Ipv4Net> {
        let answer = self.call("IpamDriver.RequestAddress", request).await?;
        let address = answer["Address"].as_str();
        Ok(address
            .unwrap_or_else(|| panic!("{answer}"))
            .parse()
            .unwrap())
    }

    /// `docker run`: all steps up to an interface in the container.
    pub(crate) async fn run(&self, host: &Host, container: &mut Container) -> Answer<()> {
        for step in Step::UP {
            self.step(host, container, step).await?;
        }
        Ok(())
    }

    /// `docker stop`, and what follows.
    pub(crate) async fn stop(&self, host: &Host, container: &mut Container) -> Answer<()> {
        for step in Step::DOWN {
            self.step(host, container, step).await?;
        }
        Ok(())
    }

    /// What Docker does when a step of a start has failed: it takes back what it has got.
    pub(crate) async fn run_or_undo(&self, host: &Host, container: &mut Container) -> Answer<()> {
        for step in Step::UP {
            let Err(refused) = self.step(host, container, step).await else {
                continue;
            };
            let undo: &[Step] = match step {
                Step::Address => &[],
                Step::Endpoint => &[Step::Release],
                Step::Join => &[Step::Delete, Step::Release],
                _ => &[Step::Leave, Step::Delete, Step::Release],
            };
            for step in undo {
                self.step(host, container, *step).await.unwrap();
            }
            return Err(refused);
        }
        Ok(())
    }

    /// One step, which may be repeated.
    pub(crate) async fn step(
        &self,
        host: &Host,
        container: &mut Container,
        step: Step,
    ) -> Answer<()> {
        match step {
            Step::Address => {
                let given = self.address(&container.request(step)).await?;
                if let Some(before) = container.given {
                    assert_eq!(given, before, "another address");
                }
                container.given = Some(given);
            }
            Step::In => container.take(host),
            Step::Back => container.hand_back(host),
            _ => {
                let answer = self.call(step.call(), &container.request(step)).await?;
                container.read(step, &answer);
            }
        }
        Ok(())
    }
}

/// What Docker reads from an answer.
pub(crate) fn read(call: &str, (status, body): (u16, Vec<u8>)) -> Answer<Value> {
    let text = String::from_utf8_lossy(&body).into_owned();
    let answer: Value = match serde_json::from_slice(&body) {
        Ok(answer @ Value::Object(_)) => answer,
        other => panic!("{call} answers {status} with {text}: {other:?}"),
    };
    let key = match call.starts_with("IpamDriver") {
        true => "Error",
        false => "Err",
    };
    match answer[key].as_str().unwrap_or_default() {
        "" => {
            assert_eq!(status, 200, "{call}: {text}");
            Ok(answer)
        }
        error => Err(Refused(error.to_owned())),
    }
}

/// A published port of TCP, as Docker says it.
pub(crate) fn port_binding(host_port: u16, port: u16) -> Value {
    json!({
        "Proto": 6, "IP": "", "Port": port, "HostIP": "", "HostPort": host_port, "HostPortEnd": host_port,
    })
}

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// An id as Docker makes them.
pub(crate) fn id() -> String {
    // Docker names sandboxes by the beginning of theirs.
    format!("{:012x}{:052x}", NUMBER.fetch_add(1, Ordering::Relaxed), 0)
}

/// A MAC address that no other container of this program has.
pub(crate) fn mac() -> String {
    let [.., a, b] = NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    format!("02:42:0a:2a:{a:02x}:{b:02x}")
}
