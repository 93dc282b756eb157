//! Memory that a rush needed is given back to the kernel.
//!
//! When ten thousand agents register at the same moment, their requests take some hundred megabytes for a few seconds.
//! What they free lies between what stays, and the C library gives back only what lies at the end of its heap, unless
//! it is told to look.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Between two looks. A rush is over within seconds; what it left may stay a little longer.
const INTERVAL: Duration = Duration::from_secs(5);

/// Less than this is not worth the work.
const WORTH_IT: u64 = 2 << 20;

/// What a look shows, in bytes.
#[derive(Debug, Clone, Copy)]
struct Heap {
    /// In use.
    allocated: u64,
    /// Held in memory.
    resident: u64,
}

/// What is held and not used; and how much of that the last attempt could not give back.
#[derive(Debug, Default)]
struct Slack {
    left: u64,
}

impl Slack {
    /// Whether to give back: there is markedly more than what did not go the last time, or the attempt would be
    /// repeated for ever.
    fn is_worth_it(&self, heap: Heap) -> bool {
        slack(heap) >= self.left + WORTH_IT
    }

    /// The heap after an attempt.
    fn gave_back(&mut self, heap: Heap) {
        self.left = slack(heap);
    }
}

fn slack(heap: Heap) -> u64 {
    heap.resident.saturating_sub(heap.allocated)
}

/// Gives back what is worth it, until `stop`.
pub(crate) async fn give_back(stop: CancellationToken) {
    let mut slack = Slack::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        // It locks the heap of one thread after the other for some milliseconds, so not on a thread that serves.
        let looked = tokio::task::spawn_blocking(move || {
            if let Some(heap) = libc::look()
                && slack.is_worth_it(heap)
            {
                libc::trim();
                libc::look().inspect(|heap| slack.gave_back(*heap));
            }
            slack
        });
        // Fails only when the process ends.
        let Ok(looked) = looked.await else { return };
        slack = looked;
    }
}

/// glibc's allocator. Others have their own ways.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod libc {
    use super::Heap;

    pub(super) fn look() -> Option<Heap> {
        // SAFETY: it only reads the allocator's books, under its locks.
        let books = unsafe { ::libc::mallinfo2() };
        // Both in pages: all that is resident, and what of it is of files (proc_pid_statm(5)).
        let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
        let mut fields = statm.split(' ').skip(1);
        let mut next = || fields.next()?.parse::<u64>().ok();
        let (resident, of_files) = (next()?, next()?);
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
        Some(Heap {
            allocated: u64::try_from(books.uordblks + books.hblkhd).ok()?,
            resident: resident.checked_sub(of_files)? * u64::try_from(page).ok()?,
        })
    }

    pub(super) fn trim() {
        // SAFETY: it touches only memory that is free, under the allocator's locks.
        unsafe { ::libc::malloc_trim(0) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod libc {
    use super::Heap;

    pub(super) fn look() -> Option<Heap> {
        None
    }

    pub(super) fn trim() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heap(allocated: u64, resident: u64) -> Heap {
        Heap {
            allocated: allocated << 20,
            resident: resident << 20,
        }
    }

    #[test]
    fn what_a_rush_left_is_given_back_once_and_not_looked_for_again() {
        let mut slack = Slack::default();
        assert!(!slack.is_worth_it(heap(10, 11)));
        assert!(slack.is_worth_it(heap(40, 200)));
        // The rest lies between what is in use.
        slack.gave_back(heap(40, 60));
        assert!(!slack.is_worth_it(heap(40, 61)));
        assert!(!slack.is_worth_it(heap(50, 71)));
        assert!(slack.is_worth_it(heap(40, 90)));
        // More in use than resident: part of it was never touched.
        assert!(!slack.is_worth_it(heap(100, 60)));
    }

    /// How many of these addresses are in pages that are resident (proc_pid_pagemap(5)).
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn resident(addresses: &[usize]) -> usize {
        use std::os::unix::fs::FileExt as _;
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
        let page = usize::try_from(page.unwrap().unwrap()).unwrap();
        let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
        let is_resident = |address: &&usize| {
            let mut entry = [0; 8];
            let at = u64::try_from(*address / page * 8).unwrap();
            pagemap.read_exact_at(&mut entry, at).unwrap();
            u64::from_ne_bytes(entry) >> 63 == 1
        };
        addresses.iter().filter(is_resident).count()
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn freed_memory_that_lies_between_used_memory_goes_back() {
        const BLOCK: usize = 32 << 10;
        let blocks: Vec<Vec<u8>> = (0..512).map(|_| vec![1; BLOCK]).collect();
        // Every second one stays, so that the heap cannot shrink at its end.
        let mut number = 0;
        let (stay, go): (Vec<_>, Vec<_>) = blocks.into_iter().partition(|_| {
            number += 1;
            number % 2 == 0
        });
        let freed: Vec<usize> = go.iter().map(|it| it.as_ptr().addr() + BLOCK / 2).collect();
        assert_eq!(resident(&freed), freed.len());
        drop(go);
        assert!(libc::look().unwrap().allocated > 0);
        libc::trim();
        // Some may be in use again, by tests beside this one.
        let left = resident(&freed);
        assert!(left < freed.len() / 2, "{left} of {}", freed.len());
        drop(stay);
    }
}
