//! What each call needs: the written list. A call that is not in it is let in for nobody but the admin socket.

use std::borrow::Cow;

use axum::extract::Query;
use axum::http::{Method, Uri};
use percent_encoding::percent_decode_str;

use super::feed_query;

/// What a kind of call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Nothing: public.
    Public,
    /// A certificate of a node, also one that has expired not too long ago.
    Renewal,
    /// A certificate, for the node that registers.
    Registration,
    /// The certificate of the node in the path.
    OwnNode,
    /// That, or an operator who may change.
    OwnNodeOrOperate,
    /// The node list: any certificate, an operator; for a question of a node that node's certificate.
    NodeList,
    /// An operator.
    Read,
    /// An operator who may change.
    Operate,
    /// The same, also where everything else is open: what makes, shows or revokes credentials.
    Credentials,
    /// The admin socket.
    Admin,
}

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The method; HEAD counts as GET.
    pub method: &'static str,
    /// The path, as the router has it.
    pub path: &'static str,
    /// What it needs.
    pub rule: Rule,
}

const fn entry(method: &'static str, path: &'static str, rule: Rule) -> Entry {
    Entry { method, path, rule }
}

/// What a question of the change feed is.
pub(crate) static NODE_LIST: Entry = entry("GET", "/api/nodes", Rule::NodeList);

/// Every call there is. Paths without parameters come first, as with the router.
pub static TABLE: &[Entry] = &[
    entry("GET", "/health", Rule::Public),
    entry("GET", "/livez", Rule::Public),
    entry("GET", "/readyz", Rule::Public),
    entry("GET", "/api/ca", Rule::Public),
    entry("POST", "/api/join", Rule::Public),
    entry("POST", "/api/renew", Rule::Renewal),
    entry("POST", "/api/nodes/register", Rule::Registration),
    entry("GET", "/api/nodes", Rule::NodeList),
    entry("POST", "/api/nodes/{id}/heartbeat", Rule::OwnNode),
    entry("POST", "/api/nodes/{id}/leave", Rule::OwnNode),
    entry("POST", "/api/nodes/{id}/deregister", Rule::OwnNodeOrOperate),
    entry("POST", "/api/nodes/{id}/revoke", Rule::Credentials),
    entry("GET", "/api/traffic", Rule::Read),
    entry("GET", "/api/findings", Rule::Read),
    entry("GET", "/api/subnets", Rule::Read),
    entry("POST", "/api/subnets/release", Rule::Operate),
    entry("POST", "/api/subnets/release-departed", Rule::Operate),
    entry("POST", "/api/subnets/reserve", Rule::Operate),
    entry("POST", "/api/subnets/unreserve", Rule::Operate),
    entry("POST", "/api/checks", Rule::Operate),
    entry("GET", "/api/checks/{id}", Rule::Read),
    entry("GET", "/api/openapi.json", Rule::Read),
    entry("GET", "/api/docs", Rule::Read),
    entry("GET", "/api/docs/", Rule::Read),
    entry("GET", "/api/docs/{name}", Rule::Read),
    entry("GET", "/api/tokens", Rule::Credentials),
    entry("POST", "/api/tokens", Rule::Credentials),
    entry("POST", "/api/tokens/{id}/revoke", Rule::Credentials),
    entry("GET", "/api/node-credentials", Rule::Credentials),
    entry("GET", "/api/audit", Rule::Credentials),
    entry("GET", "/api/operators", Rule::Admin),
    entry("POST", "/api/operators", Rule::Admin),
    entry("POST", "/api/operators/{id}/revoke", Rule::Admin),
    entry("GET", "/api/security", Rule::Admin),
    entry("POST", "/api/security/stage", Rule::Admin),
    entry("POST", "/api/ca/rotate", Rule::Admin),
    entry("POST", "/api/ca/export", Rule::Admin),
    entry("POST", "/api/ca/import", Rule::Admin),
];

/// What a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// The call; `None`: there is none, as far as the table knows.
    pub entry: Option<&'static Entry>,
    /// The node that it acts for, where the path or a question names one.
    pub node: Option<String>,
}

impl Needs {
    /// That of a request with this method and URI. Only the path counts, which is what the router goes by: no header,
    /// and no other notation of a path, leads to another call.
    pub fn of(method: &Method, uri: &Uri) -> Self {
        let method = match method {
            &Method::HEAD => "GET",
            method => method.as_str(),
        };
        let path = uri.path();
        let found = TABLE
            .iter()
            .filter(|entry| entry.method == method)
            .find_map(|entry| Some((entry, parameter(entry.path, path)?)));
        let Some((entry, parameter)) = found else {
            return Self {
                entry: None,
                node: None,
            };
        };
        let node = match entry.rule {
            Rule::OwnNode | Rule::OwnNodeOrOperate => parameter.map(decoded).map(Cow::into_owned),
            Rule::NodeList => asking_node(uri),
            _ => None,
        };
        Self {
            entry: Some(entry),
            node,
        }
    }

    /// The call, as it stands in the table.
    pub fn call(&self) -> String {
        match self.entry {
            Some(entry) => format!("{} {}", entry.method, entry.path),
            None => "no such call".to_owned(),
        }
    }

    /// What it needs; `None`: there is no such call.
    pub fn rule(&self) -> Option<Rule> {
        self.entry.map(|entry| entry.rule)
    }
}

/// Whether a path is that of a template, and what it has in the place of the parameter, if there is one.
fn parameter<'a>(template: &str, path: &'a str) -> Option<Option<&'a str>> {
    let Some((before, after)) = template
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?.1)))
    else {
        return (template == path).then_some(None);
    };
    let value = path.strip_prefix(before)?.strip_suffix(after)?;
    (!value.is_empty() && !value.contains('/')).then_some(Some(value))
}

/// As the handlers get it. What is no text is none of an id, and is refused by them.
fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

/// The node that a question to the feed is of, read as the handler will read it. Where that finds a mistake it is no
/// question, and answered as such.
fn asking_node(uri: &Uri) -> Option<String> {
    uri.query()?;
    let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    feed_query::read(&parameters).ok()??.node
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(method: &str, uri: &str) -> (Option<Rule>, Option<String>) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let needs = Needs::of(&method, &uri.parse().unwrap());
        (needs.rule(), needs.node)
    }

    #[test]
    fn what_a_request_acts_for_is_read_as_the_handler_reads_it() {
        let node = |id: &str| Some(id.to_owned());
        for (method, uri, rule, acts_for) in [
            ("POST", "/api/nodes/a/heartbeat", Rule::OwnNode, node("a")),
            ("POST", "/api/nodes/%61/heartbeat", Rule::OwnNode, node("a")),
            ("POST", "/api/nodes/a%2Fb/leave", Rule::OwnNode, node("a/b")),
            (
                "POST",
                "http://x/api/nodes/a/heartbeat?x",
                Rule::OwnNode,
                node("a"),
            ),
            (
                "GET",
                "/api/nodes?since=1&node=a",
                Rule::NodeList,
                node("a"),
            ),
            (
                "GET",
                "/api/nodes?since=1&%6eode=%61",
                Rule::NodeList,
                node("a"),
            ),
            (
                "HEAD",
                "/api/nodes?node=a&since=1&wait=5",
                Rule::NodeList,
                node("a"),
            ),
            ("GET", "/api/nodes?node=a", Rule::NodeList, None),
            (
                "GET",
                "/api/nodes?since=1&node=a&node=b",
                Rule::NodeList,
                None,
            ),
            ("GET", "/api/nodes", Rule::NodeList, None),
            ("HEAD", "/health", Rule::Public, None),
        ] {
            assert_eq!(needs(method, uri), (Some(rule), acts_for), "{method} {uri}");
        }
    }

    #[test]
    fn what_is_nearly_a_call_is_none() {
        for (method, uri) in [
            ("POST", "/health"),
            ("GET", "/api/join"),
            ("get", "/health"),
            ("OPTIONS", "/health"),
            ("GET", "/Health"),
            ("GET", "/health/"),
            ("GET", "//health"),
            ("GET", "/x/../health"),
            ("GET", "/%68ealth"),
            ("GET", "/api//nodes"),
            ("GET", "/api/nodes/"),
            ("POST", "/api/nodes//heartbeat"),
            ("POST", "/api/nodes/a/b/heartbeat"),
            ("POST", "/api/nodes/a/heartbeat/"),
            ("POST", "/api/nodes/a/Heartbeat"),
            ("POST", "/api/ca/"),
            ("GET", "/"),
        ] {
            assert_eq!(needs(method, uri), (None, None), "{method} {uri}");
        }
    }

    #[test]
    fn every_call_that_is_described_is_in_the_table() {
        let document = serde_json::to_value(crate::api::openapi::document()).unwrap();
        for (path, calls) in document["paths"].as_object().unwrap() {
            for method in calls.as_object().unwrap().keys() {
                let method = method.to_uppercase();
                let found = TABLE
                    .iter()
                    .any(|entry| entry.method == method && entry.path == path);
                assert!(found, "{method} {path}");
            }
        }
    }
}
