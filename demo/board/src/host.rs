//! The host, as the board needs it.

/// The host's clock, and whether the caller acts for a guest.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Nanoseconds since a fixed time.
    pub nanos: fn() -> u64,
    /// Waits for this number of nanoseconds, or a little longer.
    pub pause: fn(u64),
    /// Whether the caller makes an access of a guest. An interrupt handler makes its own accesses.
    pub in_guest_access: fn() -> bool,
}
