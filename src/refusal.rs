//! [`Refusal`]: the reason why a change of the registry was refused.

use core::{error::Error, fmt};

use ax_errno::AxError;
use busmap::{BusId, DeviceId, Span, Veto};

use crate::sync::Arc;

/// The reason why a change of the registry was refused.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The range holds no address.
    Empty {
        /// The bus.
        bus: BusId,
        /// The start of the range.
        at: usize,
    },
    /// The range ends before it starts.
    ///
    /// MMIO ranges are half-open, so this is also the refusal of a range that is meant to include the address
    /// `usize::MAX`.
    Backwards {
        /// The bus.
        bus: BusId,
        /// The start that the range gave.
        start: usize,
        /// The end that the range gave (exclusive on MMIO).
        end: usize,
    },
    /// The range's start plus its length is past the end of the bus.
    Wrapping {
        /// The bus.
        bus: BusId,
        /// The start of the range.
        start: usize,
        /// The end of the range (exclusive), which wrapped around.
        end: usize,
    },
    /// Another device owns some of the addresses.
    Overlap {
        /// The bus.
        bus: BusId,
        /// The span that was requested.
        wanted: Span,
        /// The device that owns some of it.
        owner: DeviceId,
        /// The owner's span.
        owned: Span,
    },
    /// Some of the addresses, of guest physical memory, are in the range for IVC channels.
    Ivc {
        /// The span that was requested.
        wanted: Span,
        /// The range for IVC channels.
        ivc: Span,
    },
    /// No device with this id is registered on the bus: it was removed, or never added.
    Unknown {
        /// The id that was requested.
        id: DeviceId,
        /// The bus; `None` for any bus.
        bus: Option<BusId>,
    },
    /// The device does not own the range. For a move: it owns no range at the moment.
    NotMapped {
        /// The id that was requested.
        id: DeviceId,
        /// The bus.
        bus: BusId,
        /// The range; `None` if the device is to be moved.
        span: Option<Span>,
    },
    /// The device returned a different range at each call.
    UnstableRange {
        /// The device.
        id: DeviceId,
        /// The bus.
        bus: BusId,
    },
    /// The registry's [`Listener`](crate::Listener) has refused the change.
    Vetoed(Veto),
    /// The registry's [`Listener`](crate::Listener) makes a change while the same thread or context calls it for
    /// another one. A listener must not make changes.
    Reentrant,
    /// There was no memory for the new tables.
    NoMemory,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty {
                bus: BusId::Mmio,
                at,
            } => write!(f, "on bus mmio, the range at {at:#x} is empty"),
            Self::Empty { bus, at } => {
                let end = at.wrapping_sub(1);
                write!(
                    f,
                    "on bus {bus}, the range {at:#x}..={end:#x} is empty: it ends before it starts"
                )
            }
            Self::Backwards { bus, start, end } => {
                write!(
                    f,
                    "on bus {bus}, the range from {start:#x} to {end:#x} ends before it starts"
                )
            }
            Self::Wrapping { bus, start, end } => {
                write!(
                    f,
                    "on bus {bus}, the range from {start:#x} wraps around the end of the bus to \
                     {end:#x}"
                )
            }
            Self::Overlap {
                bus,
                wanted,
                owner,
                owned,
            } => write!(
                f,
                "on bus {bus}, {wanted} overlaps {owned} of device {owner}"
            ),
            Self::Ivc { wanted, ivc } => {
                write!(f, "on bus mmio, {wanted} overlaps the IVC range {ivc}")
            }
            Self::Unknown { id, bus: Some(bus) } => {
                write!(f, "there is no device {id} on bus {bus}")
            }
            Self::Unknown { id, bus: None } => write!(f, "there is no device {id} on any bus"),
            Self::NotMapped {
                id,
                bus,
                span: Some(span),
            } => write!(f, "device {id} does not own {span} on bus {bus}"),
            Self::NotMapped {
                id,
                bus,
                span: None,
            } => write!(f, "device {id} owns no addresses on bus {bus}"),
            Self::UnstableRange { id, bus } => {
                write!(
                    f,
                    "device {id} returns a different range on bus {bus} at each call"
                )
            }
            Self::Vetoed(veto) => write!(f, "the registry's listener refuses the change: {veto}"),
            Self::Reentrant => f.write_str(
                "the registry's listener makes a change while the registry calls it for another \
                 change",
            ),
            Self::NoMemory => f.write_str("no memory for the new tables"),
        }
    }
}

impl fmt::Debug for Refusal {
    /// As if derived, except that addresses are hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { bus, at } => (f.debug_struct("Empty").field("bus", bus))
                .field("at", &format_args!("{at:#x}"))
                .finish(),
            Self::Backwards { bus, start, end } => (f.debug_struct("Backwards").field("bus", bus))
                .field("start", &format_args!("{start:#x}"))
                .field("end", &format_args!("{end:#x}"))
                .finish(),
            Self::Wrapping { bus, start, end } => (f.debug_struct("Wrapping").field("bus", bus))
                .field("start", &format_args!("{start:#x}"))
                .field("end", &format_args!("{end:#x}"))
                .finish(),
            Self::Overlap {
                bus,
                wanted,
                owner,
                owned,
            } => (f.debug_struct("Overlap").field("bus", bus))
                .field("wanted", wanted)
                .field("owner", owner)
                .field("owned", owned)
                .finish(),
            Self::Ivc { wanted, ivc } => (f.debug_struct("Ivc").field("wanted", wanted))
                .field("ivc", ivc)
                .finish(),
            Self::Unknown { id, bus } => (f.debug_struct("Unknown").field("id", id))
                .field("bus", bus)
                .finish(),
            Self::NotMapped { id, bus, span } => (f.debug_struct("NotMapped").field("id", id))
                .field("bus", bus)
                .field("span", span)
                .finish(),
            Self::UnstableRange { id, bus } => (f.debug_struct("UnstableRange").field("id", id))
                .field("bus", bus)
                .finish(),
            Self::Vetoed(veto) => f.debug_tuple("Vetoed").field(veto).finish(),
            Self::Reentrant => f.write_str("Reentrant"),
            Self::NoMemory => f.write_str("NoMemory"),
        }
    }
}

impl Error for Refusal {}

impl From<busmap::Refusal> for Refusal {
    fn from(refusal: busmap::Refusal) -> Self {
        match refusal {
            busmap::Refusal::Overlap {
                bus,
                wanted,
                owner,
                owned,
            } => Self::Overlap {
                bus,
                wanted,
                owner,
                owned,
            },
            // Nothing else is set aside.
            busmap::Refusal::SetAside { wanted, aside, .. } => Self::Ivc { wanted, ivc: aside },
            busmap::Refusal::Unknown { id, bus } => Self::Unknown { id, bus },
            // The device is on another bus.
            busmap::Refusal::NoHandler { id, bus } => Self::Unknown { id, bus: Some(bus) },
            busmap::Refusal::NotMapped { id, bus, span } => Self::NotMapped { id, bus, span },
            busmap::Refusal::Vetoed(veto) => Self::Vetoed(veto),
            busmap::Refusal::Reentrant => Self::Reentrant,
            // Devices are still withdrawn only if there was no memory to put them back.
            busmap::Refusal::Withdrawn | busmap::Refusal::NoMemory => Self::NoMemory,
            other => {
                debug_assert!(false, "{other}");
                Self::NoMemory
            }
        }
    }
}

impl<F: busmap::Handlers> From<busmap::Refused<F>> for Refusal {
    /// The refusal; the device is dropped.
    fn from(refused: busmap::Refused<F>) -> Self {
        refused.refusal.into()
    }
}

impl From<Refusal> for AxError {
    /// `InvalidInput` for a bad range, `AlreadyExists` for an overlap with a device or the IVC range, `NotFound` for an
    /// unknown id or a range that the device does not own, `ResourceBusy` for an unstable range or a change by the
    /// listener, `PermissionDenied` for a veto, `NoMemory`.
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Empty { .. } | Refusal::Backwards { .. } | Refusal::Wrapping { .. } => {
                Self::InvalidInput
            }
            Refusal::Overlap { .. } | Refusal::Ivc { .. } => Self::AlreadyExists,
            Refusal::Unknown { .. } | Refusal::NotMapped { .. } => Self::NotFound,
            Refusal::UnstableRange { .. } | Refusal::Reentrant => Self::ResourceBusy,
            Refusal::Vetoed(_) => Self::PermissionDenied,
            Refusal::NoMemory => Self::NoMemory,
        }
    }
}

/// A device that was not added, and the [`Refusal`].
pub struct AddError<D: ?Sized> {
    device: Arc<D>,
    refusal: Refusal,
}

impl<D: ?Sized> AddError<D> {
    pub(crate) fn new(device: Arc<D>, refusal: Refusal) -> Self {
        Self { device, refusal }
    }

    /// The refusal.
    pub fn refusal(&self) -> Refusal {
        self.refusal
    }

    /// Returns the device.
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

impl<D: ?Sized> Error for AddError<D> {
    /// The [`Refusal`].
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.refusal)
    }
}

impl<D: ?Sized> From<AddError<D>> for AxError {
    /// The error of its [`Refusal`].
    fn from(error: AddError<D>) -> Self {
        error.refusal.into()
    }
}

impl<D: ?Sized> From<AddError<D>> for Refusal {
    /// The refusal; the device is dropped.
    fn from(error: AddError<D>) -> Self {
        error.refusal
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::testing::first_id;

    const BUS: BusId = BusId::Port;

    fn span(first: u64, last: u64) -> Span {
        Span::new(first, last).unwrap()
    }

    #[test]
    fn names_the_bus_the_addresses_and_the_owner() {
        let (id, bus) = (first_id(), BUS);
        let wanted = span(0x10, 0x1f);
        let (start, end) = (0x20, 0x10);
        let overlap = Refusal::Overlap {
            bus,
            wanted,
            owner: id,
            owned: span(0x18, 0x18),
        };
        let ivc = Refusal::Ivc {
            wanted,
            ivc: span(0, 0xfff),
        };
        let mmio = BusId::Mmio;
        let not_mapped = |span| Refusal::NotMapped { id, bus, span };
        for (refusal, text) in [
            (
                overlap,
                "on bus port, 0x10..=0x1f overlaps 0x18..=0x18 of device #1",
            ),
            (
                ivc,
                "on bus mmio, 0x10..=0x1f overlaps the IVC range 0x0..=0xfff",
            ),
            (
                Refusal::Empty { bus: mmio, at: 32 },
                "on bus mmio, the range at 0x20 is empty",
            ),
            (
                Refusal::Empty { bus, at: 32 },
                "on bus port, the range 0x20..=0x1f is empty: it ends before it starts",
            ),
            (
                Refusal::Backwards { bus, start, end },
                "on bus port, the range from 0x20 to 0x10 ends before it starts",
            ),
            (
                Refusal::Wrapping { bus, start, end },
                "on bus port, the range from 0x20 wraps around the end of the bus to 0x10",
            ),
            (
                Refusal::Unknown { id, bus: Some(bus) },
                "there is no device #1 on bus port",
            ),
            (
                Refusal::Unknown { id, bus: None },
                "there is no device #1 on any bus",
            ),
            (
                not_mapped(Some(wanted)),
                "device #1 does not own 0x10..=0x1f on bus port",
            ),
            (not_mapped(None), "device #1 owns no addresses on bus port"),
            (
                Refusal::UnstableRange { id, bus },
                "device #1 returns a different range on bus port at each call",
            ),
            (
                Refusal::Vetoed(Veto::new("no doorbell").with_code(17)),
                "the registry's listener refuses the change: no doorbell (code 17)",
            ),
            (
                Refusal::Reentrant,
                "the registry's listener makes a change while the registry calls it for \
                 another change",
            ),
        ] {
            assert_eq!(refusal.to_string(), text);
        }
    }

    #[test]
    fn debug_has_hexadecimal_addresses() {
        let (bus, start, end) = (BUS, 0x20, 0x10);
        let backwards = Refusal::Backwards { bus, start, end };
        assert_eq!(
            format!("{backwards:?}"),
            "Backwards { bus: Port, start: 0x20, end: 0x10 }"
        );
        let (wanted, ivc) = (span(0x10, 0x1f), span(0, 0xfff));
        assert_eq!(
            format!("{:?}", Refusal::Ivc { wanted, ivc }),
            "Ivc { wanted: Span(0x10..=0x1f), ivc: Span(0x0..=0xfff) }"
        );
        assert_eq!(format!("{:?}", Refusal::NoMemory), "NoMemory");
        assert_eq!(format!("{:?}", Refusal::Reentrant), "Reentrant");
        assert_eq!(
            format!("{:?}", Refusal::Vetoed(Veto::new("no"))),
            "Vetoed(Veto { reason: \"no\", code: 0 })"
        );
    }

    #[test]
    fn becomes_an_ax_error() {
        let empty = Refusal::Empty { bus: BUS, at: 0x20 };
        assert_eq!(AxError::from(empty), AxError::InvalidInput);
        assert_eq!(AxError::from(Refusal::NoMemory), AxError::NoMemory);
        let ivc = Refusal::Ivc {
            wanted: span(0, 0),
            ivc: span(0, 0xfff),
        };
        assert_eq!(AxError::from(ivc), AxError::AlreadyExists);
        let unknown = Refusal::Unknown {
            id: first_id(),
            bus: None,
        };
        assert_eq!(AxError::from(unknown), AxError::NotFound);
        let vetoed = Refusal::Vetoed(Veto::new("no"));
        assert_eq!(AxError::from(vetoed), AxError::PermissionDenied);
        assert_eq!(AxError::from(Refusal::Reentrant), AxError::ResourceBusy);
    }

    #[test]
    fn an_add_error_has_its_refusal_as_its_source_and_keeps_the_device() {
        let empty = Refusal::Empty {
            bus: BusId::Mmio,
            at: 0,
        };
        let error = AddError::<str>::new(Arc::from("uart"), empty);
        assert_eq!(
            error.to_string(),
            "device not added: on bus mmio, the range at 0x0 is empty"
        );
        let source = error.source().and_then(|source| source.downcast_ref());
        assert_eq!(source, Some(&empty));
        assert_eq!(error.into_device().as_ref(), "uart");
    }
}
