//! Who may ask what: from what a connection and a request carry to who asks, and whether that is enough.
//!
//! Everything here is decided in memory, for each request when its head is read, again when its body is and in the
//! transaction that changes something for it ([`mandate`]), and for a question that waits whenever a credential was
//! taken away. What each call needs stands in one table, [`crate::api::access`]; nothing that
//! is not in it is let in.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Uri};
use mesh_metrics::Counters;
use mesh_metrics::catalog::control::REFUSALS;
use mesh_rest::feed_query::LONGEST_WAIT_SECONDS;
use mesh_rest::problem_kind::Kind;
use mesh_rest::security::Stage;
use tokio::sync::watch;

use crate::api::access::{Needs, Rule};
use crate::api::problem::Problem;
use crate::registry::unix_seconds;
use caller::{Caller, Shown};
use credentials::{Credentials, Refusal};
use decision::Situation;
use names::{Look, Names};
use origin::{Certificate, Origin, Way};
use refusals::{Refusals, Refusing, Verdict, Word};

pub mod caller;
pub mod credentials;
pub mod decision;
pub mod known;
pub mod mandate;
pub mod names;
pub mod origin;
pub(crate) mod rate;
pub mod refusals;

/// The most of a request that stands in the log, in characters.
const LONGEST_WORD: usize = 200;

/// By what is decided who may ask what.
pub struct Access {
    credentials: Arc<dyn Credentials>,
    insecure: bool,
    names: Names,
    refusals: Refusals,
    refused: Counters,
    clock: Box<dyn Fn() -> i64 + Send + Sync>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { insecure, .. } = self;
        f.debug_struct("Access")
            .field("insecure", insecure)
            .finish_non_exhaustive()
    }
}

impl Access {
    /// By these credentials, for requests to these names. `insecure`: plain HTTP is taken from everybody, and as long as
    /// there are no credentials, everybody is let in.
    pub fn new(credentials: Arc<dyn Credentials>, insecure: bool, names: Names) -> Self {
        Self {
            credentials,
            insecure,
            names,
            refusals: Refusals::default(),
            refused: Counters::new(&REFUSALS),
            clock: Box::new(unix_seconds),
        }
    }

    /// What was refused, by reason.
    pub(crate) fn refused(&self) -> &Counters {
        &self.refused
    }

    /// By another clock, which tells Unix seconds.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// What is known of credentials.
    pub fn credentials(&self) -> &dyn Credentials {
        &*self.credentials
    }

    /// Another number whenever what was let in may not be any more.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.credentials.changes()
    }

    /// Judges the names that a request is for and comes from.
    ///
    /// # Errors
    ///
    /// As [`Names::judge`].
    pub(crate) fn judge_names(
        &self,
        origin: &Origin,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Refused> {
        let look = match (origin.way, self.credentials.stage()) {
            (Way::AdminSocket, _) => return Ok(()),
            (Way::Tls, _) => Look::AtNone,
            (Way::Plain, Stage::Secured) if !self.insecure => Look::AtAll,
            (Way::Plain, _) => Look::AtBrowsers,
        };
        self.names.judge(uri, headers, look)
    }

    /// Judges who asks, and whether they may.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn judge(&self, origin: &Origin, asked: &Asked) -> Result<Caller, Refused> {
        let credentials = &*self.credentials;
        let node = asked.needs.node.as_deref();
        let is_loopback = origin.is_loopback();
        let mut situation = Situation {
            way: origin.way,
            is_local: is_loopback && !asked.is_forwarded,
            is_loopback,
            stage: credentials.stage(),
            has_credentials: credentials.has_credentials(),
            insecure: self.insecure,
            node_has_credentials: false,
        };
        decision::judge_way(&situation)?;
        let renews = asked.needs.rule() == Some(Rule::Renewal);
        let now = (self.clock)();
        let caller = Caller::identify(origin, &asked.shown, credentials, now, renews);
        if asked.needs.rule() == Some(Rule::Public) {
            // What needs no credential does not need a valid one.
            return Ok(caller.unwrap_or(Caller::Nobody));
        }
        let caller = caller?;
        if caller == Caller::Nobody {
            // For anybody else it makes no difference.
            situation.node_has_credentials =
                node.is_some_and(|node| credentials.node(node).is_some());
        }
        match decision::decide(&asked.needs, &caller, &situation) {
            Err(_) if node.is_some() && self.has_to_register(origin) => Err(Refused::new(
                Kind::UnknownNode,
                "no node is known by this certificate of one's own (yet, or any more): register first",
            )),
            decided => decided.map(|()| caller),
        }
    }

    /// Whether the certificate is one of one's own by which no node is known: it may have been before the database went back
    /// to a backup, or another replica may know it already. Registering helps in either case.
    fn has_to_register(&self, origin: &Origin) -> bool {
        match &origin.certificate {
            Some(Certificate::Own(own)) => {
                let name = own.identity.digest();
                self.credentials.node_called(name).is_none()
            }
            _ => false,
        }
    }

    /// How long the certificate on a connection holds, as far as its end is in sight of a question that waits.
    pub(crate) fn until_expiry(&self, origin: &Origin) -> Expiry {
        let Some(certificate) = &origin.certificate else {
            return Expiry::NotInSight;
        };
        // It holds in its last second, too.
        let end = certificate.not_after().saturating_add(1);
        match u64::try_from(end.saturating_sub((self.clock)())) {
            Err(_) | Ok(0) => Expiry::Over,
            Ok(left) if left <= LONGEST_WAIT_SECONDS => Expiry::In(Duration::from_secs(left)),
            Ok(_) => Expiry::NotInSight,
        }
    }

    /// Who it is to whom something is refused, as far as it was shown: that a credential does not do for what is asked does not
    /// make it another's.
    pub(crate) fn who(&self, origin: &Origin, shown: &Shown) -> String {
        let credentials = &*self.credentials;
        if let Shown::Token(token) = shown {
            let known = credentials.operator(&token.id);
            return match known.filter(|known| known.digest.is_of(&token.secret)) {
                // Also where it was revoked since.
                Some(known) => format!("operator {} ({})", known.name, token.id),
                None => "with a token of nobody".to_owned(),
            };
        }
        match (
            Caller::identify(origin, shown, credentials, (self.clock)(), false),
            &origin.certificate,
        ) {
            (Ok(caller), _) if caller != Caller::Nobody => caller.to_string(),
            // Of a node that was revoked, or is another one's by now.
            (_, Some(certificate)) => certificate.to_string(),
            (_, None) => "without a certificate".to_owned(),
        }
    }

    /// Notes that something was refused to whoever is at `origin`; what to answer. `who` and `what` are for the log, and
    /// `call` is the kind of call, by which what is refused again and again is counted.
    pub fn refuse(
        &self,
        origin: &Origin,
        who: &str,
        (call, what): (&str, &str),
        problem: Problem,
    ) -> Problem {
        self.refused.add(&[problem.kind().slug()], 1);
        let Some(source) = origin.source() else {
            return problem;
        };
        let refused = Refusing {
            who: who.chars().take(LONGEST_WORD).collect(),
            call: call.chars().take(LONGEST_WORD).collect(),
            why: problem.kind().slug().to_owned(),
        };
        let (verdict, words) = self.refusals.refuse(source, refused.clone());
        for Word {
            refused: said,
            times,
        } in words
        {
            // One is named as it was asked; several may have differed in that.
            let what = match times == 1 && said == refused {
                true => what.chars().take(LONGEST_WORD).collect(),
                false => said.call,
            };
            self.credentials.refused(&Refusal {
                source,
                who: said.who,
                what,
                why: said.why,
                times,
            });
        }
        match verdict {
            Verdict::Tell => problem,
            Verdict::SlowDown { retry_after } => {
                let why = format!(
                    "too many requests from {source} were refused, whatever is wrong there"
                );
                Problem::slow_down(&why, retry_after)
            }
        }
    }

    /// Why somebody is let in without credentials; see [`why_insecure`].
    pub fn why_insecure(&self) -> Option<&'static str> {
        why_insecure(self.credentials.stage(), self.insecure)
    }
}

/// When a certificate ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Not before a question that waits is answered, or there is none that could.
    NotInSight,
    /// After so long.
    In(Duration),
    /// It has.
    Over,
}

/// Why somebody is let in without credentials; `None`: nobody is, but for a process of this host as long as the cluster
/// has none.
pub fn why_insecure(stage: Stage, insecure: bool) -> Option<&'static str> {
    match stage {
        Stage::Open => Some(
            "nobody needs credentials, as before there were any; quilt-mesh-control secure changes that",
        ),
        Stage::Moving => Some(
            "nodes from before need no credentials yet; quilt-mesh-control secure --finish changes that",
        ),
        Stage::Secured if insecure => Some("--insecure: plain HTTP is spoken with everybody"),
        Stage::Secured => None,
    }
}

/// What a request asks, and shows beside its connection: all that is needed to judge it again.
#[derive(Debug)]
pub struct Asked {
    /// What it needs.
    pub needs: Needs,
    /// What it shows.
    pub shown: Shown,
    /// Whether it says that a proxy sent it on.
    pub is_forwarded: bool,
}

impl Asked {
    /// What these headers show with a request that needs this.
    pub fn new(needs: Needs, headers: &HeaderMap) -> Self {
        let by_proxies = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
        Self {
            needs,
            shown: Shown::in_headers(headers),
            is_forwarded: by_proxies.iter().any(|name| headers.contains_key(*name)),
        }
    }

    /// What is kept of it while it waits: no secret.
    #[must_use]
    pub fn of(self, caller: &Caller) -> Self {
        let shown = match caller {
            Caller::Operator { id, .. } => Shown::Operator(id.as_str().into()),
            _ => Shown::Nothing,
        };
        Self { shown, ..self }
    }
}

/// Why a request is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What kind of problem it is.
    pub kind: Kind,
    /// What is wrong, and what to do.
    pub detail: String,
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Self::new(refused.kind, refused.detail)
    }
}

impl Refused {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }
}
