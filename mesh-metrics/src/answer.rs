//! Which answer a request gets.

use http::{
    HeaderMap, Method, Request, StatusCode, Uri,
    header::{AUTHORIZATION, HOST},
};

use crate::door::Door;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// `/metrics`
    Metrics,
    /// `/livez`: whether the process serves.
    Live,
    /// `/readyz`: whether it can do its work.
    Ready,
}

/// Why a request gets nothing of that, with words for whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) StatusCode, pub(crate) &'static str);

impl Wish {
    /// That of a request, as far as its method and path tell.
    pub(crate) fn of(method: &Method, path: &str) -> Result<Self, Refused> {
        let wish = match path {
            "/metrics" => Self::Metrics,
            "/livez" => Self::Live,
            "/readyz" => Self::Ready,
            _ => {
                return Err(Refused(
                    StatusCode::NOT_FOUND,
                    "there are /metrics, /livez and /readyz",
                ));
            }
        };
        if method != Method::GET && method != Method::HEAD {
            return Err(Refused(
                StatusCode::METHOD_NOT_ALLOWED,
                "this is for GET and HEAD",
            ));
        }
        Ok(wish)
    }
}

/// Judges whether who asks may.
pub(crate) async fn judge<B>(door: &Door, request: &Request<B>) -> Result<Wish, Refused> {
    if door.looks_at_names() && !is_for_us(request.uri(), request.headers()) {
        return Err(Refused(
            StatusCode::MISDIRECTED_REQUEST,
            "the request is for a host of another name: use an address, or localhost",
        ));
    }
    if let Some(token) = door.token.clone() {
        let shown = request.headers().get(AUTHORIZATION);
        let shown = shown.map(|value| value.as_bytes().to_vec());
        // A file system may not answer, for which the request has a deadline.
        let look = move || token.is_shown(shown.as_deref());
        match tokio::task::spawn_blocking(look).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                return Err(Refused(
                    StatusCode::UNAUTHORIZED,
                    "the token of --metrics-token-file has to be shown: Authorization: Bearer TOKEN",
                ));
            }
            Ok(Err(error)) => {
                // With that nobody gets in: each attempt is worth a line.
                tracing::warn!(name: "metrics-cannot-read-anybody", %error, "metrics cannot be read by anybody");
                return Err(TOKEN_UNREADABLE);
            }
            Err(_) => return Err(TOKEN_UNREADABLE),
        }
    }
    Wish::of(request.method(), request.uri().path())
}

const TOKEN_UNREADABLE: Refused = Refused(
    StatusCode::INTERNAL_SERVER_ERROR,
    "the file of the token is of no use; the daemon's log says why",
);

/// Whether a request is for this host by an address of it, or as `localhost`, and not by a name that a page has made to
/// lead here (DNS rebinding): the browser writes that into `Host`.
fn is_for_us(uri: &Uri, headers: &HeaderMap) -> bool {
    let hosts = headers.get_all(HOST).iter();
    let hosts = hosts.map(|value| value.to_str().unwrap_or("\u{0}"));
    // What the request line says takes its place (RFC 9112 section 3.2.2); neither may be wrong.
    let mut hosts = hosts.chain(uri.authority().map(|authority| authority.as_str()));
    hosts.all(is_ours)
}

fn is_ours(host: &str) -> bool {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    if host.parse::<SocketAddr>().is_ok() {
        return true;
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    match bare {
        Some(address) => matches!(address.parse(), Ok(IpAddr::V6(_))),
        None => name.parse::<Ipv4Addr>().is_ok() || name.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_localhost() {
        let is_taken = |uri: &str, hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, host.parse().unwrap());
            }
            is_for_us(&uri.parse().unwrap(), &headers)
        };
        for host in [
            "127.0.0.1:9471",
            "127.0.0.1",
            "192.0.2.1:1",
            "[::1]:9471",
            "[::1]",
            "localhost",
            "LocalHost:9471",
        ] {
            assert!(is_taken("/metrics", &[host]), "{host}");
        }
        for host in [
            "attacker.example",
            "attacker.example:9471",
            "localhost.attacker.example:9471",
            "127.0.0.1.attacker.example",
            "[attacker.example]",
            "x@localhost",
            "",
            ":9471",
        ] {
            assert!(!is_taken("/metrics", &[host]), "{host}");
        }
        // A program that names no host is no browser.
        assert!(is_taken("/metrics", &[]));
        assert!(!is_taken("/metrics", &["localhost", "attacker.example"]));
        let in_line = "http://attacker.example/metrics";
        assert!(!is_taken(in_line, &["localhost"]));
    }

    #[test]
    fn three_paths_are_served_to_get_and_head() {
        let of = |method: Method, path| Wish::of(&method, path).map_err(|refused| refused.0);
        assert_eq!(of(Method::GET, "/metrics"), Ok(Wish::Metrics));
        assert_eq!(of(Method::HEAD, "/livez"), Ok(Wish::Live));
        assert_eq!(of(Method::GET, "/readyz"), Ok(Wish::Ready));
        let wrong_method = Err(StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(of(Method::POST, "/metrics"), wrong_method);
        for path in ["/", "/metrics/", "//metrics", "/debug/pprof"] {
            assert_eq!(of(Method::GET, path), Err(StatusCode::NOT_FOUND), "{path}");
        }
    }
}
