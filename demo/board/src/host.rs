//! The host, as the board needs it.

/// The host's clock, and its knowledge of the caller.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Nanoseconds since a fixed time.
    pub nanos: fn() -> u64,
    /// Waits for this number of nanoseconds, or a little longer.
    pub pause: fn(u64),
    /// Whether the caller makes a guest's access, and not its own access, as an interrupt handler does.
    pub in_guest_access: fn() -> bool,
}
