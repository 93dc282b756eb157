//! What a journal tells, read from its beginning.

use std::{
    io::{self, BufRead},
    sync::Arc,
};

use crate::{
    Change, Pool,
    record::{self, Header, Record},
};

#[cfg(test)]
pub(crate) mod tests;

/// What a journal told.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// The pool.
    pub(crate) pool: Pool,
    /// How many bytes of the file are whole lines.
    pub(crate) whole: u64,
    /// How many bytes follow them: of a line that was never finished.
    pub(crate) torn: u64,
    /// What was wrong first, and how many lines were.
    pub(crate) damage: Option<(String, u64)>,
    /// The version, if it is none that this program reads: nothing else was read then.
    pub(crate) version: Option<String>,
    /// Whether something ended with its life, so that the file tells of more than there is.
    pub(crate) ended: bool,
}

/// Reads a journal in this life.
pub(crate) fn replay(mut file: impl BufRead, life: &str) -> io::Result<Replay> {
    let mut replay = Replay::default();
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let length = file.read_until(b'\n', &mut line)? as u64;
        let Some(text) = line.strip_suffix(b"\n") else {
            replay.torn = length;
            break;
        };
        replay.whole += length;
        let header = match number {
            1 => record::read_header(text),
            _ => Header::Damaged,
        };
        match header {
            Header::Ours => {}
            Header::Version(version) => {
                replay.version = Some(version);
                return Ok(replay);
            }
            Header::Damaged => replay.line(text, number, life),
        }
    }
    replay.ended |= !replay.pool.end_lives(life).is_empty();
    Ok(replay)
}

impl Replay {
    fn line(&mut self, text: &[u8], number: u64, life: &str) {
        let error = match record::decode(text) {
            // The first is no header, or it would not be here.
            Ok(record) if number > 1 => return self.record(record, number, life),
            Ok(_) => "the header is missing".to_owned(),
            Err(error) => error.to_string(),
        };
        self.damaged(number, error);
        let parts = record::part(text);
        for part in parts {
            if let Ok(record) = record::decode(part) {
                self.record(record, number, life);
            }
        }
    }

    fn record(&mut self, record: Record, number: u64, life: &str) {
        let subnet = record.subnet.map(Change::Subnet);
        let released = record.released.map(Change::Released);
        let leased = record.lease.map(|mut lease| {
            if lease.endpoint.is_some() && record.life.as_deref() != Some(life) {
                lease.endpoint = None;
                self.ended = true;
            }
            Change::Leased(Arc::new(lease))
        });
        for change in subnet.into_iter().chain(leased).chain(released) {
            if !self.pool.restore(change) {
                let reason = "it tells of what no pool can have".to_owned();
                self.damaged(number, reason);
            }
        }
    }

    fn damaged(&mut self, number: u64, reason: String) {
        let first = || (format!("line {number}: {reason}"), 0);
        self.damage.get_or_insert_with(first).1 += 1;
    }
}
