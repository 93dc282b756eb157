//! Whether somebody looks at what becomes of single packets.

/// The only entry of the `watch` map: what the programs tell while somebody looks. All zeros while nobody does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Until when they tell, in nanoseconds of `CLOCK_MONOTONIC`; 0 while nobody looks. The runtime puts it off while
    /// somebody does, so that it ends by itself once that is gone.
    pub until_ns: u64,
    /// [`WATCH_CARRIED`], or 0 for drops alone.
    pub flags: u32,
    /// How many drops, and how many other packets, a CPU tells of in each window of 2^[`WATCH_WINDOW_SHIFT`] ns.
    pub budget: u32,
    /// Network address of the one peer whose packets are told of; zeros for those of all. Drops are told of whoever's:
    /// whom they come from is not always known.
    pub subnet: [u8; 4],
    /// Zero.
    pub pad: [u8; 4],
}

/// Flag of a [`Watch`]: what is carried, and what is left to the kernel, is told as well.
pub const WATCH_CARRIED: u32 = 1;

/// Length of the windows of [`Watch::budget`]: 2^27 ns, 134 ms.
pub const WATCH_WINDOW_SHIFT: u32 = 27;

/// The only entry of the `watch_stats` map, one per CPU: what was told, and what was not.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchStats {
    /// Number of the window that the next two count in.
    pub window: u64,
    /// Drops told of in this window.
    pub drops: u32,
    /// Other packets told of in this window.
    pub others: u32,
    /// Packets that were not told of because the window's budget was spent.
    pub over_budget: u64,
    /// Packets that were not told of because the ring buffer was full.
    pub lost: u64,
    /// What is being told of: a program's note to itself. What comes out of a map is any number to the kernel's verifier, which
    /// otherwise looks at the telling once for each thing that could be told.
    pub telling: u64,
}
