//! What kinds of problem there are.

/// What stands before the name of a kind in the `type` of a problem document.
const PREFIX: &str = "urn:quilt-mesh:problem:";

/// The kinds of problem a client may tell apart by `type`. They are part of the API: add, never rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No such route.
    NoSuchRoute,
    /// The route exists, the method does not.
    MethodNotAllowed,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTooSlow,
    /// The request does not say that its body is JSON.
    NotJsonMediaType,
    /// The request line, a header, the path or the body cannot be parsed.
    Malformed,
    /// The request line is too long.
    TargetTooLong,
    /// The headers are too many or too large.
    HeadersTooLarge,
    /// The body is JSON, but its fields are missing or wrong.
    InvalidFields,
    /// No node with this id, or one that has to register again.
    UnknownNode,
    /// The node_key is not that of the node.
    OtherKey,
    /// A live node has the address or key that was claimed.
    InUse,
    /// The address is kept for a node that is down, and who claims it does not come from there.
    AddressKept,
    /// Another host goes on as this node; this one is a copy of it.
    Copy,
    /// Every subnet is leased or reserved.
    SubnetsExhausted,
    /// The subnet to release was never leased.
    NotLeased,
    /// The range to unreserve is not reserved.
    NotReserved,
    /// There are as many of these as there can be.
    LimitReached,
    /// The database cannot take the change now.
    DatabaseUnavailable,
    /// The request was not answered in time.
    Overloaded,
    /// Clients should ask another control plane for the time being.
    NotReady,
    /// No credential, or none that is valid.
    Unauthorized,
    /// The certificate of the node has expired.
    CertificateExpired,
    /// The certificate does not hold yet: one of two clocks is wrong.
    Clock,
    /// The certificate was signed by an authority that another takes the place of, for a node that is not known.
    JoinAgain,
    /// Who asks is known, and may not.
    Forbidden,
    /// The join token is not one that lets this host join.
    TokenRefused,
    /// A browser asks, on behalf of another site.
    WrongOrigin,
    /// The request is meant for another host (DNS rebinding).
    WrongHost,
    /// Plain HTTP is not spoken with who asks.
    TlsRequired,
    /// Too many requests from there were refused, or come at once or too often.
    SlowDown,
    /// This control plane has no certificate authority.
    NoAuthority,
    /// There is no such token, operator or node to revoke.
    NoSuchCredential,
    /// There is no such check, or no more.
    NoSuchCheck,
    /// What is asked for has to wait for something else.
    NotNow,
    /// A bug.
    Internal,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 36] = [
        Self::NoSuchRoute,
        Self::MethodNotAllowed,
        Self::BodyTooLarge,
        Self::BodyTooSlow,
        Self::NotJsonMediaType,
        Self::Malformed,
        Self::TargetTooLong,
        Self::HeadersTooLarge,
        Self::InvalidFields,
        Self::UnknownNode,
        Self::OtherKey,
        Self::InUse,
        Self::AddressKept,
        Self::Copy,
        Self::SubnetsExhausted,
        Self::NotLeased,
        Self::NotReserved,
        Self::LimitReached,
        Self::DatabaseUnavailable,
        Self::Overloaded,
        Self::NotReady,
        Self::Unauthorized,
        Self::CertificateExpired,
        Self::Clock,
        Self::JoinAgain,
        Self::Forbidden,
        Self::TokenRefused,
        Self::WrongOrigin,
        Self::WrongHost,
        Self::TlsRequired,
        Self::SlowDown,
        Self::NoAuthority,
        Self::NoSuchCredential,
        Self::NoSuchCheck,
        Self::NotNow,
        Self::Internal,
    ];

    fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::NoSuchRoute => (404, "no-such-route", "No such route"),
            Self::MethodNotAllowed => (405, "method-not-allowed", "Method not allowed"),
            Self::BodyTooLarge => (413, "body-too-large", "Body too large"),
            Self::BodyTooSlow => (408, "body-too-slow", "Body did not arrive"),
            Self::NotJsonMediaType => (415, "not-json-media-type", "Not declared as JSON"),
            Self::Malformed => (400, "malformed", "Malformed request"),
            Self::TargetTooLong => (414, "target-too-long", "Request line too long"),
            Self::HeadersTooLarge => (431, "headers-too-large", "Headers too large"),
            Self::InvalidFields => (422, "invalid-fields", "Fields missing or wrong"),
            Self::UnknownNode => (404, "unknown-node", "Unknown node"),
            Self::OtherKey => (403, "other-key", "Not the key of this node"),
            Self::InUse => (409, "in-use", "In use by a live node"),
            Self::AddressKept => (409, "address-kept", "Address of a node that is down"),
            Self::Copy => (409, "copy", "A copy of a live node"),
            Self::NotLeased => (404, "not-leased", "Not leased"),
            Self::NotReserved => (404, "not-reserved", "Not reserved"),
            Self::LimitReached => (409, "limit-reached", "Limit reached"),
            Self::SubnetsExhausted => (503, "subnets-exhausted", "No subnet is free"),
            Self::DatabaseUnavailable => (503, "database-unavailable", "Database unavailable"),
            Self::Overloaded => (503, "overloaded", "No answer in time"),
            Self::NotReady => (503, "not-ready", "Not ready"),
            Self::Unauthorized => (401, "unauthorized", "No valid credential"),
            Self::CertificateExpired => (401, "certificate-expired", "Certificate expired"),
            Self::Clock => (401, "clock", "Clocks differ"),
            Self::JoinAgain => (401, "join-again", "Has to join again"),
            Self::Forbidden => (403, "forbidden", "Not allowed"),
            Self::TokenRefused => (403, "token-refused", "Join token refused"),
            Self::WrongOrigin => (403, "wrong-origin", "Asked by another site"),
            Self::WrongHost => (421, "wrong-host", "Not this host"),
            Self::TlsRequired => (426, "tls-required", "TLS required"),
            Self::SlowDown => (429, "slow-down", "Too many requests"),
            Self::NoAuthority => (503, "no-authority", "No certificate authority"),
            Self::NoSuchCredential => (404, "no-such-credential", "No such credential"),
            Self::NoSuchCheck => (404, "no-such-check", "No such check"),
            Self::NotNow => (409, "not-now", "Not now"),
            Self::Internal => (500, "internal", "Internal error"),
        }
    }

    /// The kind that the `type` of a problem document names. `None`: one that this version does not know.
    #[must_use]
    pub fn of_type(text: &str) -> Option<Self> {
        let slug = text.strip_prefix(PREFIX)?;
        Self::ALL.into_iter().find(|kind| kind.slug() == slug)
    }

    /// The `type` of a problem document of this kind.
    #[must_use]
    pub fn type_uri(self) -> String {
        format!("{PREFIX}{}", self.slug())
    }

    /// The last part of its `type`.
    #[must_use]
    pub fn slug(self) -> &'static str {
        self.parts().1
    }

    /// Its `title`.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.parts().2
    }

    /// The HTTP status this kind is answered with: 400 to 599.
    #[must_use]
    pub fn status(self) -> u16 {
        self.parts().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_a_problem_names_one_kind_and_an_error() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_type(&kind.type_uri()), Some(kind));
            assert!((400..600).contains(&kind.status()), "{kind:?}");
        }
        for text in [
            "",
            "copy",
            "urn:quilt-mesh:problem:",
            "urn:quilt-mesh:problem:weather",
            "about:blank",
        ] {
            assert_eq!(Kind::of_type(text), None, "{text}");
        }
    }
}
