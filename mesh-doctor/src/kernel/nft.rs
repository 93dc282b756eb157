//! The packet filter's rules, by the program nft(8): their encoding is its own business.

use std::{
    fs, io,
    io::Read as _,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// One run takes 20 to 100 ms, and seconds with tens of thousands of rules.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the rules cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NftError {
    /// There is no such program.
    #[error("the program nft is not there (Debian's package nftables)")]
    Missing,
    /// Only root is told.
    #[error("needs root")]
    Refused,
    /// It did not end in time.
    #[error("nft does not end within {} s", PATIENCE.as_secs())]
    Silent,
    /// It failed otherwise, or printed something else.
    #[error("nft: {0}")]
    Failed(String),
}

/// All rules, as a document.
pub(crate) fn ruleset() -> Result<serde_json::Value, NftError> {
    let mut nft = Command::new("nft")
        .args(["-j", "list", "ruleset"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => NftError::Missing,
            _ => NftError::Failed(error.to_string()),
        })?;
    let printed = printed(&mut nft);
    // It has ended, or is not waited for any more. Of a process that has ended there is nothing to kill, and of one that was
    // killed nothing to learn.
    let _ = nft.kill();
    let _ = nft.wait();
    let (out, said) = printed?;
    if said.contains("not permitted") {
        return Err(NftError::Refused);
    }
    serde_json::from_slice(&out).map_err(|error| match said.trim() {
        "" => NftError::Failed(error.to_string()),
        said => NftError::Failed(said.to_owned()),
    })
}

/// Reads both outputs until they end.
fn printed(nft: &mut Child) -> Result<(Vec<u8>, String), NftError> {
    let (out, err) = (nft.stdout.take(), nft.stderr.take());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut printed = Vec::new();
        let mut said = String::new();
        // What it says in failure is short; it fits the pipe while the other one is read.
        let read = out.map_or(Ok(0), |mut it| it.read_to_end(&mut printed));
        let heard = err.map_or(Ok(0), |mut it| it.read_to_string(&mut said));
        // Nobody waits any more if the deadline has passed.
        let _ = sender.send(read.and(heard).map(|_| (printed, said)));
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(read) => read.map_err(|error| NftError::Failed(error.to_string())),
        Err(_) => Err(NftError::Silent),
    }
}

/// Tables of the older iptables, which nft does not show; root alone can read which there are.
pub(crate) fn legacy_tables() -> Vec<String> {
    let names = fs::read_to_string("/proc/self/net/ip_tables_names").unwrap_or_default();
    names.lines().map(str::to_owned).collect()
}
