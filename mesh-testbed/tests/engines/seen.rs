//! Whom a server takes its client for.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    time::Duration,
};

use mesh_testbed::{Entrance, wait_until};

use crate::mesh::SOON;

/// Where containers serve.
pub(crate) const PORT: u16 = 80;

/// How long one attempt may take: a packet that nobody answers is answered no sooner later.
const ATTEMPT: Duration = Duration::from_secs(1);

/// A TCP server in some namespace.
pub(crate) struct Server(TcpListener);

impl Server {
    pub(crate) fn on(place: &Entrance, port: u16) -> Self {
        let any = (Ipv4Addr::UNSPECIFIED, port);
        let listener = place.run(|| TcpListener::bind(any)).unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    /// The address that a client there has here when it connects to `door`, which is tried until it answers.
    pub(crate) async fn sees(&self, client: &Entrance, door: (Ipv4Addr, u16)) -> IpAddr {
        let door = SocketAddrV4::new(door.0, door.1);
        let what = format!("a connection from {} to {door}", client.name());
        wait_until(&what, SOON, async || {
            let stream = connect(client, door).map_err(|error| error.to_string())?;
            let own = stream.local_addr().map_err(|error| error.to_string())?;
            // Its last packet of three may be on the way still.
            wait_until("the connection", ATTEMPT, async || self.accept())
                .await
                .map_err(|error| format!("{own}: {error}"))
        })
        .await
        .unwrap()
    }

    fn accept(&self) -> Result<IpAddr, io::Error> {
        let (_, peer) = self.0.accept()?;
        Ok(peer.ip())
    }
}

/// One attempt.
pub(crate) fn connect(client: &Entrance, door: SocketAddrV4) -> io::Result<TcpStream> {
    let door = SocketAddr::V4(door);
    client
        .run(|| TcpStream::connect_timeout(&door, ATTEMPT))
        .map_err(io::Error::other)?
}
