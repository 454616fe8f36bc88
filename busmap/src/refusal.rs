//! Why a change was refused: [`Refusal`], and with the device given back, [`Refused`].

use core::fmt;

use crate::{
    bus::{BusId, Handlers},
    device::{Device, DeviceId},
    span::Span,
};

/// Why a change was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Some of the addresses would belong to two devices, or twice to one.
    Overlap {
        /// What was asked for.
        wanted: Span,
        /// Who owns some of it, or was given some of it by the same batch before.
        owner: DeviceId,
        /// What the owner owns.
        owned: Span,
    },
    /// No device of this id is registered: it was removed, or is another registry's.
    Unknown {
        /// Who was asked for.
        id: DeviceId,
    },
    /// The device does not own these addresses, or of [`remap`](crate::Batch::remap) none, on
    /// this bus.
    NotMapped {
        /// Which device.
        id: DeviceId,
        /// On which bus.
        bus: BusId,
    },
    /// The device has no handler for this bus.
    NoHandler {
        /// Which device.
        id: DeviceId,
        /// For which bus.
        bus: BusId,
    },
    /// The devices are withdrawn for the moment, by a front end that replaces them.
    Withdrawn,
    /// There was no memory for the new tables.
    NoMemory,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap {
                wanted,
                owner,
                owned,
            } => write!(f, "{wanted} overlaps {owned} of device {owner}"),
            Self::Unknown { id } => write!(f, "there is no device {id}"),
            Self::NotMapped { id, bus } => {
                write!(f, "device {id} does not own these addresses on bus {bus}")
            }
            Self::NoHandler { id, bus } => write!(f, "device {id} has no handler for bus {bus}"),
            Self::Withdrawn => f.write_str("the devices are withdrawn"),
            Self::NoMemory => f.write_str("no memory for the new tables"),
        }
    }
}

impl core::error::Error for Refusal {}

/// A device that was not added, given back, and why.
pub struct Refused<F: Handlers> {
    /// The device.
    pub device: Device<F>,
    /// Why.
    pub refusal: Refusal,
}

impl<F: Handlers> fmt::Debug for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("refusal", &self.refusal)
            .finish_non_exhaustive()
    }
}

impl<F: Handlers> fmt::Display for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device not added: {}", self.refusal)
    }
}

impl<F: Handlers> core::error::Error for Refused<F> {}

impl<F: Handlers> From<Refused<F>> for Refusal {
    /// Why; the device is dropped.
    fn from(refused: Refused<F>) -> Self {
        refused.refusal
    }
}
