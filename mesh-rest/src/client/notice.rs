//! What an answer says beside its body.

use std::{
    fmt::Debug,
    time::{SystemTime, UNIX_EPOCH},
};

use reqwest::{Response, header::DATE};

use crate::check::CHECK_HEADER;
use crate::join::{AUTHORITIES_HEADER, INSECURE_HEADER};

/// What an answer says beside its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notice {
    /// The control plane's clock when it answered, in Unix seconds, if it told.
    pub date: Option<i64>,
    /// [`AUTHORITIES_HEADER`]; of answers that are no error.
    pub authorities: Option<String>,
    /// [`CHECK_HEADER`]; of answers that are no error.
    pub check: Option<String>,
    /// [`INSECURE_HEADER`]: why somebody is let in without credentials.
    pub insecure: Option<String>,
}

/// Wants to know what answers say beside their bodies.
pub trait Notices: Debug + Send + Sync {
    /// Takes what an answer said, as soon as that begins to arrive. Errors are answers as well.
    fn take(&self, notice: Notice);
}

pub(super) fn of(response: &Response) -> Notice {
    let header = |name: &str| response.headers().get(name)?.to_str().ok();
    let authorities = header(AUTHORITIES_HEADER).filter(|_| response.status().is_success());
    Notice {
        date: header(DATE.as_str()).and_then(unix_seconds),
        authorities: authorities.map(str::to_owned),
        check: header(CHECK_HEADER)
            .filter(|_| response.status().is_success())
            .map(str::to_owned),
        insecure: header(INSECURE_HEADER).map(str::to_owned),
    }
}

/// A date of HTTP (RFC 9110 section 5.6.7).
fn unix_seconds(date: &str) -> Option<i64> {
    let time: SystemTime = httpdate::parse_http_date(date).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_and_nonsense_is_none() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(unix_seconds(date), Some(784_111_777));
        assert_eq!(unix_seconds("yesterday"), None);
    }
}
