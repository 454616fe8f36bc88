//! An access that no device answers: every policy, for holes and for crossings.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ax_errno::{AxError, AxResult};
use axaddrspace::{GuestPhysAddrRange, device::AccessWidth};
use axdevice::{AxVmDeviceConfig, AxVmDevices, Unmapped};
use support::{Bus, Journal, Recorder, WIDTHS, extent, floating};

const HOLE: usize = 0x100;
const LAST: usize = 0x1f;

/// The result of an access.
#[derive(Debug, PartialEq)]
enum Outcome {
    Gave(AxResult<usize>),
    Panicked(String),
}

fn outcome(access: impl FnOnce() -> AxResult<usize>) -> Outcome {
    match catch_unwind(AssertUnwindSafe(access)) {
        Ok(result) => Outcome::Gave(result),
        Err(panic) => Outcome::Panicked(match panic.downcast_ref::<&str>() {
            Some(message) => (*message).into(),
            None => *panic.downcast::<String>().unwrap(),
        }),
    }
}

/// The result of a miss: of a read, or of a write if it is `Ok`. The access is a `direction` at address `at`.
fn expected<R: Bus>(
    policy: Unmapped,
    crosses: bool,
    width: AccessWidth,
    (direction, at): (&str, usize),
) -> Outcome {
    match (policy, crosses) {
        (Unmapped::Float, _) => Outcome::Gave(Ok(floating::<R>(width))),
        (Unmapped::Error, _) => Outcome::Gave(Err(AxError::NotFound)),
        (Unmapped::Panic, true) => Outcome::Gave(Err(AxError::InvalidInput)),
        (Unmapped::Panic, false) => {
            let bus = R::BUS;
            Outcome::Panicked(format!(
                "emu_device not found: {direction} of {bus} {at:#x} with width {width:?}"
            ))
        }
    }
}

fn every_policy_answers_holes_and_crossings<R: Bus>() {
    for policy in [Unmapped::Panic, Unmapped::Error, Unmapped::Float] {
        let (devices, journal) = (
            AxVmDevices::default().with_unmapped(policy),
            Journal::default(),
        );
        R::add(&devices, Recorder::new(0, R::covering(0, LAST), &journal)).unwrap();
        for width in WIDTHS {
            let starts = (1..extent::<R>(width)).map(|inside| (LAST + 1 - inside, true));
            for (at, crosses) in starts.chain([(LAST + 1, false), (HOLE, false)]) {
                let case = format!("{policy:?} {at:#x} {width:?}");
                let expected = |direction| expected::<R>(policy, crosses, width, (direction, at));
                let read = outcome(|| R::read(&devices, at, width));
                assert_eq!(read, expected("read"), "{case}");
                // A write that floats returns no value: use the value of the read.
                let write = || R::write(&devices, at, width, 7).map(|()| floating::<R>(width));
                assert_eq!(outcome(write), expected("write"), "{case}");
            }
        }
        assert_eq!(journal.take(), [], "the device is not called");
        assert!(R::read(&devices, LAST, AccessWidth::Byte).is_ok());
    }
}

fn a_crossing_into_a_neighbour_is_no_hit_of_either<R: Bus>() {
    for policy in [Unmapped::Panic, Unmapped::Error, Unmapped::Float] {
        let (devices, journal) = (
            AxVmDevices::default().with_unmapped(policy),
            Journal::default(),
        );
        for (number, first) in [0, LAST + 1].into_iter().enumerate() {
            let range = R::covering(first, first + LAST);
            R::add(&devices, Recorder::new(number, range, &journal)).unwrap();
        }
        for width in WIDTHS {
            for inside in 1..extent::<R>(width) {
                let at = LAST + 1 - inside;
                let read = outcome(|| R::read(&devices, at, width));
                let expected = expected::<R>(policy, true, width, ("read", at));
                assert_eq!(read, expected, "{width:?}");
            }
        }
        assert_eq!(journal.take(), []);
    }
}

fn an_empty_registry_answers_as_the_policy_says<R: Bus>() {
    for policy in [Unmapped::Panic, Unmapped::Error, Unmapped::Float] {
        let devices = AxVmDevices::default().with_unmapped(policy);
        for at in [0, 1, R::HIGHEST] {
            let read = outcome(|| R::read(&devices, at, AccessWidth::Word));
            let expected = expected::<R>(policy, false, AccessWidth::Word, ("read", at));
            assert_eq!(read, expected);
        }
    }
}

on_every_bus!(
    every_policy_answers_holes_and_crossings,
    a_crossing_into_a_neighbour_is_no_hit_of_either,
    an_empty_registry_answers_as_the_policy_says,
);

#[test]
fn the_default_policy_is_the_features() {
    let default = if cfg!(feature = "float-unmapped") {
        Unmapped::Float
    } else {
        Unmapped::Panic
    };
    assert_eq!(Unmapped::default(), default);
    let width = AccessWidth::Dword;
    let expected = expected::<GuestPhysAddrRange>(default, false, width, ("read", 0));
    for devices in [
        AxVmDevices::default(),
        AxVmDevices::new(AxVmDeviceConfig::default()),
        AxVmDevices::try_new(AxVmDeviceConfig::default()).unwrap(),
        AxVmDevices::builder().build().unwrap(),
    ] {
        let read = outcome(|| GuestPhysAddrRange::read(&devices, 0, width));
        assert_eq!(read, expected);
    }
}

#[test]
fn many_misses_in_a_row_are_all_answered() {
    let devices = AxVmDevices::default().with_unmapped(Unmapped::Float);
    let reads = (0..100).map(|n| GuestPhysAddrRange::read(&devices, n, AccessWidth::Byte));
    assert!(reads.into_iter().all(|read| read == Ok(0xff)));
}

#[test]
fn an_error_of_a_device_is_not_taken_for_a_miss() {
    let devices = AxVmDevices::default().with_unmapped(Unmapped::Float);
    let fails = support::device::<GuestPhysAddrRange>(0, 7, |_| Err(AxError::NotFound));
    devices.add_mmio_dev(fails).unwrap();
    let read = GuestPhysAddrRange::read(&devices, 0, AccessWidth::Byte);
    assert_eq!(read, Err(AxError::NotFound));
}
