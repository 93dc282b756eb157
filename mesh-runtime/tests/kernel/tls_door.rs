//! The TCP door with TLS: beyond loopback there is none without, and nobody gets through it without a certificate of the
//! CA for use as a client.

use std::{
    fs,
    io::{self, Write as _},
    process::Child,
    sync::Arc,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use mesh_credentials::tls::client_of_own_authority;
use mesh_proto::mesh::{
    AllocateAddressRequest, GetStatusRequest, GetStatusResponse,
    mesh_dataplane_client::MeshDataplaneClient,
};
use time::OffsetDateTime;
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use crate::{
    authority::{Authority, CLIENT, SERVER, Signed, write},
    host::{ADDRESS, DEADLINE, Host, run_to_end},
};

pub(crate) const PORT: u16 = 50051;

/// A runtime with a TLS door.
pub(crate) struct Door<'a> {
    host: &'a Host,
    child: Child,
}

impl Drop for Door<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.host.dir.path().join("log"));
            eprintln!("the daemon's log:\n{}", log.unwrap_or_default());
        }
    }
}

fn options(host: &Host, address: &str) -> Vec<String> {
    let file = |name: &str| host.dir.path().join(name).to_str().unwrap().to_owned();
    let options = [
        ("--grpc-addr", format!("{address}:{PORT}")),
        ("--tls-cert", file("cert")),
        ("--tls-key", file("key")),
        ("--tls-ca", file("ca")),
    ];
    let words = |(option, value): (&str, String)| [option.to_owned(), value];
    options.into_iter().flat_map(words).collect()
}

pub(crate) async fn start<'a>(host: &'a Host, authority: &Authority, address: &str) -> Door<'a> {
    authority.equip(host.dir.path());
    let options = options(host, address);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let mut command = host.daemon_command("off", &options);
    let log = fs::File::create(host.dir.path().join("log")).unwrap();
    let child = command.stderr(log).spawn().unwrap();
    let door = Door { host, child };
    host.eventually("the door", |host| {
        host.netns
            .run(|| std::net::TcpStream::connect((address, PORT)).is_ok())
            .unwrap()
    })
    .await;
    door
}

impl Door<'_> {
    pub(crate) fn plain(&self, address: &str) -> io::Result<std::net::TcpStream> {
        let connect = || std::net::TcpStream::connect((address, PORT));
        self.host.netns.run(connect).unwrap()
    }

    /// Asks for the status, as a caller that trusts `roots` and shows `identity`.
    async fn status(
        &self,
        address: &str,
        roots: &str,
        identity: Option<&Signed>,
    ) -> Result<GetStatusResponse, String> {
        let channel = self.channel(address, roots, identity).await?;
        let mut client = MeshDataplaneClient::new(channel);
        let status = client.get_status(GetStatusRequest {}).await;
        let status = status.map_err(|error| format!("{error:?}"))?;
        Ok(status.into_inner())
    }

    pub(crate) async fn channel(
        &self,
        address: &str,
        roots: &str,
        identity: Option<&Signed>,
    ) -> Result<Channel, String> {
        let identity = identity.map(|it| (it.certificate.as_str(), it.key.as_str()));
        let mut config = client_of_own_authority(roots, identity).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = self.plain(address).map_err(|error| error.to_string())?;
        stream.set_nonblocking(true).unwrap();
        let stream = TcpStream::from_std(stream).unwrap();
        let name = ServerName::try_from(address.to_owned()).unwrap();
        let secured = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let mut secured = Some(secured.await.map_err(|error| error.to_string())?);
        let connect = tower::service_fn(move |_: tonic::codegen::http::Uri| {
            let secured = secured.take().map(TokioIo::new);
            async { secured.ok_or_else(|| io::Error::other("it ended")) }
        });
        Endpoint::from_static("http://runtime")
            .timeout(DEADLINE)
            .connect_with_connector(connect)
            .await
            .map_err(|error| format!("{error:?}"))
    }

    /// How many callers' connections it has open.
    fn callers(&self) -> usize {
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", self.child.id())).unwrap();
        let of_door = table.lines().filter(|line| {
            // Local and remote address in hexadecimal, state (0A listens), … and the inode, which one that is not accepted
            // or was closed has not.
            let columns: Vec<_> = line.split_whitespace().collect();
            columns
                .get(1)
                .is_some_and(|at| at.ends_with(&format!(":{PORT:04X}")))
                && columns.get(3) != Some(&"0A")
                && columns.get(9) != Some(&"0")
        });
        of_door.count()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.host.dir.path().join("log")).unwrap()
    }
}

#[tokio::test]
async fn beyond_loopback_the_runtime_does_not_start_without_tls_and_changes_nothing() {
    let host = Host::new("tls-without").await;
    let before = host.state();
    for address in ["0.0.0.0:50051", "192.0.2.1:50051", "[::]:50051"] {
        let (status, text) = host.run_daemon(&["--grpc-addr", address]).await;
        assert!(!status.success(), "{address}");
        assert!(
            text.contains("beyond loopback") && text.contains("--tls-cert"),
            "{text}"
        );
    }
    assert_eq!(host.state(), before);
}

#[tokio::test]
async fn whoever_shows_a_certificate_of_the_ca_may_call_what_an_agent_needs() {
    let host = Host::new("tls-may").await;
    let authority = Authority::new();
    let door = start(&host, &authority, "0.0.0.0").await;
    let (roots, own) = (authority.certificate.as_str(), authority.sign(CLIENT));
    for address in [ADDRESS, "127.0.0.1"] {
        let status = door.status(address, roots, Some(&own)).await.unwrap();
        assert_eq!(status.grpc_address, "0.0.0.0:50051 (TLS)");
    }
    let channel = door.channel(ADDRESS, roots, Some(&own)).await.unwrap();
    let lease = AllocateAddressRequest::default();
    let mut client = MeshDataplaneClient::new(channel);
    let refused = client.allocate_address(lease).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    // The caller as well would not speak to just anybody.
    let other = Authority::new().certificate;
    let error = door.status(ADDRESS, &other, Some(&own)).await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn nobody_gets_through_without_a_certificate_of_the_ca_that_holds_and_is_a_clients() {
    let host = Host::new("tls-may-not").await;
    let authority = Authority::new();
    // On loopback, too, where it is asked for.
    let door = start(&host, &authority, "127.0.0.1").await;
    let (roots, now) = (&authority.certificate, OffsetDateTime::now_utc());
    let hour = time::Duration::HOUR;
    let ago = |hours| now - hour * hours;
    let another = Authority::new();
    // A certificate of the CA with the key of another.
    let mut mixed = authority.sign(CLIENT);
    mixed.key = authority.sign(CLIENT).key;
    let strangers = [
        ("none", None),
        ("of another CA", Some(another.sign(CLIENT))),
        (
            "expired",
            Some(authority.sign_for(CLIENT, [ago(2), ago(1)])),
        ),
        (
            "not yet valid",
            Some(authority.sign_for(CLIENT, [ago(-1), ago(-2)])),
        ),
        ("a server's", Some(authority.sign(SERVER))),
    ];
    for (what, identity) in &strangers {
        let called = door.status("127.0.0.1", roots, identity.as_ref()).await;
        assert!(called.is_err(), "{what}: {called:?}");
    }
    let mixed = (mixed.certificate.as_str(), mixed.key.as_str());
    assert!(client_of_own_authority(roots, Some(mixed)).is_err());
    // What is no TLS at all, and what begins like it.
    let garbage: [&[u8]; 5] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0; 70_000],
        &[0x16, 3, 1, 0xff, 0xff, 1, 0xff, 0xff, 0xff],
        &[0x16, 3, 3, 0, 4, 1, 0xff, 0xff, 0xff],
    ];
    for bytes in garbage {
        let mut stream = door.plain("127.0.0.1").unwrap();
        // It may be closed before it has all of it.
        let _ = stream.write_all(bytes);
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut answer = Vec::new();
        let _ = io::Read::read_to_end(&mut stream, &mut answer);
        // Nothing but an alert of TLS.
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
    }
    let own = authority.sign(CLIENT);
    door.status("127.0.0.1", roots, Some(&own)).await.unwrap();
    // Said once, with a reason; counted from then on.
    assert_eq!(door.log().matches("has shown no certificate").count(), 1);
}

#[tokio::test]
async fn handshakes_that_stop_half_way_are_bounded_end_and_keep_nobody_out() {
    let host = Host::new("tls-half").await;
    let authority = Authority::new();
    let door = start(&host, &authority, ADDRESS).await;
    let own = authority.sign(CLIENT);
    door.status(ADDRESS, &authority.certificate, Some(&own))
        .await
        .unwrap();
    let mut held = Vec::new();
    let mut most = 0;
    for round in 0..10 {
        for number in 0..200 {
            let mut stream = door.plain(ADDRESS).unwrap();
            // Nothing, or half of the first message.
            let begun: &[u8] = match number % 2 {
                0 => &[],
                _ => &[0x16, 3, 1, 2, 0, 1, 0],
            };
            let _ = stream.write_all(begun);
            held.push(stream);
        }
        let status = door.status(ADDRESS, &authority.certificate, Some(&own));
        let status = status.await;
        assert!(status.is_ok(), "round {round}: {status:?}");
        most = most.max(door.callers());
    }
    // 128 that shake hands, and those that have made room for others and are not taken down yet: the one that accepts pauses
    // after 128 (a task's budget in Tokio). And a few that have and have gone.
    assert!((100..280).contains(&most), "{most}");
    // They end by themselves.
    let until = Instant::now() + DEADLINE;
    while door.callers() > 0 {
        assert!(Instant::now() < until, "{} are left", door.callers());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(held);
}

#[tokio::test]
async fn files_that_have_changed_are_read_without_a_restart_and_those_of_no_use_are_not_taken() {
    let host = Host::new("tls-renewed").await;
    let (first, second) = (Authority::new(), Authority::new());
    let door = start(&host, &first, ADDRESS).await;
    let (of_first, of_second) = (first.sign(CLIENT), second.sign(CLIENT));
    let by_first = async || {
        door.status(ADDRESS, &first.certificate, Some(&of_first))
            .await
    };
    let by_second = async || {
        door.status(ADDRESS, &second.certificate, Some(&of_second))
            .await
    };
    by_first().await.unwrap();
    by_second().await.unwrap_err();
    write(&host.dir.path().join("key"), "not a key", 0o600);
    host.eventually_async("a word about the key", async || {
        by_first().await.unwrap();
        door.log().contains("of no use")
    })
    .await;
    second.equip(host.dir.path());
    host.eventually_async("the second", async || by_second().await.is_ok())
        .await;
    by_first().await.unwrap_err();
}

#[tokio::test]
async fn a_connection_ends_when_its_certificate_would_not_be_taken_any_more() {
    let host = Host::new("tls-ends").await;
    let (first, second) = (Authority::new(), Authority::new());
    let door = start(&host, &first, ADDRESS).await;
    let roots = first.certificate.as_str();
    let ends = async |what: &str, client: &mut MeshDataplaneClient<Channel>| {
        let until = Instant::now() + DEADLINE;
        while client.get_status(GetStatusRequest {}).await.is_ok() {
            assert!(Instant::now() < until, "{what}: it is still served");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let now = OffsetDateTime::now_utc();
    let brief = [now - time::Duration::HOUR, now + time::Duration::seconds(8)];
    let brief = first.sign_for(CLIENT, brief);
    let stays = first.sign(CLIENT);
    let connected = async |identity: &Signed| {
        let channel = door.channel(ADDRESS, roots, Some(identity)).await.unwrap();
        let mut client = MeshDataplaneClient::new(channel);
        client.get_status(GetStatusRequest {}).await.unwrap();
        client
    };
    let (mut brief, mut stays) = (connected(&brief).await, connected(&stays).await);
    ends("one that expires", &mut brief).await;
    stays.get_status(GetStatusRequest {}).await.unwrap();
    // Nobody connects meanwhile, so that nobody but the runtime itself looks at the file.
    let both = format!("{}{}", first.certificate, second.certificate);
    write(&host.dir.path().join("ca"), &both, 0o644);
    host.eventually("the second CA", |_| door.log().contains("read again"))
        .await;
    stays.get_status(GetStatusRequest {}).await.unwrap();
    write(&host.dir.path().join("ca"), &second.certificate, 0o644);
    ends("one of a CA that is gone", &mut stays).await;
}

#[tokio::test]
async fn files_of_no_use_keep_the_runtime_from_starting_by_name() {
    let host = Host::new("tls-files").await;
    let authority = Authority::new();
    let at = |name: &str| host.dir.path().join(name);
    let text = authority.sign(SERVER).key;
    for (name, text, mode, expected) in [
        ("key", Some(text.as_str()), 0o600, "--tls-key"),
        ("key", Some(text.as_str()), 0o640, "chmod 600"),
        ("key", Some("x"), 0o600, "--tls-key"),
        ("key", None, 0, "--tls-key"),
        ("cert", Some("x"), 0o644, "--tls-cert"),
        ("cert", None, 0, "--tls-cert"),
        ("ca", Some(""), 0o644, "--tls-ca"),
        ("ca", None, 0, "--tls-ca"),
    ] {
        authority.equip(host.dir.path());
        match text {
            Some(text) => write(&at(name), text, mode),
            None => fs::remove_file(at(name)).unwrap(),
        }
        let options = options(&host, "127.0.0.1");
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let (status, said) = run_to_end(host.daemon_command("off", &options)).await;
        assert!(!status.success(), "{name}");
        let path = at(name);
        let path = path.to_str().unwrap();
        assert!(
            said.contains(expected) && said.contains(path),
            "{name}: {said}"
        );
    }
}
