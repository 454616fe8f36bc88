//! The host, as the board needs it.

/// The host's clock, and what it knows of the caller.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Nanoseconds since some moment.
    pub nanos: fn() -> u64,
    /// Waits for this number of nanoseconds, or a little longer.
    pub pause: fn(u64),
    /// Whether the caller makes an access of a guest, and not one of its own, as an interrupt handler does.
    pub in_guest_access: fn() -> bool,
}
