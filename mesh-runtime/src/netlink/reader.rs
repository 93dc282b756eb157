//! Asks the kernel and waits for its answer, without a task that carries it: for a thread that may wait, as it does for
//! any system call.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use netlink_sys::Socket;
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::TimeVal,
};

use super::message::{
    NLMSG_DONE, NLMSG_ERROR, is_dump, is_interrupted, kind, refusal, sequence, set_sequence, split,
};

/// The kernel answers at once; this is for one that does not.
const PATIENCE: Duration = Duration::from_secs(2);

/// Requests that are sent at a time: few enough for their answers to fit a socket's buffer.
const AT_A_TIME: usize = 32;

/// The longest answer that is understood. The kernel packs those of a dump into 32 KiB where the reader has room for
/// them (`netlink_dump`, af_netlink.c); one alone may be longer, as that of an interface with hundreds of virtual functions.
const LONGEST: usize = 512 << 10;

/// A socket for questions to a part of the kernel, in the network namespace of the thread that opens it.
#[derive(Debug)]
pub(crate) struct Reader {
    /// One question is under way at a time.
    socket: Mutex<Conversation>,
}

#[derive(Debug)]
struct Conversation {
    socket: Socket,
    /// Number of the next request of many: an answer that comes too late is none to another.
    next: u32,
    /// What is received into. Of its pages only those are there that an answer has reached.
    buffer: Vec<u8>,
}

impl Conversation {
    /// The next datagram.
    fn receive(&mut self) -> io::Result<&[u8]> {
        self.buffer.clear();
        let length = self.socket.recv(&mut self.buffer, libc::MSG_TRUNC)?;
        if length > LONGEST {
            return Err(io::Error::other(format!(
                "the kernel's answer has {length} bytes, and {LONGEST} are the most"
            )));
        }
        Ok(&self.buffer)
    }
}

impl Reader {
    /// Opens one to a part of the kernel (`NETLINK_*`).
    ///
    /// # Errors
    ///
    /// `EPROTONOSUPPORT` where the kernel has no such part.
    pub(crate) fn of(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        let patience = TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
        setsockopt(&socket, ReceiveTimeout, &patience)?;
        Ok(Self {
            socket: Mutex::new(Conversation {
                socket,
                next: 0,
                buffer: Vec::with_capacity(LONGEST),
            }),
        })
    }

    fn converse(&self) -> std::sync::MutexGuard<'_, Conversation> {
        // Whoever panicked left at most answers behind, which `ask_each` knows by their numbers.
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and reads its answers. Returns whether nothing changed meanwhile.
    ///
    /// # Errors
    ///
    /// The kernel's refusal, no answer in time, or one that `take` does not understand.
    pub(crate) fn ask(
        &self,
        request: &[u8],
        mut take: impl FnMut(&[u8]) -> Option<()>,
    ) -> io::Result<bool> {
        let mut with = self.converse();
        with.socket.send(request, 0)?;
        let mut whole = true;
        loop {
            let mut rest = with.receive()?;
            while let Some((message, following)) = split(rest) {
                rest = following;
                whole &= !is_interrupted(message);
                match kind(message) {
                    Some(NLMSG_DONE) => return Ok(whole),
                    Some(NLMSG_ERROR) => return refusal(message).map_or(Ok(whole), Err),
                    _ => take(message).ok_or_else(misunderstood)?,
                }
                if !is_dump(request) {
                    return Ok(whole);
                }
            }
        }
    }

    /// Sends requests of which each has one answer, many in one system call, and gives `take` the place of
    /// each request and its answer, or the kernel's refusal.
    ///
    /// # Errors
    ///
    /// No answer in time, or one that `take` does not understand.
    pub(crate) fn ask_each(
        &self,
        requests: &mut [Vec<u8>],
        mut take: impl FnMut(usize, Result<&[u8], io::Error>) -> Option<()>,
    ) -> io::Result<()> {
        let mut with = self.converse();
        let mut first = 0;
        for chunk in requests.chunks_mut(AT_A_TIME) {
            let mut together = Vec::new();
            let requests = u32::try_from(chunk.len()).map_err(io::Error::other)?;
            let begin = with.next;
            with.next = begin.wrapping_add(requests);
            for (number, request) in (0_u32..).zip(chunk.iter_mut()) {
                set_sequence(request, begin.wrapping_add(number));
                together.extend_from_slice(request);
                together.resize(together.len().next_multiple_of(4), 0);
            }
            with.socket.send(&together, 0)?;
            let mut open = chunk.len();
            while open > 0 {
                let mut rest = with.receive()?;
                while let Some((message, following)) = split(rest) {
                    rest = following;
                    let number = sequence(message).ok_or_else(misunderstood)?;
                    let place = usize::try_from(number.wrapping_sub(begin));
                    let Some(place) = place.ok().filter(|place| *place < chunk.len()) else {
                        // To a request of which the answer was not waited for any longer.
                        continue;
                    };
                    let answer = match kind(message) {
                        Some(NLMSG_ERROR) => refusal(message).map_or(Ok(message), Err),
                        _ => Ok(message),
                    };
                    take(first + place, answer).ok_or_else(misunderstood)?;
                    open = open.saturating_sub(1);
                }
            }
            first += chunk.len();
        }
        Ok(())
    }

    /// Sends a transaction, of which the kernel acknowledges so many messages.
    ///
    /// # Errors
    ///
    /// The first refusal.
    pub(crate) fn commit(&self, transaction: &[u8], mut acknowledged: usize) -> io::Result<()> {
        let mut with = self.converse();
        with.socket.send(transaction, 0)?;
        while acknowledged > 0 {
            let mut rest = with.receive()?;
            while let Some((message, following)) = split(rest) {
                rest = following;
                acknowledged = acknowledged.saturating_sub(1);
                refusal(message).map_or(Ok(()), Err)?;
            }
        }
        Ok(())
    }
}

fn misunderstood() -> io::Error {
    io::Error::other("the kernel's answer cannot be understood")
}

#[cfg(test)]
mod tests {
    use netlink_sys::protocols::NETLINK_ROUTE;

    use super::*;
    use crate::netlink::message::{NLM_F_REQUEST, attribute_of, message};

    const RTM_GETROUTE: u16 = 26;
    const RTA_DST: u16 = 1;

    fn question(destination: &[u8]) -> Vec<u8> {
        let header = [libc::AF_INET as u8, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let destination = attribute_of(RTA_DST, destination);
        message(RTM_GETROUTE, NLM_F_REQUEST, &header, &destination)
    }

    #[test]
    fn of_many_requests_each_is_answered_in_its_place_also_those_that_are_refused() {
        let reader = Reader::of(NETLINK_ROUTE).unwrap();
        // Of the one kind the kernel knows a way; of the other, half an address, it does not hear.
        let mut requests: Vec<_> = (0..100_u8)
            .map(|number| match number % 3 {
                0 => question(&[127, 0]),
                _ => question(&[127, 0, 0, number]),
            })
            .collect();
        // An answer for which nobody waited any longer is none to these.
        let mut with = reader.converse();
        with.socket.send(&question(&[127, 0, 0, 1]), 0).unwrap();
        with.next = 7;
        drop(with);
        let mut answers = vec![None; requests.len()];
        reader
            .ask_each(&mut requests, |place, answer| {
                assert_eq!(answers[place], None);
                answers[place] = Some(answer.is_ok());
                Some(())
            })
            .unwrap();
        for (place, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer, Some(place % 3 != 0), "{place}");
        }
    }
}
