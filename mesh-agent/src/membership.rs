//! The membership task: lets this host join its mesh, and keeps its certificate valid.
//!
//! Until the host has joined nothing is said to the control plane as a node. From then on the certificate is made anew at
//! two thirds of its life, and at once when the control plane says that the mesh has other authorities, or that it does
//! not take the certificate. Where that leads to none, and a join token is at hand, the host joins again, and is the node
//! that it was. Whatever happens here, the data plane stays as it is.

use std::{convert::Infallible, fmt, sync::Arc, time::Duration};

use backon::BackoffBuilder as _;
use mesh_credentials::{control_plane_check::clock as shown, join_token::JoinToken};
use mesh_rest::join::{Joined, Renew};
use tokio::{
    sync::{oneshot, watch},
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    clock,
    control_plane::ControlPlane,
    credentials::{Credentials, Expected},
    heard::Heard,
    heartbeat::own_or_told,
    measured::Measured,
    node::Registered,
    problems::Problems,
    register::Revocation,
    retry,
    status::MeshCertificate,
};

mod authority_sets;
mod error;
mod joining;
mod log;
mod schedule;
mod settings;
mod token_source;

use authority_sets::AuthoritySets;
pub use error::MembershipError;
use joining::Again;
use log::MembershipLog;
pub use settings::Membership;
pub use token_source::{TokenError, TokenSource};

/// The clock is looked at this often while the control plane says nothing, by whose answers it is looked at otherwise.
const LONGEST_LOOK: Duration = Duration::from_secs(600);

/// A certificate is used for so many seconds at least before it is made anew because it is time.
const SHORTEST_LIFE: i64 = 60;

/// A certificate is refused so many times before the token is used again by which it came: by a replica that does not know
/// of it yet it is refused once.
const BEFORE_JOINING_AGAIN: u32 = 3;

/// Renewals for a certificate that is not taken, or for authorities that were heard of before, are so many heartbeats apart at
/// least from others for another reason than time: replicas that do not agree may go on for long.
const BEATS_APART: u32 = 2;

/// What the membership task learns from others, and tells them.
#[derive(Debug)]
pub struct Surroundings {
    /// The node as registered.
    pub registration: watch::Receiver<Option<Registered>>,
    /// Told when the host is another node than it registered as.
    pub revocation: Revocation,
    /// Told why this host cannot be a member as it was told to be.
    pub end: oneshot::Sender<MembershipError>,
    /// Told by what the node shows who it is.
    pub certificate: watch::Sender<Option<MeshCertificate>>,
    /// What is wrong.
    pub problems: Problems,
    /// What is measured.
    pub measured: Measured,
}

/// Lets the host join, and keeps it a member, until `stop`, or until it turns out that it is to be one of another mesh.
pub async fn run(
    control_plane: ControlPlane,
    membership: Membership,
    Surroundings {
        registration,
        revocation,
        end,
        certificate,
        problems,
        measured,
    }: Surroundings,
    stop: CancellationToken,
) {
    let member = Member {
        heard: control_plane.heard(),
        doubts: control_plane.doubts(),
        strangers: control_plane.strangers(),
        control_plane,
        membership,
        registration,
        revocation,
        measured,
        joined_with: None,
        refused_token: None,
        log: MembershipLog::new(problems),
        certificate,
        unsaved: None,
        sets: AuthoritySets::default(),
        apart_until: Instant::now(),
    };
    tokio::select! {
        () = stop.cancelled() => {}
        error = member.live() => {
            // Nobody listens any more where the agent ends anyway.
            let _ends_anyway = end.send(error);
            stop.cancelled().await;
        }
    }
}

/// Why a certificate is to be made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cause {
    /// It is time.
    Due,
    /// The mesh has other authorities.
    Authorities(String),
    /// The control plane did not take the certificate.
    Doubt,
    /// The control plane was signed by nobody who is trusted here, and there is a token that says by whom it may be.
    Stranger,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Due => "it was due",
            Self::Authorities(_) => "the mesh has other authorities",
            Self::Doubt => "the control plane did not take the last one",
            Self::Stranger => "the control plane had an authority that is not known here",
        })
    }
}

struct Member {
    control_plane: ControlPlane,
    membership: Membership,
    registration: watch::Receiver<Option<Registered>>,
    revocation: Revocation,
    measured: Measured,
    heard: watch::Receiver<Heard>,
    doubts: watch::Receiver<()>,
    strangers: watch::Receiver<()>,
    /// The token by which this agent let the host join, since it started.
    joined_with: Option<JoinToken>,
    /// The token that the control plane did not take when the host was to join again.
    refused_token: Option<JoinToken>,
    log: MembershipLog,
    certificate: watch::Sender<Option<MeshCertificate>>,
    /// What is not on the disk yet is tried to be written then.
    unsaved: Option<Instant>,
    /// Those that were heard of.
    sets: AuthoritySets,
    /// Until then a certificate is not made anew for a reason that may be none.
    apart_until: Instant,
}

impl Member {
    /// Ends only where the host cannot be what it was told to be.
    async fn live(mut self) -> MembershipError {
        match self.stay().await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn stay(&mut self) -> Result<Infallible, MembershipError> {
        let mut current = match self.membership.credentials.take() {
            Some(kept)
                if schedule::left(&kept.presented, clock::now()) == schedule::Left::Nothing =>
            {
                self.log.expired(&kept, clock::now());
                self.show(&kept, clock::now());
                self.renew(kept, &Cause::Due).await?
            }
            Some(kept) => {
                self.use_from_now_on(&kept);
                kept
            }
            None => self.join().await,
        };
        let mut earliest = i64::MIN;
        loop {
            let at = schedule::renewal(&current.presented, rand::random()).max(earliest);
            debug!(name: "certificate-made-anew", at = shown(at), "the certificate is made anew");
            self.show(&current, at);
            let cause = self.until_due(&current, at).await;
            if cause != Cause::Due {
                // A fleet hears of it in one moment; but no fleet is given a token in one.
                let given = match cause {
                    Cause::Doubt => self.new_token().is_some(),
                    Cause::Stranger => true,
                    Cause::Due | Cause::Authorities(_) => false,
                };
                if !given {
                    sleep(self.heartbeat_interval().mul_f64(rand::random())).await;
                }
                self.apart_until = Instant::now() + self.heartbeat_interval() * BEATS_APART;
            }
            if let Cause::Authorities(digest) = &cause {
                info!(name: "mesh-other-authorities", "the mesh has other authorities; the certificate is made anew");
                self.sets
                    .ask_for(digest, current.authorities_digest.as_deref());
            }
            current = self.renew(current, &cause).await?;
            // Whoever answers with what is old already is not asked as fast as it answers.
            earliest = self.now().saturating_add(SHORTEST_LIFE);
        }
    }

    /// Tells by what the node shows who it is, and when that is made anew, in Unix seconds.
    fn show(&self, current: &Credentials, renewal_at: i64) {
        let certificate = MeshCertificate::of(current, renewal_at);
        self.certificate.send_replace(Some(certificate));
    }

    fn heartbeat_interval(&self) -> Duration {
        let registered = self.registration.borrow();
        let told = registered
            .as_ref()
            .and_then(|registered| registered.heartbeat_interval);
        own_or_told(self.membership.heartbeat_interval, told)
    }

    /// The control plane's clock, as far as it is known: it judges whether a certificate holds.
    fn now(&self) -> i64 {
        clock::now().saturating_add(self.heard.borrow().clock_ahead)
    }

    /// Waits until there is a reason to have the certificate made anew: `at` in Unix seconds, or another.
    async fn until_due(&mut self, current: &Credentials, at: i64) -> Cause {
        loop {
            self.save_again(current).await;
            let now = self.now();
            if now >= at {
                return Cause::Due;
            }
            let apart = self.apart_until <= Instant::now();
            let authorities = self.heard.borrow_and_update().authorities.clone();
            let of_current = current.authorities_digest.as_deref();
            if let Some(digest) = authorities
                && self.sets.is_reason(&digest, of_current, apart)
            {
                return Cause::Authorities(digest);
            }
            let left = u64::try_from(at.saturating_sub(now)).unwrap_or_default();
            let look = Instant::now() + Duration::from_secs(left).min(LONGEST_LOOK);
            let look = self.unsaved.map_or(look, |unsaved| look.min(unsaved));
            let look = if apart {
                look
            } else {
                look.min(self.apart_until)
            };
            tokio::select! {
                changed = self.doubts.changed(), if apart => {
                    if changed.is_ok() {
                        return Cause::Doubt;
                    }
                }
                changed = self.strangers.changed() => {
                    if changed.is_ok() && self.token_of_other_authority(current).is_some() {
                        return Cause::Stranger;
                    }
                }
                // Whoever tells is owned by the control plane, which is owned here.
                _heard = self.heard.changed() => {}
                () = sleep_until(look) => {}
            }
        }
    }

    /// Has the certificate made anew, or else joins again, however long it takes.
    async fn renew(
        &mut self,
        current: Credentials,
        cause: &Cause,
    ) -> Result<Credentials, MembershipError> {
        let mut pauses = retry::until_renewed().build();
        let mut refusals = 0;
        loop {
            let error = match self.try_to_renew(&current).await {
                Ok(renewed) => {
                    self.take_over(&renewed).await;
                    self.log.renewed(&renewed, cause);
                    return Ok(renewed);
                }
                Err(error) => error,
            };
            let refused = error.is_refused_certificate();
            let mut longest = retry::LONGEST_RENEWAL_PAUSE;
            let token = if refused {
                self.control_plane.refused();
                refusals += 1;
                match refusals < BEFORE_JOINING_AGAIN {
                    true => self.new_token(),
                    false => self.token(),
                }
            } else if error.is_of_a_stranger() {
                self.token_of_other_authority(&current)
            } else {
                None
            };
            let again = match token {
                Some(token) => self.join_again(&current, token).await?,
                None => Again::Refused,
            };
            if let Again::Joined(joined) = again {
                return Ok(*joined);
            }
            if refused {
                if matches!(again, Again::Refused) {
                    self.log.refused(&error, &self.membership.hostname);
                }
            } else {
                let left = schedule::left(&current.presented, self.now());
                self.log.not_renewed(&error, left, &current);
                // Without a certificate that holds this host is no member: it comes back soon after the control plane.
                if left == schedule::Left::Nothing && error.is_silence() {
                    longest = retry::LONGEST_REGISTER_PAUSE;
                }
                if left < schedule::Left::Nothing && self.control_plane.is_waiting() {
                    info!(name: "clock-now-node-certificate-not", "by the clock as it is now this node's certificate has not expired");
                    self.log.well();
                    self.use_from_now_on(&current);
                    return Ok(current);
                }
            }
            self.save_again(&current).await;
            let pause = pauses.next().unwrap_or(longest).min(longest);
            sleep(error.pause(pause)).await;
            if let Some(other) = self.joined_meanwhile(Some(&current)) {
                return Ok(other);
            }
        }
    }

    async fn try_to_renew(&self, current: &Credentials) -> Result<Credentials, MembershipError> {
        let renew = Renew {
            request: current.key.request()?,
        };
        let tls = self.membership.tls_of(current)?;
        let answer: Joined = self.control_plane.renew(tls, &renew).await?;
        let expected = Expected::Renewing(current);
        Ok(Credentials::answered(
            Arc::clone(&current.key),
            &answer,
            expected,
        )?)
    }

    /// Keeps what was answered, and uses it: also if it cannot be kept, but not before that was tried. An agent that is
    /// killed meanwhile would need another token.
    async fn take_over(&mut self, credentials: &Credentials) {
        self.unsaved = Some(Instant::now());
        self.save_again(credentials).await;
        self.use_from_now_on(credentials);
        // What was doubted is what was shown and trusted before.
        self.doubts.mark_unchanged();
        self.strangers.mark_unchanged();
    }

    fn use_from_now_on(&self, credentials: &Credentials) {
        self.measured.certificate(credentials.presented.not_after);
        let used = self
            .membership
            .tls_of(credentials)
            .map_err(MembershipError::from)
            .and_then(|tls| Ok(self.control_plane.admit(tls, &credentials.node_id)?));
        self.log.shown(used.as_ref().map(|&()| ()));
        let registered = self.registration.borrow().clone();
        if let Some(registered) = registered
            && registered.node_id != credentials.node_id
        {
            warn!(name: "host-another-node-now",
                before = registered.node_id,
                now = credentials.node_id,
                "this host is another node now"
            );
            self.revocation.revoke(registered.epoch);
        }
    }

    /// Writes what is not on the disk yet, if it is time.
    async fn save_again(&mut self, credentials: &Credentials) {
        if self.unsaved.is_none_or(|at| at > Instant::now()) {
            return;
        }
        let (files, kept) = (self.membership.files.clone(), credentials.clone());
        let written = spawn_blocking(move || files.write(&kept).map_err(|error| error.to_string()));
        // It does not panic; where it did, it is tried again.
        let written = written.await.unwrap_or_else(|error| Err(error.to_string()));
        self.log.saved(written.as_ref());
        self.unsaved = written
            .is_err()
            .then(|| Instant::now() + retry::LONGEST_REGISTER_PAUSE);
    }
}
