//! Accesses, by the registry and by a vCPU's handle.

use std::rc::Rc;

use ax_errno::{AxError, AxResult};
use axaddrspace::device::AccessWidth;

use super::{
    input::{Access, By, Place, Policy},
    session::Session,
};
use crate::{
    bus::{carried, extent, floating},
    on::OnBus,
    recorder::{Call, answer},
};

/// The most bytes that are handed over.
const LONGEST: usize = 16;

/// What an access should come to.
struct Expected {
    /// Whether there is an access: not for a length that none has.
    is_access: bool,
    result: AxResult<usize>,
    call: Option<Call>,
}

impl Session {
    pub(crate) fn access<R: OnBus>(&mut self, by: By, place: Place, access: Access) {
        let at = place.number::<R>();
        match access {
            Access::Read(width) => self.read::<R>(by, at, width.into()),
            Access::Write(width, value) => self.write::<R>(by, at, width.into(), value),
            Access::ReadBytes(length) => {
                self.read_bytes::<R>(by, at, usize::from(length) % (LONGEST + 1));
            }
            Access::WriteBytes(length, value) => {
                self.write_bytes::<R>(by, at, usize::from(length) % (LONGEST + 1), value);
            }
        }
    }

    /// What an access should come to, unless it should panic.
    fn expected<R: OnBus>(
        &self,
        at: usize,
        width: AccessWidth,
        written: Option<usize>,
    ) -> Option<Expected> {
        let owner = self.model.owner(R::ON, at);
        let last = at.checked_add(extent::<R>(width) - 1);
        let whole = owner.filter(|owner| last.is_some_and(|last| last <= owner.last));
        let read = |value| match written {
            Some(_) => 0,
            None => value,
        };
        let result = match (whole, self.unmapped) {
            (Some(owner), _) => {
                let value = answer(owner.number, at);
                value.map(|value| read(carried::<R>(value, width)))
            }
            (None, Policy::Panic) => owner.map(|_| Err(AxError::InvalidInput))?,
            (None, Policy::Error) => Err(AxError::NotFound),
            (None, Policy::Float) => Ok(read(floating::<R>(width))),
        };
        let call = whole.map(|owner| Call {
            device: owner.number,
            at,
            width,
            written: written.map(|value| carried::<R>(value, width)),
        });
        Some(Expected {
            is_access: true,
            result,
            call,
        })
    }

    /// As [`expected`](Self::expected), for an access to so many bytes, which may be none at all.
    fn expected_of<R: OnBus>(
        &self,
        at: usize,
        length: usize,
        written: Option<usize>,
    ) -> Option<Expected> {
        match AccessWidth::try_from(length) {
            Ok(width) => self.expected::<R>(at, width, written),
            Err(()) => Some(Expected {
                is_access: false,
                result: Err(AxError::InvalidInput),
                call: None,
            }),
        }
    }

    /// Checks what became of an access by its result and the device that was called. A vCPU's handle
    /// counts it, and then holds the current tables.
    fn check_access<R: OnBus>(&mut self, by: By, expected: Expected, result: AxResult<usize>) {
        assert_eq!(result, expected.result);
        if let (By::Vcpu(vcpu), true) = (by, expected.is_access) {
            let vcpu = &mut self.vcpus[usize::from(vcpu % 2)];
            vcpu.holds = Some(Rc::clone(&self.model));
            let (accesses, misses) = &mut vcpu.accesses[R::ON as usize];
            *accesses += 1;
            *misses += u64::from(expected.call.is_none());
        }
        assert_eq!(self.journal.take(), Vec::from_iter(expected.call));
    }

    fn read<R: OnBus>(&mut self, by: By, at: usize, width: AccessWidth) {
        let Some(expected) = self.expected::<R>(at, width, None) else {
            return;
        };
        let result = match by {
            By::Registry => R::read(&self.devices, at, width),
            By::Vcpu(vcpu) => R::vcpu_read(self.handle(vcpu), at, width),
        };
        self.check_access::<R>(by, expected, result);
    }

    fn write<R: OnBus>(&mut self, by: By, at: usize, width: AccessWidth, value: usize) {
        let Some(expected) = self.expected::<R>(at, width, Some(value)) else {
            return;
        };
        let result = match by {
            By::Registry => R::write(&self.devices, at, width, value),
            By::Vcpu(vcpu) => R::vcpu_write(self.handle(vcpu), at, width, value),
        };
        self.check_access::<R>(by, expected, result.map(|()| 0));
    }

    fn read_bytes<R: OnBus>(&mut self, by: By, at: usize, length: usize) {
        let Some(expected) = self.expected_of::<R>(at, length, None) else {
            return;
        };
        let mut data = [0x5a; LONGEST];
        let result = match by {
            By::Registry => self.devices.read_bytes(R::at(at), &mut data[..length]),
            By::Vcpu(vcpu) => (self.handle(vcpu)).read_bytes(R::at(at), &mut data[..length]),
        };
        let mut filled = [0x5a; LONGEST];
        match expected.result {
            Ok(value) => filled[..length].copy_from_slice(&value.to_le_bytes()[..length]),
            Err(_) => filled[..length].fill(floating::<R>(AccessWidth::Byte) as u8),
        }
        assert_eq!(data, filled);
        let value = result.and(expected.result);
        self.check_access::<R>(by, expected, value);
    }

    fn write_bytes<R: OnBus>(&mut self, by: By, at: usize, length: usize, value: u128) {
        // Only as many bytes as there are, which says more than the width on system registers.
        let mut data = value.to_le_bytes();
        data[length..].fill(0);
        let written = u128::from_le_bytes(data) as usize;
        let Some(expected) = self.expected_of::<R>(at, length, Some(written)) else {
            return;
        };
        let data = &data[..length];
        let result = match by {
            By::Registry => self.devices.write_bytes(R::at(at), data),
            By::Vcpu(vcpu) => self.handle(vcpu).write_bytes(R::at(at), data),
        };
        self.check_access::<R>(by, expected, result.map(|()| 0));
    }
}
