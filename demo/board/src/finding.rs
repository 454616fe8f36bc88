//! A wrong value.

use core::fmt;

/// A value that was read and is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// The address or the port.
    pub address: u32,
    /// The value that was read.
    pub got: u32,
    /// The expected value.
    pub expected: u32,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            got,
            expected,
        } = self;
        let bus = match u16::try_from(*address) {
            Ok(_) => "port",
            Err(_) => "MMIO",
        };
        write!(
            f,
            "{bus} {address:#x} read as {got:#x}, not as {expected:#x}"
        )
    }
}
