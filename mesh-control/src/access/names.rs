//! Whether a browser asks on behalf of another site: by the names that a request is for, and where it comes from.
//!
//! A page of any site may have the browser of whoever looks at it send requests to an address behind a firewall, and,
//! if the name of the site is made to lead there (DNS rebinding), read the answers. Such a request has that name in
//! `Host`, or another site in `Origin`; the browser, not the page, writes both.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{HOST, ORIGIN, REFERER, USER_AGENT};
use axum::http::{HeaderMap, Uri};
use mesh_rest::problem_kind::Kind;

use super::Refused;

/// The names that this control plane is called by, beside addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl Default for Names {
    fn default() -> Self {
        Self::new("", &[])
    }
}

impl Names {
    /// `localhost`, the name of this host, and those that the operator names.
    pub fn new(host: &str, others: &[String]) -> Self {
        let names = ["localhost", host].into_iter().map(str::to_owned);
        let names = names.chain(others.iter().cloned());
        let names = names.map(|name| plain(&name).to_owned());
        Self(names.filter(|name| !name.is_empty()).collect())
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name)
    }
}

/// In lower case and without the point of the root.
fn plain(name: &str) -> String {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.to_ascii_lowercase()
}

/// How closely the name in `Host` is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Any name that is not known is refused.
    AtAll,
    /// To browsers alone: agents of clusters from before have names that nobody has told.
    AtBrowsers,
    /// Any name is taken: by TLS, what called the control plane has checked who it is.
    AtNone,
}

impl Names {
    /// Judges where a request is for and comes from.
    ///
    /// # Errors
    ///
    /// [`Kind::WrongHost`] and [`Kind::WrongOrigin`].
    pub fn judge(&self, uri: &Uri, headers: &HeaderMap, look: Look) -> Result<(), Refused> {
        let hosts = || {
            let hosts = headers.get_all(HOST).iter();
            let hosts = hosts.map(|value| value.to_str().unwrap_or("\u{0}"));
            // What the request line says takes its place (RFC 9112 section 3.2.2); neither may be wrong.
            hosts.chain(uri.authority().map(|authority| authority.as_str()))
        };
        let is_looked_at = match look {
            Look::AtAll => true,
            Look::AtBrowsers => is_of_a_browser(headers),
            Look::AtNone => false,
        };
        if is_looked_at && let Some(other) = hosts().find(|host| !self.is_ours(host)) {
            let detail = format!(
                "the request is for the host {:?}, which this control plane does not know as a name of its own; use an \
                 address or the name of this host, or start it with --allowed-host",
                short(other)
            );
            return Err(Refused::new(Kind::WrongHost, detail));
        }
        for origin in headers.get_all(ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            let mut hosts = hosts().peekable();
            let is_same = hosts.peek().is_some() && hosts.all(|host| is_same_site(origin, host));
            if !is_same {
                let detail = format!(
                    "a page of {:?} must not ask this control plane in the name of who looks at it",
                    short(origin)
                );
                return Err(Refused::new(Kind::WrongOrigin, detail));
            }
        }
        Ok(())
    }

    fn is_ours(&self, host: &str) -> bool {
        if host.parse::<SocketAddr>().is_ok() || host.parse::<std::net::Ipv4Addr>().is_ok() {
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
            None => name.parse::<std::net::Ipv4Addr>().is_ok() || self.has(&plain(name)),
        }
    }
}

/// Whether a browser has written some of the headers: those that programs do not send.
fn is_of_a_browser(headers: &HeaderMap) -> bool {
    let is_mozilla = headers
        .get(USER_AGENT)
        .is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"));
    is_mozilla
        || [ORIGIN, REFERER]
            .iter()
            .any(|name| headers.contains_key(name))
        || headers
            .keys()
            .any(|name| name.as_str().starts_with("sec-fetch-"))
}

/// Whether what stands in `Origin` (RFC 6454 section 6.1) is the site that `Host` names.
fn is_same_site(origin: &str, host: &str) -> bool {
    let (site, port) = match origin.split_once("://") {
        Some(("http", site)) => (site, ":80"),
        Some(("https", site)) => (site, ":443"),
        _ => return false,
    };
    let [site, host] = [site, host].map(|text| text.strip_suffix(port).unwrap_or(text));
    !site.is_empty() && site.eq_ignore_ascii_case(host)
}

/// So much of what somebody sent as can be shown.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn judge(look: Look, uri: &str, headers: &[(&str, &str)]) -> Result<(), Kind> {
        let names = Names::new("Node7", &["control.example.".to_owned()]);
        let headers = headers.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        });
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(name, value);
        }
        let judged = names.judge(&uri.parse().unwrap(), &all, look);
        judged.map_err(|refused| refused.kind)
    }

    #[test]
    fn a_host_is_an_address_or_a_name_that_is_known() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "192.0.2.1:1",
            "[::1]",
            "[::1]:8080",
            "[2001:db8::1]:8080",
            "localhost",
            "LocalHost:8080",
            "localhost.",
            "node7",
            "NODE7:8080",
            "control.example",
            "control.example.:8080",
        ] {
            assert_eq!(judge(Look::AtAll, "/", &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "attacker.example",
            "attacker.example:8080",
            "",
            ":8080",
            "localhost.attacker.example",
            "localhost:80:80",
            "127.0.0.1.attacker.example",
            "[::1]attacker.example",
            "[attacker.example]",
            "[127.0.0.1]",
            "localhost@x",
            "x@localhost",
            "::1",
            "localhost..",
            "localhost localhost",
        ] {
            let expected = Err(Kind::WrongHost);
            assert_eq!(
                judge(Look::AtAll, "/", &[("host", host)]),
                expected,
                "{host}"
            );
        }
        // An old client that names no host is no browser.
        assert_eq!(judge(Look::AtAll, "/", &[]), Ok(()));
        let two = [("host", "localhost"), ("host", "attacker.example")];
        assert_eq!(judge(Look::AtAll, "/", &two), Err(Kind::WrongHost));
        let in_line = "http://attacker.example/api/nodes";
        assert_eq!(
            judge(Look::AtAll, in_line, &[("host", "localhost")]),
            Err(Kind::WrongHost)
        );
        assert_eq!(
            judge(
                Look::AtAll,
                "http://localhost/",
                &[("host", "attacker.example")]
            ),
            Err(Kind::WrongHost)
        );
    }

    #[test]
    fn where_agents_use_names_that_nobody_has_told_browsers_alone_are_looked_at() {
        let host = ("host", "mesh.example:8080");
        for look in [Look::AtBrowsers, Look::AtNone] {
            assert_eq!(judge(look, "/", &[host, ("user-agent", "curl/8")]), Ok(()));
        }
        for of_a_browser in [
            ("referer", "http://mesh.example:8080/"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "navigate"),
            ("origin", "http://mesh.example:8080"),
            ("user-agent", "Mozilla/5.0 (X11)"),
        ] {
            let headers = [host, of_a_browser];
            assert_eq!(
                judge(Look::AtBrowsers, "/", &headers),
                Err(Kind::WrongHost),
                "{of_a_browser:?}"
            );
            assert_eq!(judge(Look::AtNone, "/", &headers), Ok(()));
            let headers = [("host", "control.example"), of_a_browser];
            let judged = judge(Look::AtBrowsers, "/", &headers);
            assert_ne!(judged, Err(Kind::WrongHost), "{of_a_browser:?}");
        }
    }

    #[test]
    fn a_page_asks_its_own_site() {
        for (origin, host, same) in [
            ("http://localhost:8080", "localhost:8080", true),
            ("http://localhost", "localhost:80", true),
            ("https://localhost:443", "localhost", true),
            ("http://LOCALHOST:8080", "localhost:8080", true),
            ("http://localhost:3000", "localhost:8080", false),
            ("http://attacker.example", "localhost:8080", false),
            (
                "http://localhost:8080.attacker.example",
                "localhost:8080",
                false,
            ),
            ("null", "localhost", false),
            ("", "localhost", false),
            ("http://", "localhost", false),
            ("file://localhost", "localhost", false),
        ] {
            for look in [Look::AtAll, Look::AtNone] {
                let judged = judge(look, "/", &[("host", host), ("origin", origin)]);
                let expected = if same { Ok(()) } else { Err(Kind::WrongOrigin) };
                assert_eq!(judged, expected, "{origin} {host}");
            }
        }
        assert_eq!(
            judge(Look::AtNone, "/", &[("origin", "http://x")]),
            Err(Kind::WrongOrigin)
        );
    }
}
