//! [`Direction`]: whether an access reads or writes.

/// Whether an access reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the device to the guest.
    Read,
    /// From the guest to the device.
    Write,
}
