//! What each option's value may be. Errors say the rule and show what to write.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use reqwest::Url;
use tokio_rustls::rustls::pki_types::ServerName;
use tracing::Level;
use tracing_subscriber::filter::Targets;

use crate::{socket::AgentSocket, underlay::parse_underlay_address};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A base URL: http or https, a host, and perhaps a path.
pub(super) fn control_plane_url(text: &str) -> Result<Url, String> {
    let url: Url = text
        .parse()
        .map_err(|error| format!("{error}; write a URL such as https://192.0.2.10:8080"))?;
    if !matches!(url.scheme(), "http" | "https") {
        let rule = "neither an http nor an https URL; write one such as https://192.0.2.10:8080";
        return Err(rule.to_owned());
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("the URL names no host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("user names and passwords in the URL are not supported".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a base URL has no query and no fragment".to_owned());
    }
    Ok(url)
}

/// Where the runtime serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeUrl {
    /// "host:port".
    Http(String),
    /// The same, and by whose name its certificate is checked.
    Https {
        /// "host:port".
        authority: String,
        /// The host.
        name: ServerName<'static>,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Where the runtime serves: a base URL, or the path of a Unix socket.
pub(super) fn runtime_url(text: &str) -> Result<RuntimeUrl, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        // `unix:/path` and `unix:///path` are both usual.
        let path = path.strip_prefix("//").unwrap_or(path);
        return match path.starts_with('/') {
            true => Ok(RuntimeUrl::Unix(path.into())),
            false => Err("a Unix socket is written unix:/PATH, with an absolute path".to_owned()),
        };
    }
    let Some(rest) = text.strip_prefix("https://") else {
        return control_plane_url(text).map(|url| RuntimeUrl::Http(authority(&url)));
    };
    // The same rules, and another port if none is given.
    control_plane_url(&format!("http://{rest}"))?;
    let url: Url = text.parse().map_err(|error| format!("{error}"))?;
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned());
    Ok(RuntimeUrl::Https {
        authority: authority(&url),
        name: name.map_err(|_| format!("{host} is no name that a certificate could have"))?,
    })
}

/// Where the agent itself serves.
pub(super) fn agent_socket(text: &str) -> Result<AgentSocket, String> {
    match text {
        "" => Err("write the path of a socket, or off".to_owned()),
        "off" => Ok(AgentSocket::Off),
        path => Ok(AgentSocket::At(path.into())),
    }
}

/// "host:port" of a URL that [`control_plane_url`] accepted.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(80);
    format!("{host}:{port}")
}

pub(super) fn underlay_address(text: &str) -> Result<Ipv4Addr, String> {
    parse_underlay_address(text).map_err(|error| error.to_string())
}

pub(super) fn hostname(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 253 || text.chars().any(char::is_control) {
        return Err("a host name has 1 to 253 bytes and no control characters".to_owned());
    }
    Ok(text.to_owned())
}

/// The rule of the kernel's dev_valid_name (net/core/dev.c).
pub(super) fn interface_name(text: &str) -> Result<String, String> {
    let valid = (1..=15).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    if valid {
        Ok(text.to_owned())
    } else {
        Err("an interface name has 1 to 15 bytes without '/', ':' and white space".to_owned())
    }
}

/// A time between 10 ms and one day.
pub(super) fn period(text: &str) -> Result<Duration, String> {
    match time(text)? {
        Some(time) if (Duration::from_millis(10)..=DAY).contains(&time) => Ok(time),
        _ => Err("a time is at least 10ms and at most 24h".to_owned()),
    }
}

/// The time, unless it is too long for a number.
fn time(text: &str) -> Result<Option<Duration>, String> {
    const NOT_A_TIME: &str = "not a time; write one such as 10s, 500ms or 1m";
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let count: u64 = digits.parse().map_err(|_| NOT_A_TIME)?;
    let milliseconds = match &text[digits.len()..] {
        "ms" => Some(count),
        "" | "s" => count.checked_mul(1_000),
        "m" => count.checked_mul(60_000),
        "h" => count.checked_mul(3_600_000),
        _ => return Err(NOT_A_TIME.to_owned()),
    };
    Ok(milliseconds.map(Duration::from_millis))
}

/// The runtime waits at most 10 s for a sign of life.
pub(super) fn probe_timeout(text: &str) -> Result<Duration, String> {
    let timeout = period(text)?;
    if timeout > Duration::from_secs(10) {
        return Err("a probe waits at most 10s".to_owned());
    }
    Ok(timeout)
}

/// A bare level is meant for the agent: the HTTP and gRPC libraries below it stay at warn,
/// or debug would drown it.
pub(super) fn log_targets(text: &str) -> Result<Targets, String> {
    const RULE: &str = "write error, warn, info, debug or trace, or targets such as \"info,mesh_agent::sync=debug\"";
    if let Ok(level) = text.parse::<Level>() {
        return Ok(Targets::new()
            .with_default(level.min(Level::WARN))
            .with_target("mesh_agent", level)
            .with_target("quilt_mesh_agent", level));
    }
    match text.parse::<Targets>() {
        Ok(targets) if text.contains('=') || text.contains(',') => Ok(targets),
        Ok(_) => Err(RULE.to_owned()),
        Err(error) => Err(format!("{error}; {RULE}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(period("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(period("7"), Ok(Duration::from_secs(7)));
        assert_eq!(period("7s"), Ok(Duration::from_secs(7)));
        assert_eq!(period("2m"), Ok(Duration::from_secs(120)));
        assert!(period("0s").is_err() && period("25h").is_err());
    }
}
