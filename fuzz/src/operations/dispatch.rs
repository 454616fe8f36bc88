//! Accesses, through the registry and through a vCPU's handle.

use std::rc::Rc;

use ax_errno::{AxError, AxResult};
use axaddrspace::device::AccessWidth;
use axdevice::DeviceId;
use support::{Call, Piece, carried, extent, floating, items, pieces};

use super::{
    input::{Access, By, Place, Policy},
    session::Session,
};
use crate::{on::OnBus, recorder::answer};

/// The maximum number of bytes that are passed.
const LONGEST: usize = 16;

/// The expected result of an access.
struct Expected {
    result: AxResult<usize>,
    call: Option<Call>,
    /// The called device.
    owner: Option<DeviceId>,
}

fn little_endian(bytes: &[u8]) -> usize {
    (bytes.iter().rev()).fold(0, |value, byte| value << 8 | usize::from(*byte))
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
            Access::ReadRepeated(width, length) => {
                self.read_repeated::<R>(by, at, width.into(), usize::from(length) % (LONGEST + 1));
            }
            Access::WriteRepeated(width, length, value) => {
                let length = usize::from(length) % (LONGEST + 1);
                self.write_repeated::<R>(by, at, width.into(), length, value);
            }
        }
    }

    /// The expected result of an access, unless it should panic.
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
        let owner = whole.map(|owner| owner.id);
        Some(Expected {
            result,
            call,
            owner,
        })
    }

    /// Checks the outcome of an access: its result and the called device.
    fn check_access<R: OnBus>(&mut self, by: By, expected: Expected, result: AxResult<usize>) {
        assert_eq!(result, expected.result);
        let called = self.note::<R>(by, vec![expected]);
        assert_eq!(self.journal.take(), called);
    }

    /// The calls of these accesses. A vCPU's handle counts each, and then holds the current tables.
    fn note<R: OnBus>(&mut self, by: By, accesses: Vec<Expected>) -> Vec<Call> {
        if let (By::Vcpu(vcpu), false) = (by, accesses.is_empty()) {
            let vcpu = &mut self.vcpus[usize::from(vcpu % 2)];
            vcpu.holds = Some(Rc::clone(&self.model));
            let (count, misses) = &mut vcpu.accesses[R::ON as usize];
            *count += accesses.len() as u64;
            *misses += accesses
                .iter()
                .filter(|access| access.call.is_none())
                .count() as u64;
            for Expected { call, owner, .. } in &accesses {
                if let (Some(call), Some(owner)) = (call, owner) {
                    let (reads, writes) = vcpu.profile.entry(*owner).or_default();
                    *(if call.written.is_some() {
                        writes
                    } else {
                        reads
                    }) += 1;
                }
            }
        }
        accesses
            .into_iter()
            .filter_map(|access| access.call)
            .collect()
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

    /// Calls `read` to fill a buffer by these accesses, unless one should panic, and checks the buffer.
    fn check_reads<R: OnBus>(
        &mut self,
        by: By,
        pieces: Option<Vec<Piece>>,
        length: usize,
        read: impl FnOnce(&mut Self, &mut [u8]) -> AxResult,
    ) {
        let mut filled = vec![floating::<R>(AccessWidth::Byte) as u8; length];
        let mut expected = pieces
            .as_ref()
            .map_or(Err(AxError::InvalidInput), |_| Ok(()));
        let mut accesses = Vec::new();
        for (at, width, bytes) in pieces.into_iter().flatten() {
            let Some(access) = self.expected::<R>(at, width, None) else {
                return;
            };
            if let Ok(value) = access.result {
                let value = value.to_le_bytes();
                filled[bytes.clone()].copy_from_slice(&value[..bytes.len()]);
            }
            expected = expected.and(access.result.map(drop));
            accesses.push(access);
        }
        let mut data = vec![0x5a; length];
        let result = read(self, &mut data);
        assert_eq!((result, data), (expected, filled));
        let called = self.note::<R>(by, accesses);
        assert_eq!(self.journal.take(), called);
    }

    /// Writes bytes by these accesses, unless one should panic, and checks `write`.
    fn check_writes<R: OnBus>(
        &mut self,
        by: By,
        pieces: Option<Vec<Piece>>,
        data: &[u8],
        write: impl FnOnce(&mut Self, &[u8]) -> AxResult,
    ) {
        let mut expected = pieces
            .as_ref()
            .map_or(Err(AxError::InvalidInput), |_| Ok(()));
        let mut accesses = Vec::new();
        for (at, width, bytes) in pieces.into_iter().flatten() {
            let value = little_endian(&data[bytes]);
            let Some(access) = self.expected::<R>(at, width, Some(value)) else {
                return;
            };
            expected = expected.and(access.result.map(drop));
            accesses.push(access);
        }
        assert_eq!(write(self, data), expected);
        let called = self.note::<R>(by, accesses);
        assert_eq!(self.journal.take(), called);
    }

    fn read_bytes<R: OnBus>(&mut self, by: By, at: usize, length: usize) {
        let addr = R::at(at);
        self.check_reads::<R>(
            by,
            pieces::<R>(at, length),
            length,
            |session, data| match by {
                By::Registry => session.devices.read_bytes(addr, data),
                By::Vcpu(vcpu) => session.handle(vcpu).read_bytes(addr, data),
            },
        );
    }

    fn write_bytes<R: OnBus>(&mut self, by: By, at: usize, length: usize, value: u128) {
        let (addr, data) = (R::at(at), &value.to_le_bytes()[..length]);
        self.check_writes::<R>(
            by,
            pieces::<R>(at, length),
            data,
            |session, data| match by {
                By::Registry => session.devices.write_bytes(addr, data),
                By::Vcpu(vcpu) => session.handle(vcpu).write_bytes(addr, data),
            },
        );
    }

    fn read_repeated<R: OnBus>(&mut self, by: By, at: usize, width: AccessWidth, length: usize) {
        let addr = R::at(at);
        let items = items(at, width, length);
        self.check_reads::<R>(by, items, length, |session, data| match by {
            By::Registry => session.devices.read_repeated(addr, width, data),
            By::Vcpu(vcpu) => session.handle(vcpu).read_repeated(addr, width, data),
        });
    }

    fn write_repeated<R: OnBus>(
        &mut self,
        by: By,
        at: usize,
        width: AccessWidth,
        length: usize,
        value: u128,
    ) {
        let (addr, data) = (R::at(at), &value.to_le_bytes()[..length]);
        let items = items(at, width, length);
        self.check_writes::<R>(by, items, data, |session, data| match by {
            By::Registry => session.devices.write_repeated(addr, width, data),
            By::Vcpu(vcpu) => session.handle(vcpu).write_repeated(addr, width, data),
        });
    }
}
