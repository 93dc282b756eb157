//! The door of TCP: where it is, who gets through, and what becomes of it if somebody else stands there.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::unistd::geteuid;
use tokio::{net::TcpListener, sync::mpsc, time::sleep};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;

use super::{
    handshakes,
    tls::{Credentials, TlsFiles},
};

/// Callers that have shown their certificates and wait for the server to take them.
const WAITING_CALLERS: usize = 16;

/// Between two looks whether the port is free that somebody held: the first and the longest pause.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// A door that may be opened.
#[derive(Debug)]
pub(crate) struct TcpDoor {
    address: SocketAddr,
    credentials: Option<Arc<Credentials>>,
}

impl TcpDoor {
    /// Reads what it needs, and refuses one through which anybody might come.
    ///
    /// # Errors
    ///
    /// What is missing, with the options.
    pub(crate) fn prepare(address: SocketAddr, tls: Option<TlsFiles>) -> anyhow::Result<Self> {
        let Some(files) = tls else {
            if !address.ip().to_canonical().is_loopback() {
                bail!(
                    "--grpc-addr {address} is beyond loopback, where whoever reaches it could steer this node's overlay: \
                     give --tls-cert, --tls-key and --tls-ca, so that callers have to show a certificate of that CA (the \
                     agent's --runtime-tls-cert and --runtime-tls-key), or serve on 127.0.0.1 or on the Unix socket alone \
                     (--grpc-addr off)"
                );
            }
            return Ok(Self {
                address,
                credentials: None,
            });
        };
        let credentials = Credentials::open(files).context("cannot serve TLS")?;
        Ok(Self {
            address,
            credentials: Some(Arc::new(credentials)),
        })
    }

    /// Opens it. `None`: a process that is neither root's nor our user's has the port, which must not keep a runtime
    /// from starting; it is on its socket all the same.
    ///
    /// # Errors
    ///
    /// What the kernel has against it.
    pub(crate) async fn open(&self) -> anyhow::Result<Option<TcpListener>> {
        let address = self.address;
        match TcpListener::bind(address).await {
            Ok(listener) => Ok(Some(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && !held_by_one_of_us(address) => {
                tracing::warn!(name: "process-not-root-holds-port", 
                    %address,
                    "a process that is not root's holds the port of --grpc-addr, and whoever calls there reaches it: calls are \
                     served on the Unix socket alone until it is free; end that process (ss -ltnp, or -atnp if it does not listen)"
                );
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| {
                format!("cannot serve gRPC on {address}: stop what listens there (ss -ltnp), or choose another address with --grpc-addr")
            }),
        }
    }

    /// As it is shown, behind a listener or without.
    pub(crate) fn shown(&self, listener: Option<&TcpListener>) -> String {
        let bound = listener.and_then(|it| it.local_addr().ok());
        let how = match (&self.credentials, listener) {
            (_, None) => " (another process holds it)",
            (Some(_), _) => " (TLS)",
            (None, _) => "",
        };
        format!("{}{how}", bound.unwrap_or(self.address))
    }

    /// Serves whoever gets through until `stop`, and says where as soon as it does.
    ///
    /// # Errors
    ///
    /// The server's.
    pub(crate) async fn serve(
        self,
        listener: Option<TcpListener>,
        router: Router,
        stop: CancellationToken,
        say: impl Fn(String),
    ) -> Result<(), tonic::transport::Error> {
        let listener = match listener {
            Some(listener) => listener,
            None => {
                let free = tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    free = self.until_free() => free,
                };
                tracing::info!(name: "port-grpc-addr-free", address = %self.address, "the port of --grpc-addr is free: calls are served there as well");
                free
            }
        };
        say(self.shown(Some(&listener)));
        let stopped = stop.clone().cancelled_owned();
        let Some(credentials) = self.credentials else {
            let callers = TcpListenerStream::new(listener);
            return router.serve_with_incoming_shutdown(callers, stopped).await;
        };
        let (ready, callers) = mpsc::channel(WAITING_CALLERS);
        let serving = router.serve_with_incoming_shutdown(ReceiverStream::new(callers), stopped);
        let accepting = async {
            handshakes::run(&listener, &credentials, &ready, &stop).await;
            // Calls under way come to their end.
            std::future::pending().await
        };
        tokio::select! {
            served = serving => served,
            never = accepting => never,
            () = credentials.follow() => Ok(()),
        }
    }

    async fn until_free(&self) -> TcpListener {
        let [mut pause, longest] = PAUSES;
        loop {
            sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
            if let Ok(listener) = TcpListener::bind(self.address).await {
                return listener;
            }
            pause = (pause * 2).min(longest);
        }
    }
}

/// Whether a process of root's or of our user's listens where `address` would. Of one that holds a port without listening
/// the kernel does not tell, and no server does that.
fn held_by_one_of_us(address: SocketAddr) -> bool {
    let own = geteuid().as_raw();
    let mut listeners = ["tcp", "tcp6"].into_iter().flat_map(|family| {
        let table = fs::read_to_string(format!("/proc/thread-self/net/{family}"));
        let table = table.unwrap_or_default();
        table.lines().filter_map(listener).collect::<Vec<_>>()
    });
    listeners.any(|(at, user)| (user == 0 || user == own) && in_the_way(at, address))
}

fn in_the_way(other: SocketAddr, address: SocketAddr) -> bool {
    let (its, ours) = (other.ip().to_canonical(), address.ip().to_canonical());
    let same = its == ours || its.is_unspecified() || ours.is_unspecified();
    other.port() == address.port() && same
}

/// Where and whose a listener is, by a line of /proc/net/tcp or tcp6.
fn listener(line: &str) -> Option<(SocketAddr, u32)> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace();
    let (at, port) = fields.nth(1)?.split_once(':')?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let user = fields.nth(3)?.parse().ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(ip(at)?, port), user))
}

/// An address as words in hexadecimal, each in the byte order of the host.
fn ip(text: &str) -> Option<IpAddr> {
    let word = |begin: usize| {
        let digits = text.get(begin..begin + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (number, bytes) in bytes.chunks_exact_mut(4).enumerate() {
                bytes.copy_from_slice(&word(number * 8)?);
            }
            Some(IpAddr::from(bytes))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_listener_is_read_as_the_kernel_writes_it() {
        let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let line = |at: String, state| {
            format!(
                "   0: {at}:C383 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 65534        0 1 1 0 100 0 0 10 0"
            )
        };
        let loopback = word([127, 0, 0, 1]);
        let read = listener(&line(loopback.clone(), "0A"));
        assert_eq!(read, Some((at("127.0.0.1:50051"), 65534)));
        assert_eq!(listener(&line(loopback, "01")), None);
        let six = [0, 0, 0, 1].map(|last| word([0, 0, 0, last])).concat();
        let read = listener(&line(six, "0A"));
        assert_eq!(read, Some((at("[::1]:50051"), 65534)));
        assert_eq!(
            listener("  sl  local_address rem_address   st tx_queue"),
            None
        );
    }

    #[test]
    fn a_listener_is_in_the_way_at_the_same_address_or_at_all() {
        let ours = at("127.0.0.1:50051");
        for other in [
            "127.0.0.1:50051",
            "0.0.0.0:50051",
            "[::]:50051",
            "[::ffff:127.0.0.1]:50051",
        ] {
            assert!(in_the_way(at(other), ours), "{other}");
        }
        for other in ["192.0.2.1:50051", "127.0.0.1:50052"] {
            assert!(!in_the_way(at(other), ours), "{other}");
        }
        assert!(in_the_way(at("192.0.2.1:50051"), at("0.0.0.0:50051")));
    }

    #[test]
    fn beyond_loopback_there_is_no_door_without_tls() {
        for address in [
            "127.0.0.1:50051",
            "127.1.2.3:1",
            "[::1]:50051",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(TcpDoor::prepare(at(address), None).is_ok(), "{address}");
        }
        for address in [
            "0.0.0.0:50051",
            "192.0.2.1:50051",
            "[::]:50051",
            "[2001:db8::1]:1",
        ] {
            let error = TcpDoor::prepare(at(address), None).unwrap_err().to_string();
            assert!(error.contains("--tls-cert"), "{address}: {error}");
        }
    }
}
