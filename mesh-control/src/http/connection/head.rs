//! The head of a request, read as hyper will read it.
//!
//! It is read before hyper gets the connection: to know what is asked, where the request ends, and what to say about a
//! head that is none. What passes here, hyper takes: its own rules for heads are these.

use axum::body::Bytes;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderName, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use mesh_rest::problem_kind::Kind;

use crate::api::problem::Problem;
use crate::http::limits::{HEAD, HEADERS};

/// A request but for its body.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// Bytes that the head takes.
    pub(super) length: usize,
    pub(super) body: Length,
    is_http_11: bool,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// So many bytes.
    Known(u64),
    /// In chunks, the last of which says that it is.
    Chunked,
}

impl Head {
    /// A head that says no more than where the request goes, and what becomes of the connection.
    pub(super) fn shortened(&self) -> Vec<u8> {
        let says = |option: &str| {
            let values = self.headers.get_all(CONNECTION).iter();
            let mut options = values
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','));
            options.any(|said| said.trim().eq_ignore_ascii_case(option))
        };
        let minor = u8::from(self.is_http_11);
        let connection = match (says("close"), says("keep-alive")) {
            (true, _) => "connection: close\r\n",
            (false, true) => "connection: keep-alive\r\n",
            (false, false) => "",
        };
        let (method, path) = (&self.method, self.uri.path());
        format!("{method} {path} HTTP/1.{minor}\r\n{connection}\r\n").into_bytes()
    }

    /// Whether the client sends the body only when it is told to go on.
    pub(super) fn asks_first(&self) -> bool {
        self.headers.contains_key(EXPECT)
    }
}

/// Reads a head from what has arrived; `None`: it is not all there.
///
/// # Errors
///
/// What is no head, or too long for one, with what to answer.
pub(super) fn read(bytes: &[u8]) -> Result<Option<Head>, Problem> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD => return Ok(None),
        Ok(_) if bytes.iter().take(HEAD).any(|byte| *byte == b'\n') => return Err(too_large()),
        Ok(_) => {
            let rule = format!("the request line is longer than {HEAD} bytes");
            return Err(Problem::new(Kind::TargetTooLong, rule));
        }
        Err(httparse::Error::TooManyHeaders) => return Err(too_large()),
        Err(_) => {
            return Err(malformed(
                "the request line or a header is not HTTP/1.1 (RFC 9112)",
            ));
        }
    };
    whole(&request, length).map(Some)
}

fn whole(request: &httparse::Request<'_, '_>, length: usize) -> Result<Head, Problem> {
    let method = request.method.unwrap_or_default();
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| malformed("the method is none (RFC 9110 section 9.1)"))?;
    let uri = request.path.unwrap_or_default();
    let uri = Uri::from_maybe_shared(Bytes::copy_from_slice(uri.as_bytes()))
        .map_err(|error| malformed(&format!("the path and query cannot be read: {error}")))?;
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for header in request.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = HeaderValue::from_bytes(header.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(malformed("a header is not HTTP/1.1 (RFC 9110 section 5)"));
        };
        headers.append(name, value);
    }
    let is_http_11 = request.version == Some(1);
    let body = body_length(&headers, is_http_11)?;
    Ok(Head {
        method,
        uri,
        headers,
        length,
        body,
        is_http_11,
    })
}

/// RFC 9112 section 6.3.
fn body_length(headers: &HeaderMap, is_http_11: bool) -> Result<Length, Problem> {
    if let Some(last) = headers.get_all(TRANSFER_ENCODING).iter().next_back() {
        let codings = last.to_str().unwrap_or_default();
        let is_chunked = codings
            .rsplit(',')
            .next()
            .is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"));
        // With a length as well, two servers may see different ends.
        if !is_http_11 || !is_chunked || headers.contains_key(CONTENT_LENGTH) {
            return Err(malformed(
                "Transfer-Encoding must be chunked, of HTTP/1.1, and without a Content-Length",
            ));
        }
        return Ok(Length::Chunked);
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        return Ok(Length::Known(0));
    };
    // Digits alone: no sign, no list.
    let digits = first
        .to_str()
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse::<u64>().ok()) {
        // The largest numbers mean something else to hyper.
        Some(length) if length <= u64::MAX >> 8 && lengths.all(|other| other == first) => {
            Ok(Length::Known(length))
        }
        _ => Err(malformed("Content-Length must be one number of bytes")),
    }
}

fn malformed(detail: &str) -> Problem {
    Problem::new(Kind::Malformed, detail)
}

fn too_large() -> Problem {
    let rule =
        format!("the request has more than {HEADERS} headers, or more than {HEAD} bytes of them");
    Problem::new(Kind::HeadersTooLarge, rule)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(head: &str) -> Kind {
        match read(head.as_bytes()) {
            Err(problem) => problem.kind(),
            Ok(read) => panic!("{head:?} is read as {read:?}"),
        }
    }

    fn length(headers: &str) -> Length {
        let head = format!("POST /x HTTP/1.1\r\n{headers}\r\n");
        let read = read(head.as_bytes()).unwrap().unwrap();
        assert_eq!(read.length, head.len());
        read.body
    }

    #[test]
    fn a_head_says_what_is_asked_and_how_long_the_body_is() {
        let head = read(b"GET /api/nodes?since=7 HTTP/1.1\r\nHost: control\r\n\r\nrest")
            .unwrap()
            .unwrap();
        assert_eq!((head.method, head.uri.path()), (Method::GET, "/api/nodes"));
        assert_eq!(head.headers["host"], "control");
        assert_eq!((head.length, head.body), (50, Length::Known(0)));
        assert_eq!(length("Content-Length: 7\r\n"), Length::Known(7));
        assert_eq!(
            length("Content-Length: 7\r\ncontent-length: 7\r\n"),
            Length::Known(7)
        );
        assert_eq!(
            length("Transfer-Encoding: gzip, Chunked\r\n"),
            Length::Chunked
        );
    }

    #[test]
    fn a_shortened_head_is_of_the_same_request_on_the_same_connection() {
        for (version, header, connection) in [
            ("1.1", "", ""),
            ("1.1", "Connection: x, Close\r\n", "connection: close\r\n"),
            (
                "1.0",
                "Connection: Keep-Alive\r\n",
                "connection: keep-alive\r\n",
            ),
        ] {
            let long = format!("GET /api/nodes?since=7 HTTP/{version}\r\nX: y\r\n{header}\r\n");
            let short = read(long.as_bytes()).unwrap().unwrap().shortened();
            let expected = format!("GET /api/nodes HTTP/{version}\r\n{connection}\r\n");
            assert_eq!(String::from_utf8(short).unwrap(), expected);
        }
    }

    #[test]
    fn a_head_that_servers_may_read_in_two_ways_is_none() {
        for headers in [
            "Content-Length: 7\r\nContent-Length: 8\r\n",
            "Content-Length: +7\r\n",
            "Content-Length: 7, 7\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length:\r\n",
            "Transfer-Encoding: gzip\r\n",
            "Transfer-Encoding: chunked, gzip\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 7\r\n",
            "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(
                refused(&format!("POST /x HTTP/1.1\r\n{headers}\r\n")),
                Kind::Malformed,
                "{headers}"
            );
        }
        assert_eq!(
            refused("POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Kind::Malformed
        );
    }

    #[test]
    fn a_head_is_waited_for_until_it_is_too_long() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HEAD - 18));
        assert_eq!(long.len(), HEAD);
        for end in [0, 1, 9, HEAD - 1] {
            assert!(read(&long.as_bytes()[..end]).unwrap().is_none());
        }
        assert_eq!(read(long.as_bytes()).unwrap().unwrap().length, HEAD);
        assert_eq!(
            refused(&format!("GET /{}", "x".repeat(HEAD))),
            Kind::TargetTooLong
        );
        let headers = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(HEAD));
        assert_eq!(refused(&headers), Kind::HeadersTooLarge);
        let longer = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(HEAD));
        assert_eq!(refused(&longer), Kind::HeadersTooLarge);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
            let _ = read(&[b"POST /x HTTP/1.1\r\n", bytes.as_slice(), b"\r\n\r\n"].concat());
        }
    }
}
