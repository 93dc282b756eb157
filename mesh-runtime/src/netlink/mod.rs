//! The connection over which the kernel is read and changed; [`reader`] for questions that need no task.

pub(crate) mod interface_name;
pub(crate) mod message;
pub(crate) mod reader;

use std::{io, time::Duration};

use futures_util::{Stream, TryStreamExt as _};
use netlink_sys::{AsyncSocket as _, protocols::NETLINK_ROUTE};
use rtnetlink::Handle;
use tokio::task::JoinHandle;

use reader::Reader;

/// The kernel answers at once, unless somebody holds its network configuration lock.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Why a request to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    /// The kernel refused it.
    #[error("{}", io::Error::from_raw_os_error(*errno))]
    Refused {
        /// Its reason.
        errno: i32,
    },
    /// No answer in time.
    #[error("the kernel did not answer within {} s", DEADLINE.as_secs())]
    Deadline,
    /// The socket is gone, and with it the connection.
    #[error("the netlink connection is closed")]
    Closed,
    /// An answer that does not fit the question.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
}

impl NetlinkError {
    /// The kernel's reason, if it gave one.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno } => Some(*errno),
            _ => None,
        }
    }
}

impl From<rtnetlink::Error> for NetlinkError {
    fn from(error: rtnetlink::Error) -> Self {
        match error {
            rtnetlink::Error::NetlinkError(message) => Self::Refused {
                errno: -message.raw_code(),
            },
            rtnetlink::Error::RequestFailed => Self::Closed,
            other => Self::Unexpected(other.to_string()),
        }
    }
}

/// A netlink connection of this process, in its network namespace.
#[derive(Debug)]
pub(crate) struct Netlink {
    pub(crate) handle: Handle,
    /// The socket's port number, which the kernel's notifications carry when one of our
    /// requests caused them.
    pub(crate) port: u32,
    /// For questions that need no task. It is kept: a process may run out of descriptors.
    pub(crate) reader: Reader,
    connection: JoinHandle<()>,
}

impl Netlink {
    /// Opens a connection. Must be called on the runtime that is to carry it.
    pub(crate) fn connect() -> io::Result<Self> {
        // With strict checking (Linux 4.20) the kernel filters dumps; without, it sends
        // more, and the reader filters.
        let (mut connection, handle, _) = rtnetlink::new_connection_with_strict_check()
            .or_else(|_| rtnetlink::new_connection())?;
        let port = connection
            .socket_mut()
            .socket_mut()
            .bind_auto()?
            .port_number();
        Ok(Self {
            handle,
            port,
            reader: Reader::of(NETLINK_ROUTE)?,
            connection: tokio::spawn(connection),
        })
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.connection.is_finished()
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Waits for a request's answer, not for ever.
pub(crate) async fn answer<T>(
    request: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, NetlinkError> {
    match tokio::time::timeout(DEADLINE, request).await {
        Ok(result) => result.map_err(NetlinkError::from),
        Err(_) => Err(NetlinkError::Deadline),
    }
}

/// Collects what `read` makes of each message of a dump.
pub(crate) async fn dump<M, T>(
    messages: impl Stream<Item = Result<M, rtnetlink::Error>>,
    read: impl Fn(&M) -> Option<T>,
) -> Result<Vec<T>, NetlinkError> {
    answer(messages.try_fold(Vec::new(), |mut list, message| {
        list.extend(read(&message));
        std::future::ready(Ok(list))
    }))
    .await
}
