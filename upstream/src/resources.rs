//! The checks of a device's [`Resource`]s: those of `DeviceRuntime`, in the same order, with the same errors.

use alloc::{string::ToString, vec::Vec};

use axdevice_base::{Device, DeviceId, InvalidResourceReason, RegistryError, Resource};
use busmap::{BusId, Mmio, Port, Refusal, Span, SysReg, View};

use crate::{Handled, id_of};

/// Addresses on a bus.
pub(crate) type Addresses = (BusId, Span);

/// The addresses of a resource; `None` for an interrupt line.
///
/// # Errors
///
/// The range is empty, or runs past the end of the bus.
pub(crate) fn addresses(resource: &Resource) -> Result<Option<Addresses>, InvalidResourceReason> {
    let (bus, first, length, last_of_bus) = match *resource {
        // `DeviceRuntime` does not accept the last address: the end of the range overflows there.
        Resource::MmioRange { base, size } => (BusId::Mmio, base, size, u64::MAX - 1),
        Resource::PortRange { base, size } => {
            (BusId::Port, base.into(), size.into(), u16::MAX.into())
        }
        Resource::SysReg { addr, count } => {
            (BusId::SysReg, addr.into(), count.into(), u32::MAX.into())
        }
        Resource::IrqLine { .. } => return Ok(None),
    };
    if length == 0 {
        return Err(InvalidResourceReason::ZeroSized);
    }
    let span = Span::with_length(first, length).filter(|span| span.last() <= last_of_bus);
    let span = span.ok_or(InvalidResourceReason::AddressOverflow)?;
    Ok(Some((bus, span)))
}

/// Converts addresses back to a resource.
fn resource((bus, span): Addresses) -> Resource {
    let (first, length) = (span.first(), span.last() - span.first() + 1);
    match bus {
        BusId::Port => Resource::PortRange {
            base: first as u16,
            size: length as u16,
        },
        BusId::SysReg => Resource::SysReg {
            addr: first as u32,
            count: length as u32,
        },
        _ => Resource::MmioRange {
            base: first,
            size: length,
        },
    }
}

fn overlap((bus, span): Addresses, (other_bus, other): Addresses) -> bool {
    bus == other_bus && span.overlaps(other)
}

/// The addresses of the devices of a bundle so far, with the ids that they will have.
#[derive(Default)]
pub(crate) struct Claims(Vec<(Addresses, DeviceId)>);

impl Claims {
    /// Checks a device's resources against the registered devices and earlier claims, and claims them.
    ///
    /// # Errors
    ///
    /// The error of the first resource that has one.
    pub(crate) fn add(
        &mut self,
        device: &dyn Device,
        id: DeviceId,
        view: View<'_, Handled>,
    ) -> Result<(), RegistryError> {
        let resources = device.resources();
        let mut own = Vec::new();
        for (i, resource) in resources.iter().enumerate() {
            let invalid = |reason| RegistryError::InvalidResource {
                resource: resource.clone(),
                reason,
            };
            match addresses(resource).map_err(invalid)? {
                Some(wanted) if own.iter().any(|&own| overlap(own, wanted)) => {
                    return Err(invalid(InvalidResourceReason::OverlappingResources));
                }
                Some(wanted) => {
                    self.check(wanted, view)?;
                    own.push(wanted);
                }
                None => check_line(resource, &resources[..i]).map_err(invalid)?,
            }
        }
        self.0
            .extend(own.into_iter().map(|addresses| (addresses, id)));
        Ok(())
    }

    /// Checks that no other device has any of the addresses.
    fn check(&self, wanted: Addresses, view: View<'_, Handled>) -> Result<(), RegistryError> {
        let claimed = self
            .0
            .iter()
            .filter(|(claimed, _)| overlap(*claimed, wanted));
        let owned = lowest_owner(wanted, view);
        match claimed
            .copied()
            .chain(owned)
            .min_by_key(|((_, span), _)| span.first())
        {
            Some((existing, owner)) => Err(conflict(wanted, existing, owner)),
            None => Ok(()),
        }
    }
}

fn check_line(line: &Resource, earlier: &[Resource]) -> Result<(), InvalidResourceReason> {
    let number = |resource: &Resource| match *resource {
        Resource::IrqLine { line, .. } => Some(line),
        _ => None,
    };
    match number(line) {
        Some(line) if earlier.iter().any(|earlier| number(earlier) == Some(line)) => {
            Err(InvalidResourceReason::DuplicateIrqLine { line })
        }
        _ => Ok(()),
    }
}

/// Of the registered devices that own some of these addresses, the one with the lowest.
fn lowest_owner((bus, span): Addresses, view: View<'_, Handled>) -> Option<(Addresses, DeviceId)> {
    macro_rules! lowest {
        ($bus:ty) => {
            view.spans::<$bus>()
                .find(|hit| hit.span().overlaps(span))
                .map(|hit| (hit.span(), hit.id()))
        };
    }
    let (owned, owner) = match bus {
        BusId::Port => lowest!(Port),
        BusId::SysReg => lowest!(SysReg),
        _ => lowest!(Mmio),
    }?;
    Some(((bus, owned), id_of(owner)))
}

fn conflict(wanted: Addresses, existing: Addresses, owner: DeviceId) -> RegistryError {
    RegistryError::AddressConflict {
        resource: resource(wanted),
        existing: resource(existing),
        existing_device: owner,
    }
}

/// The error of a registration that the registry refuses: another thread was faster, or there is no memory.
pub(crate) fn refused(refusal: Refusal) -> RegistryError {
    match refusal {
        Refusal::Overlap {
            bus,
            wanted,
            owner,
            owned,
        } => conflict((bus, wanted), (bus, owned), id_of(owner)),
        other => RegistryError::InvalidState {
            operation: "register device",
            detail: other.to_string(),
        },
    }
}
