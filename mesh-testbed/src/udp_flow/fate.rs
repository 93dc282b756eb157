//! What became of each datagram of a flow.

use std::time::{Duration, Instant};

/// A run of consecutive datagrams of which none arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// When the first of them was sent.
    pub from: Instant,
    /// When the next one that did arrive was sent; the end of the flow if there was none.
    pub until: Instant,
    /// How many they are, those that the sender's kernel refused included.
    pub packets: u64,
}

impl Outage {
    /// From the first datagram that did not arrive to the next one that did.
    pub fn duration(&self) -> Duration {
        self.until.saturating_duration_since(self.from)
    }
}

/// What became of the datagrams of a flow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UdpFlowReport {
    /// Handed to the kernel by the sender.
    pub sent: u64,
    /// Different ones that arrived.
    pub received: u64,
    /// Arrivals of one that had arrived before.
    pub duplicates: u64,
    /// Arrivals behind one with a higher number.
    pub reordered: u64,
    /// Arrivals with a changed payload.
    pub corrupted: u64,
    /// Sends that the kernel refused, e.g. for want of a route. Not counted as sent.
    pub refused: u64,
    /// The longest run of consecutive numbers of which none arrived.
    pub longest_gap: u64,
    /// Every run of datagrams that did not arrive, in order.
    pub outages: Vec<Outage>,
}

impl UdpFlowReport {
    /// Sent and never arrived.
    pub fn lost(&self) -> u64 {
        self.sent - self.received
    }
}

#[derive(Debug)]
pub(super) struct Sent {
    /// When each number was sent.
    pub(super) times: Vec<Instant>,
    pub(super) refused: Vec<u64>,
    pub(super) ended: Instant,
}

impl Sent {
    fn numbers(&self) -> u64 {
        self.times.len() as u64
    }
}

/// Each datagram: its number, the number's complement, then a pattern of the number.
pub(super) fn datagram(number: u64, payload: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.max(16));
    bytes.extend(number.to_be_bytes());
    bytes.extend((!number).to_be_bytes());
    let pattern = number.to_le_bytes()[0];
    bytes.resize(payload.max(16), pattern);
    bytes
}

fn number_of(datagram: &[u8]) -> Option<u64> {
    let word = |at: usize| {
        Some(u64::from_be_bytes(
            datagram.get(at..at + 8)?.try_into().ok()?,
        ))
    };
    let number = word(0)?;
    let pattern = number.to_le_bytes()[0];
    let intact = word(8)? == !number && datagram[16..].iter().all(|byte| *byte == pattern);
    intact.then_some(number)
}

/// What the receiver saw, by number.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    pub(super) seen: Vec<bool>,
    duplicates: u64,
    reordered: u64,
    corrupted: u64,
}

impl Arrivals {
    /// Notes one; [`UdpFlow::arrived`] is the length of `seen`.
    pub(super) fn note(&mut self, datagram: &[u8], max_packets: u64) {
        let Some(number) = number_of(datagram).filter(|number| *number < max_packets) else {
            self.corrupted += 1;
            return;
        };
        let Ok(index) = usize::try_from(number) else {
            self.corrupted += 1;
            return;
        };
        if index >= self.seen.len() {
            self.seen.resize(index + 1, false);
        } else if self.seen[index] {
            self.duplicates += 1;
        } else {
            self.reordered += 1;
        }
        self.seen[index] = true;
    }
}

pub(super) fn report(sent: &Sent, arrivals: &Arrivals) -> UdpFlowReport {
    let arrived = |number: &u64| {
        usize::try_from(*number)
            .ok()
            .and_then(|index| arrivals.seen.get(index))
            .is_some_and(|seen| *seen)
    };
    let refused: std::collections::BTreeSet<u64> = sent.refused.iter().copied().collect();
    let mut gap = 0;
    let mut longest_gap = 0;
    for number in (0..sent.numbers()).filter(|number| !refused.contains(number)) {
        gap = if arrived(&number) { 0 } else { gap + 1 };
        longest_gap = longest_gap.max(gap);
    }
    UdpFlowReport {
        sent: sent.numbers() - refused.len() as u64,
        received: arrivals.seen.iter().filter(|seen| **seen).count() as u64,
        duplicates: arrivals.duplicates,
        reordered: arrivals.reordered,
        corrupted: arrivals.corrupted,
        refused: refused.len() as u64,
        longest_gap,
        outages: outages(sent, &arrivals.seen),
    }
}

/// Runs of numbers that did not arrive, whether lost or refused.
fn outages(sent: &Sent, seen: &[bool]) -> Vec<Outage> {
    let mut outages = Vec::new();
    let mut open: Option<Outage> = None;
    for (number, &time) in sent.times.iter().enumerate() {
        if seen.get(number).copied().unwrap_or(false) {
            outages.extend(open.take().map(|outage| Outage {
                until: time,
                ..outage
            }));
        } else {
            open.get_or_insert(Outage {
                from: time,
                until: sent.ended,
                packets: 0,
            })
            .packets += 1;
        }
    }
    outages.extend(open);
    outages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(numbers: &[u64]) -> Arrivals {
        let mut arrivals = Arrivals::default();
        for number in numbers {
            arrivals.note(&datagram(*number, 40), 100);
        }
        arrivals
    }

    #[test]
    fn every_datagram_is_accounted_for() {
        let start = Instant::now();
        let at = |number: u64| start + Duration::from_millis(number);
        let sent = Sent {
            times: (0..8).map(at).collect(),
            refused: vec![6],
            ended: at(8),
        };
        // 2, 3 and 7 are lost, 6 was never sent, 4 comes twice, 1 comes late.
        let report = report(&sent, &arrivals(&[0, 4, 1, 4, 5]));
        let expected = UdpFlowReport {
            sent: 7,
            received: 4,
            duplicates: 1,
            reordered: 1,
            corrupted: 0,
            refused: 1,
            longest_gap: 2,
            outages: vec![
                Outage {
                    from: at(2),
                    until: at(4),
                    packets: 2,
                },
                Outage {
                    from: at(6),
                    until: at(8),
                    packets: 2,
                },
            ],
        };
        assert_eq!(report, expected);
        assert_eq!(report.lost(), 3);
    }

    #[test]
    fn one_changed_byte_anywhere_is_noticed() {
        for at in 0..40 {
            let mut bytes = datagram(5, 40);
            bytes[at] ^= 1;
            assert_eq!(number_of(&bytes), None, "byte {at}");
        }
    }
}
