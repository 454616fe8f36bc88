//! The host of the board: a process.

use std::{
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use board::Host;

/// All times are relative to this.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The process.
pub(crate) const HOST: Host = Host {
    nanos,
    pause: |nanos| thread::sleep(Duration::from_nanos(nanos)),
    in_guest_access: || true,
};

/// Nanoseconds since the first call.
pub(crate) fn nanos() -> u64 {
    EPOCH.elapsed().as_nanos() as u64
}
