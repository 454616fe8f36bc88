//! Accesses in the format of KVM: the accesses for a number of bytes, the order of the bytes, and that a read always
//! overwrites the whole buffer.

use std::{cell::Cell, rc::Rc};

use ax_errno::{AxError, AxResult};
use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange, device::AccessWidth};
use axdevice::{AxVmDevices, BusAddr, Dispatcher, Unmapped};
use support::{
    Bus, Call, Journal, Piece, Recorder, WIDTHS, answer, carried, device, extent, floating, items,
    pieces,
};

/// The contents of the buffer before: neither zeros nor ones.
const OLD: u8 = 0xa5;

/// Reads `length` bytes into a buffer full of [`OLD`].
fn read<R: Bus>(devices: &AxVmDevices, at: usize, length: usize) -> (AxResult, Vec<u8>) {
    let mut data = vec![OLD; length];
    let result = devices.read_bytes(R::at(at), &mut data);
    (result, data)
}

/// The bytes of an undriven bus.
fn floats<R: Bus>(length: usize) -> Vec<u8> {
    vec![floating::<R>(WIDTHS[0]) as u8; length]
}

fn reads_are_little_endian<R: Bus>() {
    let devices = AxVmDevices::default();
    R::add(&devices, Recorder::silent(3, 0x10, 0x1f)).unwrap();
    for length in [1, 2, 4, 8] {
        let value = answer(3, 0x14).to_le_bytes();
        let expected = (Ok(()), value[..length].to_vec());
        assert_eq!(read::<R>(&devices, 0x14, length), expected);
    }
}

fn writes_are_little_endian_and_extended_with_zeros<R: Bus>() {
    let (devices, journal) = (AxVmDevices::default(), Journal::default());
    let range = R::covering(0x10, 0x1f);
    R::add(&devices, Recorder::new(0, range, &journal)).unwrap();
    let data = [0x81, 0x92, 0xa3, 0xb4, 0xc5, 0xd6, 0xe7, 0xf8];
    let values = [0x81, 0x9281, 0xb4a3_9281, 0xf8e7_d6c5_b4a3_9281];
    for (width, value) in WIDTHS.into_iter().zip(values) {
        let written = devices.write_bytes(R::at(0x18), &data[..width.size()]);
        assert_eq!(written, Ok(()));
        let calls = journal.take();
        assert_eq!(calls.len(), 1);
        assert_eq!((calls[0].at, calls[0].width), (0x18, width));
        assert_eq!(calls[0].written, Some(value));
    }
}

/// Four devices: two of them adjacent, one at the end of the bus.
struct Vm {
    devices: AxVmDevices,
    unmapped: Unmapped,
    journal: Journal,
    ranges: Vec<(usize, usize)>,
}

impl Vm {
    fn new<R: Bus>(unmapped: Unmapped) -> Self {
        let devices = AxVmDevices::default().with_unmapped(unmapped);
        let journal = Journal::default();
        let ranges = vec![
            (0x10, 0x1f),
            (0x20, 0x2a),
            (0x40, 0x47),
            (R::HIGHEST - 4, R::HIGHEST),
        ];
        for (number, (first, last)) in ranges.iter().enumerate() {
            let device = Recorder::new(number, R::covering(*first, *last), &journal);
            R::add(&devices, device).unwrap();
        }
        Self {
            devices,
            unmapped,
            journal,
            ranges,
        }
    }

    /// The device that gets an access, or the result of the policy; `None` if it should panic.
    fn owner<R: Bus>(&self, at: usize, width: AccessWidth) -> Option<Result<usize, AxResult>> {
        let owner = (self.ranges.iter()).position(|(first, last)| (*first..=*last).contains(&at));
        let whole = owner.filter(|owner| self.ranges[*owner].1 - at >= extent::<R>(width) - 1);
        match (whole, self.unmapped) {
            (Some(owner), _) => Some(Ok(owner)),
            (None, Unmapped::Error) => Some(Err(Err(AxError::NotFound))),
            (None, Unmapped::Float) => Some(Err(Ok(()))),
            (None, Unmapped::Panic) => owner.map(|_| Err(Err(AxError::InvalidInput))),
        }
    }

    /// The expected result of these accesses, the bytes in a buffer of `length` bytes, and the calls.
    fn expected<R: Bus>(
        &self,
        accesses: Option<Vec<Piece>>,
        length: usize,
        written: Option<&[u8]>,
    ) -> Option<(AxResult, Vec<u8>, Vec<Call>)> {
        let mut data = floats::<R>(length);
        let Some(accesses) = accesses else {
            return Some((Err(AxError::InvalidInput), data, Vec::new()));
        };
        let (mut result, mut calls) = (Ok(()), Vec::new());
        for (at, width, bytes) in accesses {
            match self.owner::<R>(at, width)? {
                Ok(device) => {
                    let value = answer(device, at).to_le_bytes();
                    data[bytes.clone()].copy_from_slice(&value[..bytes.len()]);
                    let written = written.map(|data| {
                        let bytes = data[bytes].iter().rev();
                        bytes.fold(0, |value, byte| value << 8 | usize::from(*byte))
                    });
                    calls.push(Call {
                        device,
                        at,
                        width,
                        written,
                    });
                }
                Err(missed) => result = result.and(missed),
            }
        }
        Some((result, data, calls))
    }

    /// Reads and writes through the registry and through a handle. Each should make these accesses.
    fn check<R: Bus>(
        &self,
        vcpu: &mut Handle,
        accesses: Option<Vec<Piece>>,
        length: usize,
        access: &dyn ByteAccess,
    ) {
        let on = &self.devices;
        let said = format!("{:?} {accesses:x?}, {length} bytes", self.unmapped);
        if let Some(expected) = self.expected::<R>(accesses.clone(), length, None) {
            for by in [None, Some(&mut *vcpu)] {
                let mut data = vec![OLD; length];
                let result = access.read(on, by, &mut data);
                assert_eq!((result, data, self.journal.take()), expected, "read {said}");
            }
        }
        let data: Vec<_> = (0..length).map(|byte| 0x80 ^ byte as u8).collect();
        if let Some((result, _, calls)) = self.expected::<R>(accesses, length, Some(&data)) {
            for by in [None, Some(vcpu)] {
                assert_eq!(access.write(on, by, &data), result, "write {said}");
                assert_eq!(self.journal.take(), calls, "write {said}");
            }
        }
    }
}

/// A vCPU's handle.
type Handle<'a> = Dispatcher<&'a AxVmDevices>;

/// An access in bytes, through a handle or, if there is none, through the registry.
trait ByteAccess {
    fn read(&self, on: &AxVmDevices, by: Option<&mut Handle>, data: &mut [u8]) -> AxResult;
    fn write(&self, on: &AxVmDevices, by: Option<&mut Handle>, data: &[u8]) -> AxResult;
}

/// One access at an address.
struct Once<A>(A);

impl<A: BusAddr> ByteAccess for Once<A> {
    fn read(&self, on: &AxVmDevices, by: Option<&mut Handle>, data: &mut [u8]) -> AxResult {
        match by {
            Some(vcpu) => vcpu.read_bytes(self.0, data),
            None => on.read_bytes(self.0, data),
        }
    }

    fn write(&self, on: &AxVmDevices, by: Option<&mut Handle>, data: &[u8]) -> AxResult {
        match by {
            Some(vcpu) => vcpu.write_bytes(self.0, data),
            None => on.write_bytes(self.0, data),
        }
    }
}

/// Accesses of a width at an address.
struct Repeated<A>(A, AccessWidth);

impl<A: BusAddr> ByteAccess for Repeated<A> {
    fn read(&self, on: &AxVmDevices, by: Option<&mut Handle>, data: &mut [u8]) -> AxResult {
        match by {
            Some(vcpu) => vcpu.read_repeated(self.0, self.1, data),
            None => on.read_repeated(self.0, self.1, data),
        }
    }

    fn write(&self, on: &AxVmDevices, by: Option<&mut Handle>, data: &[u8]) -> AxResult {
        match by {
            Some(vcpu) => vcpu.write_repeated(self.0, self.1, data),
            None => on.write_repeated(self.0, self.1, data),
        }
    }
}

const POLICIES: [Unmapped; 3] = [Unmapped::Panic, Unmapped::Error, Unmapped::Float];

/// Addresses in, between and around the devices of a [`Vm`], with all alignments.
fn addresses<R: Bus>() -> impl Iterator<Item = usize> {
    let end = R::place(R::at(usize::MAX));
    (0..0x50).chain(R::HIGHEST - 12..=end)
}

fn every_length_at_every_alignment<R: Bus>() {
    for unmapped in POLICIES {
        let vm = Vm::new::<R>(unmapped);
        let mut vcpu = vm.devices.dispatcher();
        for length in 0..=64 {
            for at in addresses::<R>() {
                let accesses = pieces::<R>(at, length);
                vm.check::<R>(&mut vcpu, accesses, length, &Once(R::at(at)));
            }
        }
    }
}

fn every_number_of_items<R: Bus>() {
    for unmapped in POLICIES {
        let vm = Vm::new::<R>(unmapped);
        let mut vcpu = vm.devices.dispatcher();
        for width in WIDTHS {
            for length in 0..=64 {
                for at in [0x10, 0x13, 0x1e, 0x2a, 0x30, 0x40, R::HIGHEST] {
                    let accesses = items(at, width, length);
                    let repeated = Repeated(R::at(at), width);
                    vm.check::<R>(&mut vcpu, accesses, length, &repeated);
                }
            }
        }
    }
}

/// After a failure in the middle, the other accesses still get their bytes.
fn the_first_error_is_given_after_all_accesses<R: Bus>() {
    let devices = AxVmDevices::default();
    let calls = Rc::new(Cell::new(0));
    let counted = calls.clone();
    let fails = device::<R>(0, 0xf, move |_| {
        counted.set(counted.get() + 1);
        match counted.get() {
            2 => Err(AxError::Io),
            3 => Err(AxError::Unsupported),
            call => Ok(call),
        }
    });
    R::add(&devices, fails).unwrap();
    let mut data = [OLD; 4];
    let result = devices.read_repeated(R::at(0), AccessWidth::Byte, &mut data);
    let floating = floats::<R>(1)[0];
    assert_eq!(
        (result, data),
        (Err(AxError::Io), [1, floating, floating, 4])
    );
    calls.set(0);
    let result = devices.write_repeated(R::at(0), AccessWidth::Word, &[0; 8]);
    assert_eq!((result, calls.get()), (Err(AxError::Io), 4));
}

/// The two exits of a load of four bytes, three of them in one page and one in the next.
#[test]
fn a_load_that_crosses_a_page_ends_no_vcpu() {
    let devices = AxVmDevices::default().with_unmapped(Unmapped::Float);
    let device = Recorder::<GuestPhysAddrRange>::silent(0, 0x1000, 0x1fff);
    devices.add_mmio_dev(device).unwrap();
    let (mut low, mut high) = ([OLD; 3], [OLD; 1]);
    let read = |at: usize, data: &mut [u8]| devices.read_bytes(GuestPhysAddr::from(at), data);
    assert_eq!(read(0xffd, &mut low), Ok(()));
    assert_eq!(read(0x1000, &mut high), Ok(()));
    let expected = carried::<GuestPhysAddrRange>(answer(0, 0x1000), AccessWidth::Byte);
    assert_eq!((low, high), ([0xff; 3], [expected as u8]));
}

fn a_miss_fills_the_buffer<R: Bus>() {
    for (policy, missed) in [
        (Unmapped::Error, Err(AxError::NotFound)),
        (Unmapped::Float, Ok(())),
    ] {
        let devices = AxVmDevices::default().with_unmapped(policy);
        R::add(&devices, Recorder::silent(0, 0, 0xf)).unwrap();
        for width in WIDTHS {
            let length = width.size();
            let starts = (1..extent::<R>(width)).map(|inside| 0x10 - inside);
            for at in starts.chain([0x10, 0x100]) {
                let expected = (missed, floats::<R>(length));
                assert_eq!(read::<R>(&devices, at, length), expected, "{at:#x}");
                let data = vec![OLD; length];
                assert_eq!(devices.write_bytes(R::at(at), &data), missed, "{at:#x}");
            }
        }
    }
}

fn a_crossing_under_panic_is_an_error_and_fills_the_buffer<R: Bus>() {
    let devices = AxVmDevices::default().with_unmapped(Unmapped::Panic);
    R::add(&devices, Recorder::silent(0, 0, 0xf)).unwrap();
    for width in WIDTHS {
        for inside in 1..extent::<R>(width) {
            let crossed = (Err(AxError::InvalidInput), floats::<R>(width.size()));
            let got = read::<R>(&devices, 0x10 - inside, width.size());
            assert_eq!(got, crossed, "{width:?} {inside}");
        }
    }
    assert_eq!(read::<R>(&devices, 0xf, 1).0, Ok(()));
}

fn a_device_that_fails_fills_the_buffer<R: Bus>() {
    let devices = AxVmDevices::default();
    let fails = device::<R>(0, 0xf, |_| Err(AxError::Io));
    R::add(&devices, fails).unwrap();
    for length in [1, 2, 4, 8] {
        let failed = (Err(AxError::Io), floats::<R>(length));
        assert_eq!(read::<R>(&devices, 0, length), failed);
        let written = devices.write_bytes(R::at(0), &vec![OLD; length]);
        assert_eq!(written, Err(AxError::Io));
    }
}

on_every_bus!(
    reads_are_little_endian,
    writes_are_little_endian_and_extended_with_zeros,
    every_length_at_every_alignment,
    every_number_of_items,
    the_first_error_is_given_after_all_accesses,
    a_miss_fills_the_buffer,
    a_crossing_under_panic_is_an_error_and_fills_the_buffer,
    a_device_that_fails_fills_the_buffer,
);
