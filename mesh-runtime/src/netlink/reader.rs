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
    split_mut,
};

/// The kernel answers at once; this is for one that does not.
const PATIENCE: Duration = Duration::from_secs(2);

/// Requests that are sent at a time: few enough for their answers to fit a socket's buffer.
const AT_A_TIME: usize = 32;

/// Room for what the kernel sends at once: of a dump it packs up to 32 KiB, if the reader has room for them
/// (`netlink_dump`, af_netlink.c), and no single answer that is asked for here comes near that.
const LONGEST: usize = 48 << 10;

/// A socket for questions to a part of the kernel, in the network namespace of the thread that opens it.
#[derive(Debug)]
pub(crate) struct Reader {
    /// One question is under way at a time.
    socket: Mutex<Conversation>,
}

#[derive(Debug)]
struct Conversation {
    socket: Socket,
    /// Number of the next request: what still comes of an earlier one is no answer to it.
    next: u32,
    /// What is received into.
    buffer: Vec<u8>,
}

impl Conversation {
    /// Numbers messages that follow each other, sends them at once, and returns their numbers.
    fn send(&mut self, messages: &mut [u8]) -> io::Result<Numbers> {
        let first = self.next;
        let mut rest = &mut *messages;
        while let Some((message, following)) = split_mut(rest) {
            set_sequence(message, self.next);
            self.next = self.next.wrapping_add(1);
            rest = following;
        }
        self.socket.send(messages, 0)?;
        Ok(Numbers {
            first,
            count: self.next.wrapping_sub(first),
        })
    }

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
        // Whoever panicked left at most answers behind, which the next knows by their numbers.
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
        let asked = with.send(&mut request.to_vec())?;
        let mut whole = true;
        loop {
            let mut rest = with.receive()?;
            while let Some((message, following)) = split(rest) {
                rest = following;
                if asked.place(message).is_none() {
                    continue;
                }
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
        requests: &[Vec<u8>],
        mut take: impl FnMut(usize, Result<&[u8], io::Error>) -> Option<()>,
    ) -> io::Result<()> {
        let mut with = self.converse();
        let mut first = 0;
        for chunk in requests.chunks(AT_A_TIME) {
            let mut together = Vec::new();
            for request in chunk {
                together.extend_from_slice(request);
                together.resize(together.len().next_multiple_of(4), 0);
            }
            let asked = with.send(&mut together)?;
            let mut open = chunk.len();
            while open > 0 {
                let mut rest = with.receive()?;
                while let Some((message, following)) = split(rest) {
                    rest = following;
                    let Some(place) = asked.place(message) else {
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
        let sent = with.send(&mut transaction.to_vec())?;
        while acknowledged > 0 {
            let mut rest = with.receive()?;
            while let Some((message, following)) = split(rest) {
                rest = following;
                if sent.place(message).is_none() {
                    continue;
                }
                acknowledged = acknowledged.saturating_sub(1);
                refusal(message).map_or(Ok(()), Err)?;
            }
        }
        Ok(())
    }
}

/// The numbers of messages that were sent at once.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    first: u32,
    count: u32,
}

impl Numbers {
    /// The place of the message that this one answers; `None` if it is what an earlier one is still answered, which was not
    /// waited for to its end.
    fn place(self, answer: &[u8]) -> Option<usize> {
        let place = sequence(answer)?.wrapping_sub(self.first);
        (place < self.count).then_some(usize::try_from(place).ok()?)
    }
}

fn misunderstood() -> io::Error {
    io::Error::other("the kernel's answer cannot be understood")
}

#[cfg(test)]
mod tests {
    use netlink_sys::protocols::NETLINK_ROUTE;

    use super::*;
    use crate::netlink::message::{HEADER_LEN, NLM_F_REQUEST, attribute, attribute_of, message};

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
        let requests: Vec<_> = (0..100_u8)
            .map(|number| match number % 3 {
                0 => question(&[127, 0]),
                _ => question(&[127, 0, 0, number]),
            })
            .collect();
        reader.converse().send(&mut question(&[127, 0])).unwrap();
        let mut answers = vec![None; requests.len()];
        reader
            .ask_each(&requests, |place, answer| {
                assert_eq!(answers[place], None);
                answers[place] = Some(answer.is_ok());
                Some(())
            })
            .unwrap();
        for (place, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer, Some(place % 3 != 0), "{place}");
        }
    }

    #[test]
    fn what_still_comes_of_an_earlier_question_is_no_answer_to_this_one() {
        let reader = Reader::of(NETLINK_ROUTE).unwrap();
        let mut destination = None;
        for _ in 0..3 {
            // Refused, and nobody waits for it.
            reader.converse().send(&mut question(&[127, 0])).unwrap();
        }
        let taken = reader.ask(&question(&[127, 0, 0, 9]), |answer| {
            // `nlmsghdr` and `rtmsg`, as long as `question` makes it.
            let value = attribute(answer.get(HEADER_LEN + 12..)?, RTA_DST)?;
            destination = Some(value.to_vec());
            Some(())
        });
        assert!(taken.unwrap());
        assert_eq!(destination.as_deref(), Some(&[127, 0, 0, 9][..]));
        // Three messages are refused, and the first refusal ends the wait for all.
        let refused = |reader: &Reader| {
            reader.commit(
                &[
                    question(&[127, 0]),
                    question(&[127, 0]),
                    question(&[127, 0]),
                ]
                .concat(),
                3,
            )
        };
        assert!(refused(&reader).is_err());
        assert!(
            reader
                .ask(&question(&[127, 0, 0, 9]), |_| Some(()))
                .unwrap()
        );
    }
}
