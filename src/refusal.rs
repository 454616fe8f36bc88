//! Why a change of the registry was refused.

use core::fmt;

use ax_errno::AxError;
use busmap::{DeviceId, Span};

use crate::sync::Arc;

/// Why a change of the registry was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The range holds no address.
    Empty {
        /// Where the range would start.
        at: usize,
    },
    /// The range ends below its start, so it would have to wrap around the end of the bus.
    ///
    /// MMIO ranges are half-open, so this is also what becomes of one that means to own the address
    /// `usize::MAX`.
    Wrapping {
        /// The start that the range gave.
        start: usize,
        /// The end that the range gave, in the bus's own terms (exclusive on MMIO).
        end: usize,
    },
    /// Another device owns some of the addresses.
    Overlap {
        /// What was asked for.
        wanted: Span,
        /// Who owns some of it.
        owner: DeviceId,
        /// What the owner owns.
        owned: Span,
    },
    /// No device of this id is registered on the bus in question: it was removed, or never there.
    Unknown {
        /// Who was asked for.
        id: DeviceId,
    },
    /// The device does not own the range or, if it is to be moved, owns none at the moment.
    NotMapped {
        /// Who was asked for.
        id: DeviceId,
    },
    /// The device gave another range each time that it was asked.
    Restless {
        /// Which device.
        id: DeviceId,
    },
    /// There was no memory for the new table.
    NoMemory,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { at } => write!(f, "the range at {at:#x} is empty"),
            Self::Wrapping { start, end } => {
                write!(
                    f,
                    "the range from {start:#x} to {end:#x} wraps around the end of the bus"
                )
            }
            Self::Overlap {
                wanted,
                owner,
                owned,
            } => write!(f, "{wanted} overlaps {owned} of device {owner}"),
            Self::Unknown { id } => write!(f, "there is no device {id}"),
            Self::NotMapped { id } => write!(f, "device {id} does not own the range"),
            Self::Restless { id } => write!(f, "device {id} gives another range each time"),
            Self::NoMemory => f.write_str("no memory for the new table"),
        }
    }
}

impl core::error::Error for Refusal {}

impl From<busmap::Refusal> for Refusal {
    fn from(refusal: busmap::Refusal) -> Self {
        match refusal {
            busmap::Refusal::Overlap {
                wanted,
                owner,
                owned,
            } => Self::Overlap {
                wanted,
                owner,
                owned,
            },
            // It is on another bus.
            busmap::Refusal::Unknown { id } | busmap::Refusal::NoHandler { id, .. } => {
                Self::Unknown { id }
            }
            busmap::Refusal::NotMapped { id, .. } => Self::NotMapped { id },
            // Devices are withdrawn still only if there was no memory to put them back.
            busmap::Refusal::Withdrawn | busmap::Refusal::NoMemory => Self::NoMemory,
            other => {
                debug_assert!(false, "{other}");
                Self::NoMemory
            }
        }
    }
}

impl<F: busmap::Handlers> From<busmap::Refused<F>> for Refusal {
    /// Why; the device is dropped.
    fn from(refused: busmap::Refused<F>) -> Self {
        refused.refusal.into()
    }
}

impl From<Refusal> for AxError {
    /// `InvalidInput` for a bad range, `AlreadyExists` for an overlap, `NotFound` for an unknown id or
    /// a range that is not the device's, `ResourceBusy` for a restless device, `NoMemory`.
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Empty { .. } | Refusal::Wrapping { .. } => Self::InvalidInput,
            Refusal::Overlap { .. } => Self::AlreadyExists,
            Refusal::Unknown { .. } | Refusal::NotMapped { .. } => Self::NotFound,
            Refusal::Restless { .. } => Self::ResourceBusy,
            Refusal::NoMemory => Self::NoMemory,
        }
    }
}

/// A device that was not added, and why.
pub struct AddError<D: ?Sized> {
    device: Arc<D>,
    refusal: Refusal,
}

impl<D: ?Sized> AddError<D> {
    pub(crate) fn new(device: Arc<D>, refusal: Refusal) -> Self {
        Self { device, refusal }
    }

    /// Why it was refused.
    pub fn refusal(&self) -> Refusal {
        self.refusal
    }

    /// The device, given back.
    pub fn into_device(self) -> Arc<D> {
        self.device
    }
}

impl<D: ?Sized> fmt::Debug for AddError<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddError")
            .field("refusal", &self.refusal)
            .finish_non_exhaustive()
    }
}

impl<D: ?Sized> fmt::Display for AddError<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device not added: {}", self.refusal)
    }
}

impl<D: ?Sized> core::error::Error for AddError<D> {}

impl<D: ?Sized> From<AddError<D>> for AxError {
    /// As for its [`Refusal`].
    fn from(error: AddError<D>) -> Self {
        error.refusal.into()
    }
}

impl<D: ?Sized> From<AddError<D>> for Refusal {
    /// Why; the device is dropped.
    fn from(error: AddError<D>) -> Self {
        error.refusal
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::testing::first_id;

    #[test]
    fn displays_name_both_parties() {
        let overlap = Refusal::Overlap {
            wanted: Span::new(0x10, 0x1f).unwrap(),
            owner: first_id(),
            owned: Span::new(0x18, 0x18).unwrap(),
        };
        assert_eq!(
            overlap.to_string(),
            "0x10..=0x1f overlaps 0x18..=0x18 of device #1"
        );
        let wrapping = Refusal::Wrapping {
            start: 0x20,
            end: 0x10,
        };
        assert_eq!(
            wrapping.to_string(),
            "the range from 0x20 to 0x10 wraps around the end of the bus"
        );
    }

    #[test]
    fn becomes_an_ax_error() {
        let empty = Refusal::Empty { at: 0 };
        assert_eq!(AxError::from(empty), AxError::InvalidInput);
        assert_eq!(AxError::from(Refusal::NoMemory), AxError::NoMemory);
        let unknown = Refusal::Unknown { id: first_id() };
        assert_eq!(unknown.to_string(), "there is no device #1");
        assert_eq!(AxError::from(unknown), AxError::NotFound);
        let error = AddError::<str>::new(Arc::from("uart"), empty);
        assert_eq!(
            error.to_string(),
            "device not added: the range at 0x0 is empty"
        );
        assert_eq!(error.into_device().as_ref(), "uart");
    }
}
