//! A clock for what daemons do every few seconds.
//!
//! Tokio keeps timers in wheels of 64 slots, and one that is due in five seconds wakes its thread up three times: as it
//! moves from the wheel of minutes to that of seconds, from there to that of milliseconds, and when it is due. On a host
//! on which nothing happens, that is most of what two daemons wake up for. A timer of the kernel's
//! (timerfd_create(2)) wakes once.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    time::Duration,
};

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

/// Ticks once every period. Ticks that nobody took are one.
#[derive(Debug)]
pub struct Ticker {
    timer: AsyncFd<Timer>,
    period: Duration,
}

/// A timer as Tokio wants it.
#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Ticker {
    /// Ticks every `period` from now on, for the first time after one. Must be called within a Tokio runtime with I/O
    /// enabled. A period of zero is one of a nanosecond.
    ///
    /// # Errors
    ///
    /// The kernel's answer: too many open files, or no memory.
    pub fn every(period: Duration) -> io::Result<Self> {
        Ok(Self {
            timer: timer(Expiration::Interval(shortest(period).into()))?,
            period,
        })
    }

    /// Begins anew: the next tick comes after a whole period.
    ///
    /// # Errors
    ///
    /// The kernel's answer, and the clock goes on as it did; none is known.
    pub fn restart(&mut self) -> io::Result<()> {
        let expiration = Expiration::Interval(shortest(self.period).into());
        let timer = &self.timer.get_ref().0;
        Ok(timer.set(expiration, TimerSetTimeFlags::empty())?)
    }

    /// Begins anew with another period: the next tick comes after one.
    ///
    /// # Errors
    ///
    /// As [`Self::restart`].
    pub fn restart_every(&mut self, period: Duration) -> io::Result<()> {
        self.period = period;
        self.restart()
    }

    /// Waits for the next tick. Cancel safe.
    pub async fn tick(&mut self) {
        expired(&self.timer).await;
    }
}

/// Waits once for so long, at the cost of a descriptor meanwhile. Where the kernel has none left, Tokio's clock has to
/// do. Cancel safe. Must be called within a Tokio runtime with I/O and time enabled.
pub async fn sleep(duration: Duration) {
    match timer(Expiration::OneShot(shortest(duration).into())) {
        Ok(timer) => expired(&timer).await,
        Err(_) => tokio::time::sleep(duration).await,
    }
}

/// With zero the kernel would never tell.
fn shortest(duration: Duration) -> Duration {
    duration.max(Duration::from_nanos(1))
}

fn timer(expiration: Expiration) -> io::Result<AsyncFd<Timer>> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
    timer.set(expiration, TimerSetTimeFlags::empty())?;
    // SAFETY: the descriptor is the timer's own, which is never exchanged.
    Ok(unsafe { AsyncFd::register(Timer(timer)) }?)
}

async fn expired(timer: &AsyncFd<Timer>) {
    let mut expirations = [0; 8];
    loop {
        let Ok(mut ready) = timer.readable().await else {
            // The Tokio runtime is at its end, and this task with it.
            return std::future::pending().await;
        };
        let read =
            ready.try_io(|timer| Ok(nix::unistd::read(&timer.get_ref().0, &mut expirations)?));
        if read.is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, future::poll_fn, pin::pin, task::Poll, time::Instant};

    use super::*;

    const PERIOD: Duration = Duration::from_millis(40);

    fn waits() -> u64 {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let count = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.unwrap().trim().parse().unwrap()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_tick_comes_after_each_period() {
        let started = Instant::now();
        let mut ticker = Ticker::every(PERIOD).unwrap();
        ticker.tick().await;
        ticker.tick().await;
        assert!(started.elapsed() >= 2 * PERIOD);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn ticks_that_nobody_took_are_one() {
        let period = Duration::from_secs(1);
        let mut ticker = Ticker::every(period).unwrap();
        std::thread::sleep(period * 9 / 4);
        ticker.tick().await;
        let mut next = pin!(ticker.tick());
        let polled = poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await;
        assert!(polled.is_pending());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_clock_that_begins_anew_ticks_a_whole_period_later() {
        let mut ticker = Ticker::every(PERIOD).unwrap();
        std::thread::sleep(2 * PERIOD);
        let restarted = Instant::now();
        ticker.restart().unwrap();
        ticker.tick().await;
        assert!(restarted.elapsed() >= PERIOD);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_sleep_takes_its_time_and_wakes_its_thread_once() {
        // Longer than one turn of Tokio's smallest wheel.
        let duration = Duration::from_millis(200);
        let before = (Instant::now(), waits());
        sleep(duration).await;
        assert!(waits() - before.1 <= 1);
        assert!(before.0.elapsed() >= duration);
        sleep(Duration::ZERO).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_thread_waits_no_more_than_once_for_each_tick() {
        let mut ticker = Ticker::every(PERIOD).unwrap();
        ticker.tick().await;
        let before = waits();
        for _ in 0..5 {
            ticker.tick().await;
        }
        assert!(waits() - before <= 5);
    }
}
