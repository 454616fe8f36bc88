//! [`Mapping`]: a span of a device on a bus.

use core::fmt;

use crate::{bus::BusId, device::DeviceId, span::Span};

/// A span of a device on a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// The device.
    pub id: DeviceId,
    /// The bus.
    pub bus: BusId,
    /// The addresses.
    pub span: Span,
}

impl fmt::Display for Mapping {
    /// Such as `0x3f8..=0x3ff of device #1 on bus port`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, bus, span } = self;
        write!(f, "{span} of device {id} on bus {bus}")
    }
}
