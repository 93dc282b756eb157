//! A page of metrics, asked for inside a namespace.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Stdio,
    time::Duration,
};

use mesh_testbed::NetNs;

/// Where each daemon serves metrics on its host's loopback.
pub(crate) const RUNTIME: u16 = 9471;
pub(crate) const AGENT: u16 = 9472;
pub(crate) const CONTROL: u16 = 9473;

/// Asks for a path on the namespace's loopback: the status, and the body.
pub(crate) fn get(namespace: &NetNs, port: u16, path: &str) -> Result<(u16, String), String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    get_at(namespace, address, path)
}

/// Asks for a path somewhere.
pub(crate) fn get_at(
    namespace: &NetNs,
    address: SocketAddr,
    path: &str,
) -> Result<(u16, String), String> {
    let asked = namespace.run(|| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    });
    let answer = asked.unwrap().map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.split_whitespace().nth(1).ok_or("no status")?;
    Ok((status.parse().map_err(|_| "no number")?, body.to_owned()))
}

/// The page of a daemon.
pub(crate) fn page(namespace: &NetNs, port: u16) -> String {
    let (status, page) = get(namespace, port, "/metrics").unwrap();
    assert_eq!(status, 200, "{page}");
    page
}

/// The value of a series, as the page has it.
pub(crate) fn value(page: &str, series: &str) -> Option<f64> {
    let mut lines = page.lines();
    let line = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

/// Runs a program of Debian's package prometheus; what it prints, if it succeeds.
pub(crate) fn told(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = std::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; Debian's package prometheus has it"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // It may end without reading all of it.
    let _ = writer.join().unwrap();
    let said = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
    match output.status.success() {
        true => Ok(said.concat()),
        false => Err(format!("{} {}", output.status, said.concat())),
    }
}
