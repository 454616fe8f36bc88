//! `read_bytes` and `write_bytes`: 1, 2, 4 or 8 bytes, little-endian; and a buffer that is read into
//! never keeps what it held.

use ax_errno::{AxError, AxResult};
use axdevice::{AxVmDevices, Unmapped};

use crate::common::{
    bus::{Bus, WIDTHS, extent, floating},
    device::{Journal, Recorder, Script, answer},
};

/// What the buffer holds before: neither zeros nor ones.
const OLD: u8 = 0xa5;

/// Reads `length` bytes into a buffer full of [`OLD`].
fn read<R: Bus>(devices: &AxVmDevices, at: usize, length: usize) -> (AxResult, Vec<u8>) {
    let mut data = vec![OLD; length];
    let result = devices.read_bytes(R::at(at), &mut data);
    (result, data)
}

/// What an undriven bus puts into a buffer.
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

fn other_lengths_are_refused_and_reach_no_device<R: Bus>() {
    for policy in [Unmapped::Panic, Unmapped::Error, Unmapped::Float] {
        let devices = AxVmDevices::default().with_unmapped(policy);
        let journal = Journal::default();
        let range = R::covering(0, 0xff);
        R::add(&devices, Recorder::new(0, range, &journal)).unwrap();
        for length in (0..=16).filter(|n| ![1, 2, 4, 8].contains(n)) {
            // In a device, and where there is none: not even `Panic` is asked.
            for at in [0x10, 0x1000] {
                let refused = (Err(AxError::InvalidInput), floats::<R>(length));
                assert_eq!(read::<R>(&devices, at, length), refused, "{length}");
                let written = devices.write_bytes(R::at(at), &vec![OLD; length]);
                assert_eq!(written, Err(AxError::InvalidInput), "{length}");
            }
        }
        assert_eq!(journal.take(), []);
    }
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
    let fails = Script::<R, _>::new(0, 0xf, |_, _| Err(AxError::Io));
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
    other_lengths_are_refused_and_reach_no_device,
    a_miss_fills_the_buffer,
    a_crossing_under_panic_is_an_error_and_fills_the_buffer,
    a_device_that_fails_fills_the_buffer,
);
