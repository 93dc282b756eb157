//! As many bytes as TCP carries.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::Context as _;

use super::{
    Counter, Path, Window,
    cpus::{self, Cpus},
    rate,
};

/// Bytes per system call.
const CHUNK: usize = 256 << 10;
/// A connection that moves nothing for so long is broken.
const STALLED: Duration = Duration::from_secs(5);

/// Gigabits per second that arrive over all paths together, one connection each.
pub(crate) fn transfer(paths: &[Path], cpus: &Cpus, window: Window) -> anyhow::Result<f64> {
    let connections: Vec<(TcpStream, TcpStream, Counter)> = paths
        .iter()
        .map(|path| {
            let (sender, receiver) = connect(path).with_context(|| {
                format!(
                    "no TCP connection from {} to {}",
                    path.from.name(),
                    path.to_address
                )
            })?;
            Ok((sender, receiver, Counter::default()))
        })
        .collect::<anyhow::Result<_>>()?;
    let bytes = thread::scope(|scope| {
        let sending = cpus.sending.iter().cycle();
        let receiving = cpus.receiving.iter().cycle();
        let mut threads = Vec::new();
        for ((connection, to), from) in connections.iter().zip(receiving).zip(sending) {
            let (sender, receiver, received) = connection;
            threads.push(scope.spawn(move || {
                cpus::pin(*to)?;
                receive(receiver, received).context("a TCP receiver failed")
            }));
            threads.push(scope.spawn(move || {
                cpus::pin(*from)?;
                send(sender).context("a TCP sender failed")
            }));
        }
        let bytes = rate(window, || connections.iter().map(|(_, _, it)| it).collect());
        // Ends both: the sender's next write fails, the receiver reads the end.
        for (sender, _, _) in &connections {
            sender.shutdown(Shutdown::Both)?;
        }
        for thread in threads {
            match thread.join() {
                Ok(ended) => ended?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        bytes
    })?;
    Ok(bytes * 8.0 / 1e9)
}

fn connect(path: &Path) -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = path
        .to
        .run(|| TcpListener::bind(SocketAddrV4::new(path.to_address, 0)))??;
    let target = listener.local_addr()?;
    let sender = path
        .from
        .run(|| TcpStream::connect_timeout(&target, STALLED))??;
    let (receiver, peer) = listener.accept()?;
    anyhow::ensure!(
        peer.ip() != Ipv4Addr::UNSPECIFIED && peer.port() == sender.local_addr()?.port(),
        "another connection came first"
    );
    sender.set_write_timeout(Some(STALLED))?;
    receiver.set_read_timeout(Some(STALLED))?;
    Ok((sender, receiver))
}

fn send(mut stream: &TcpStream) -> io::Result<()> {
    let chunk = vec![0x51; CHUNK];
    loop {
        match stream.write_all(&chunk) {
            Ok(()) => {}
            // The measurement is over.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn receive(mut stream: &TcpStream, received: &Counter) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            length => received.add(length as u64),
        }
    }
}
