//! What clients get no more of than: numbers, sizes and times. docs/CONTROL_PLANE.md has them in a table. How many
//! requests may be under way together is in [`super::concurrency`].

use std::time::Duration;

/// Connections at a time; more wait in the kernel's backlog. Room for every node of the largest plan that agents watch,
/// each with a connection, or two as agents of earlier versions have, and then some.
pub(super) const CONNECTIONS: usize = 160 * 1024;

/// Connections at a time on which one certificate is shown. An agent has one or two; those of one that comes back again and
/// again over a network that drops them are there until they are idle for too long.
pub(super) const CONNECTIONS_OF_A_NODE: usize = 64;

/// How long a connection beyond that is kept for what it asks.
pub(super) const ONE_TOO_MANY: Duration = Duration::from_secs(2);

/// Requests at a time over all connections on which one certificate's key is shown, also those that wait for news.
pub(super) const REQUESTS_OF_A_NODE: usize = 32;

/// The same of an operator, whose token many programs may have.
pub(super) const REQUESTS_OF_AN_OPERATOR: usize = 256;

/// How long a connection may be idle. Three times the interval of an agent's heartbeat, so that an agent can keep its
/// connection.
pub(super) const IDLE_CONNECTION: Duration = Duration::from_secs(30);

/// The longest head of a request.
pub(super) const HEAD: usize = 16 * 1024;

/// How long a head may take from its first byte on.
pub(super) const HEAD_ARRIVES: Duration = Duration::from_secs(10);

/// Headers of a request.
pub(super) const HEADERS: usize = 100;

/// The largest body that is taken. A registration needs less than one KiB.
pub(super) const BODY: usize = 64 * 1024;

/// The largest report, the body of a heartbeat: 65,536 peers, each with counters of twenty digits.
pub(crate) const REPORT: usize = 28 * 1024 * 1024;

/// How long a body may take to arrive.
pub(super) const BODY_ARRIVES: Duration = Duration::from_secs(10);

/// How long a request waits for room, or for the registry. Longer than every deadline of the store, so that its own
/// message arrives where there is one.
pub(super) const ANSWER: Duration = Duration::from_secs(15);

/// Beyond so many bytes of answers that are being sent no large one is made.
pub(super) const ANSWERS_BEFORE_A_LARGE_ONE: usize = 64 << 20;

/// Beyond so many, none.
pub(super) const ANSWERS_BEFORE_ANY: usize = 96 << 20;

/// Answers that are made from what is read of the database, or sent as it is read, at a time. Each has some megabytes in
/// memory.
pub(super) const STREAMED_ANSWERS: usize = 4;

/// How long a client may take nothing of its answer.
pub(super) const STALL: Duration = Duration::from_secs(10);

/// And while others wait to be answered.
pub(super) const STALL_WHILE_OTHERS_WAIT: Duration = Duration::from_secs(2);
