//! What two sides say to each other, and whom the server takes the client for.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use mesh_testbed::{NetNs, wait_until};
use socket2::SockRef;

use crate::{pair::SOON, port::bind};

/// The time after which an attempt is given up, and made once more.
const PATIENCE: Duration = Duration::from_secs(2);

/// More than fits into one packet.
const ANSWER: usize = 20_000;

/// A server of TCP, which answers one client at a time.
pub(crate) struct Server(TcpListener);

impl Server {
    pub(crate) fn on(netns: &NetNs, port: u16) -> Self {
        let listener = bind(netns, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
        // Also of accept(2).
        SockRef::from(&listener)
            .set_read_timeout(Some(PATIENCE))
            .unwrap();
        Self(listener)
    }

    /// Has a client in `from` converse with it by `to`, and returns whom the server saw.
    pub(crate) fn try_converse(&self, from: &NetNs, to: SocketAddrV4) -> io::Result<SocketAddr> {
        let connect = || TcpStream::connect_timeout(&to.into(), PATIENCE);
        self.answer(from.run(connect).unwrap()?)
    }

    /// The same from an address of the client's own.
    pub(crate) fn try_converse_from(
        &self,
        from: &NetNs,
        source: SocketAddrV4,
        to: SocketAddrV4,
    ) -> io::Result<SocketAddr> {
        use socket2::{Domain, Socket, Type};
        let connect = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&source.into())?;
            socket.connect_timeout(&to.into(), PATIENCE)?;
            Ok::<TcpStream, io::Error>(socket.into())
        };
        self.answer(from.run(connect).unwrap()?)
    }

    fn answer(&self, mut client: TcpStream) -> io::Result<SocketAddr> {
        client.set_read_timeout(Some(PATIENCE))?;
        let (mut accepted, seen) = self.0.accept()?;
        accepted.set_read_timeout(Some(PATIENCE))?;
        client.write_all(b"request")?;
        let mut request = [0; 7];
        accepted.read_exact(&mut request)?;
        accepted.write_all(&[7; ANSWER])?;
        drop(accepted);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer)?;
        match answer.len() {
            ANSWER => Ok(seen),
            length => Err(io::Error::other(format!("{length} bytes came"))),
        }
    }

    /// Has a client converse with it as soon as it can, and returns whom the server saw.
    pub(crate) async fn sees(&self, from: &NetNs, to: Ipv4Addr, port: u16) -> Ipv4Addr {
        let what = format!("an answer of {to}:{port} to {}", from.name());
        let seen = wait_until(&what, SOON, || async {
            let to = SocketAddrV4::new(to, port);
            self.try_converse(from, to)
                .map_err(|error| error.to_string())
        })
        .await
        .unwrap();
        v4(seen)
    }
}

pub(crate) fn v4(address: SocketAddr) -> Ipv4Addr {
    match address {
        SocketAddr::V4(address) => *address.ip(),
        SocketAddr::V6(_) => panic!("{address} is none of IPv4"),
    }
}

/// A server of UDP, which says to each client whom it sees.
pub(crate) struct Echo(UdpSocket);

impl Echo {
    pub(crate) fn on(netns: &NetNs, port: u16) -> Self {
        let socket = bind(netns, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)));
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// Whom the server sees of a datagram that a client in `from` sends to `to`.
    pub(crate) fn hears(&self, client: &UdpSocket, to: SocketAddrV4) -> io::Result<SocketAddr> {
        client.send_to(b"who am I?", to)?;
        let (_, seen) = self.0.recv_from(&mut [0; 64])?;
        Ok(seen)
    }

    /// The same, with the server's answer, which comes from where the client has sent to.
    pub(crate) fn answers(&self, client: &UdpSocket, to: SocketAddrV4) -> io::Result<SocketAddr> {
        let seen = self.hears(client, to)?;
        self.0.send_to(b"you", seen)?;
        let (_, from) = client.recv_from(&mut [0; 64])?;
        match from == SocketAddr::V4(to) {
            true => Ok(seen),
            false => Err(io::Error::other(format!("{from} answers for {to}"))),
        }
    }

    /// The same with a request and an answer of these lengths, of which all arrives.
    fn answers_in_lengths(
        &self,
        client: &UdpSocket,
        to: SocketAddrV4,
        (request, answer): (usize, usize),
    ) -> io::Result<SocketAddr> {
        let whole = |length, wanted| match length == wanted {
            true => Ok(()),
            false => Err(io::Error::other(format!("{length} bytes of {wanted} came"))),
        };
        let mut buffer = vec![0; 65_536];
        client.send_to(&vec![b'?'; request], to)?;
        let (length, seen) = self.0.recv_from(&mut buffer)?;
        whole(length, request)?;
        self.0.send_to(&vec![b'!'; answer], seen)?;
        let (length, from) = client.recv_from(&mut buffer)?;
        whole(length, answer)?;
        match from == SocketAddr::V4(to) {
            true => Ok(seen),
            false => Err(io::Error::other(format!("{from} answers for {to}"))),
        }
    }

    /// The same as soon as it works. What narrow ways have cut off is sent once more.
    pub(crate) async fn sees_in_lengths(
        &self,
        client: &UdpSocket,
        to: SocketAddrV4,
        lengths: (usize, usize),
    ) -> Ipv4Addr {
        let what = format!("an answer of {to} over UDP in {lengths:?} bytes");
        let seen = wait_until(&what, SOON, || async {
            let answered = self.answers_in_lengths(client, to, lengths);
            answered.map_err(|error| error.to_string())
        })
        .await
        .unwrap();
        v4(seen)
    }

    /// The same as soon as it works.
    pub(crate) async fn sees(&self, client: &UdpSocket, to: SocketAddrV4) -> Ipv4Addr {
        let what = format!("an answer of {to} over UDP");
        let seen = wait_until(&what, SOON, || async {
            self.answers(client, to).map_err(|error| error.to_string())
        })
        .await
        .unwrap();
        v4(seen)
    }
}

/// A client of UDP.
pub(crate) fn client(netns: &NetNs) -> UdpSocket {
    let bound = netns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
    let socket = bound.unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}
