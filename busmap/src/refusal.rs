//! [`Refusal`]: the reason why a change was refused; [`Refused`]: the reason and the device that was not added.

use core::{error::Error, fmt};

use crate::{
    bus::{BusId, Handlers},
    device::{Device, DeviceId},
    span::Span,
    veto::Veto,
};

/// The reason why a change was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Some of the addresses would belong to two devices, or twice to one.
    Overlap {
        /// The bus.
        bus: BusId,
        /// The span that was requested.
        wanted: Span,
        /// The device that owns some of it, or gets some of it in the same batch.
        owner: DeviceId,
        /// The owner's span.
        owned: Span,
    },
    /// Some of the addresses were [set aside](crate::Registry::set_aside): no device can own them.
    SetAside {
        /// The bus.
        bus: BusId,
        /// The span that was requested.
        wanted: Span,
        /// The span that was set aside.
        aside: Span,
    },
    /// No device of this id is registered: it was removed, or the id is from another registry.
    Unknown {
        /// The id that was requested.
        id: DeviceId,
        /// The bus; `None` for a change of all buses.
        bus: Option<BusId>,
    },
    /// The device does not own the addresses to be unmapped.
    NotMapped {
        /// The device.
        id: DeviceId,
        /// The bus.
        bus: BusId,
        /// The addresses; `None` if [all its addresses](crate::Batch::remap) were to be unmapped, and it owns none
        /// on the bus.
        span: Option<Span>,
    },
    /// The device has no handler for this bus.
    NoHandler {
        /// The device.
        id: DeviceId,
        /// The bus.
        bus: BusId,
    },
    /// The devices are temporarily withdrawn by a front end that replaces them.
    Withdrawn,
    /// The registry's [`Listener`](crate::Listener) has refused the change.
    Vetoed(Veto),
    /// The registry's [`Listener`](crate::Listener) was called for another change on the same thread: a listener must
    /// not make changes.
    Reentrant,
    /// There was no memory for the new tables.
    NoMemory,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Overlap {
                bus,
                wanted,
                owner,
                owned,
            } => write!(
                f,
                "on bus {bus}, {wanted} overlaps {owned} of device {owner}"
            ),
            Self::SetAside { bus, wanted, aside } => {
                write!(
                    f,
                    "on bus {bus}, {wanted} overlaps {aside}, which is set aside"
                )
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
            Self::NoHandler { id, bus } => write!(f, "device {id} has no handler for bus {bus}"),
            Self::Vetoed(veto) => write!(f, "the registry's listener refuses the change: {veto}"),
            Self::Reentrant => f.write_str(
                "the registry's listener makes a change while the registry calls it for another \
                 change",
            ),
            Self::Withdrawn => f.write_str("the devices are withdrawn"),
            Self::NoMemory => f.write_str("no memory for the new tables"),
        }
    }
}

impl Error for Refusal {}

/// A device that was not added, and the reason.
pub struct Refused<F: Handlers> {
    /// The device.
    pub device: Device<F>,
    /// The reason.
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

impl<F: Handlers> Error for Refused<F> {
    /// The [`Refusal`].
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.refusal)
    }
}

impl<F: Handlers> From<Refused<F>> for Refusal {
    /// The reason; the device is dropped.
    fn from(refused: Refused<F>) -> Self {
        refused.refusal
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        device::DeviceIds,
        testing::{Named, named},
    };

    #[test]
    fn names_the_bus_the_addresses_and_the_owner() {
        let id = DeviceIds::new().next();
        let bus = BusId::Port;
        let span = |first, last| Span::new(first, last).unwrap();
        let (wanted, other) = (span(0x10, 0x1f), span(0x18, 0x18));
        let overlap = Refusal::Overlap {
            bus,
            wanted,
            owner: id,
            owned: other,
        };
        let aside = Refusal::SetAside {
            bus,
            wanted,
            aside: other,
        };
        let not_mapped = |span| Refusal::NotMapped { id, bus, span };
        for (refusal, text) in [
            (
                overlap,
                "on bus port, 0x10..=0x1f overlaps 0x18..=0x18 of device #1",
            ),
            (
                aside,
                "on bus port, 0x10..=0x1f overlaps 0x18..=0x18, which is set aside",
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
    fn refused_has_its_refusal_as_its_source() {
        let refused = Refused::<Named> {
            device: named("late"),
            refusal: Refusal::NoMemory,
        };
        let source = refused.source().and_then(|source| source.downcast_ref());
        assert_eq!(source, Some(&Refusal::NoMemory));
    }
}
