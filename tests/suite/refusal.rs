//! The additions that `add_*` refuses, the reasons, and that a refusal returns the device and
//! changes nothing.

use std::{error::Error, sync::Arc};

use ax_errno::AxError;
use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, PortRange, SysRegAddrRange},
};
use axdevice::{AxVmDevices, BusId, Refusal, Span};
use support::{Bus, Journal, Recorder, registry, span};

/// Asserts that a device with this range is refused for that reason, and is returned.
fn refused<R: Bus>(devices: &AxVmDevices, range: R, refusal: Refusal, error: AxError) {
    let before = devices.snapshot().to_string();
    let device = Recorder::new(9, range, &Journal::default());
    let refused = R::add(devices, device.clone()).unwrap_err();
    assert_eq!(refused.refusal(), refusal, "{range:?}");
    assert!(Arc::ptr_eq(&refused.into_device(), &(device.clone() as _)));
    assert_eq!(Arc::strong_count(&device), 1, "nothing keeps the device");
    let again = R::add(devices, device).unwrap_err();
    assert_eq!(AxError::from(again), error, "{range:?}");
    assert_eq!(devices.snapshot().to_string(), before);
}

fn invalid<R: Bus>(devices: &AxVmDevices, range: R, refusal: Refusal) {
    refused(devices, range, refusal, AxError::InvalidInput);
}

fn every_overlap_names_both_parties<R: Bus>() {
    let devices = registry();
    let add = |first, last| R::add(&devices, Recorder::silent(0, first, last)).unwrap();
    let (upper, lower) = (add(0x30, 0x3f), add(0x10, 0x1f));
    let cases = [
        (0x10, 0x1f, lower),
        (0x00, 0x10, lower),
        (0x1f, 0x1f, lower),
        (0x1f, 0x2f, lower),
        (0x14, 0x15, lower),
        (0x0f, 0x20, lower),
        (0x20, 0x30, upper),
        (0x3f, 0x4f, upper),
        (0x00, R::HIGHEST, lower),
        (0x20, R::HIGHEST, upper),
    ];
    for (first, last, owner) in cases {
        let owned = if owner == lower {
            Span::new(0x10, 0x1f)
        } else {
            Span::new(0x30, 0x3f)
        };
        let overlap = Refusal::Overlap {
            bus: R::BUS,
            wanted: span(first, last),
            owner,
            owned: owned.unwrap(),
        };
        let range = R::covering(first, last);
        refused(&devices, range, overlap, AxError::AlreadyExists);
    }
}

fn the_same_device_cannot_be_added_twice<R: Bus>() {
    let devices = registry();
    let device = Recorder::<R>::silent(0, 0x10, 0x1f);
    let owner = R::add(&devices, device.clone()).unwrap();
    let span = Span::new(0x10, 0x1f).unwrap();
    let overlap = Refusal::Overlap {
        bus: R::BUS,
        wanted: span,
        owner,
        owned: span,
    };
    assert_eq!(R::add(&devices, device).unwrap_err().refusal(), overlap);
    assert_eq!(R::all(&devices).len(), 1);
}

fn adjacent_spans_do_not_overlap<R: Bus>() {
    let devices = registry();
    for (first, last) in [(0x10, 0x1f), (0x20, 0x20), (0x00, 0x0f), (0x21, R::HIGHEST)] {
        let added = R::add(&devices, Recorder::silent(0, first, last));
        assert!(added.is_ok(), "{first:#x}..={last:#x}: {added:?}");
    }
    assert_eq!(R::all(&devices).len(), 4);
}

fn after_a_refusal_all_works_as_before<R: Bus>() {
    let (devices, journal) = (registry(), Journal::default());
    let add = |number, range| R::add(&devices, Recorder::new(number, range, &journal));
    let first = add(0, R::covering(0x10, 0x1f)).unwrap();
    for _ in 0..3 {
        assert!(add(1, R::covering(0x1f, 0x20)).is_err());
        assert!(add(2, R::raw(9, 7)).is_err());
        assert!(R::read(&devices, 0x20, AccessWidth::Byte).is_err());
        assert!(R::read(&devices, 0x1f, AccessWidth::Byte).is_ok());
    }
    assert!(journal.take().iter().all(|call| call.device == 0));
    let second = add(3, R::covering(0x20, 0x20)).unwrap();
    assert!(first < second);
    assert!(R::read(&devices, 0x20, AccessWidth::Byte).is_ok());
    assert_eq!(journal.take()[0].device, 3);
}

on_every_bus!(
    every_overlap_names_both_parties,
    the_same_device_cannot_be_added_twice,
    adjacent_spans_do_not_overlap,
    after_a_refusal_all_works_as_before,
);

#[test]
fn empty_and_backwards_mmio_ranges() {
    let devices = registry();
    for at in [0, 1, 0x1000, usize::MAX] {
        invalid(
            &devices,
            GuestPhysAddrRange::raw(at, at),
            Refusal::Empty {
                bus: BusId::Mmio,
                at,
            },
        );
    }
    for (start, end) in [
        (1, 0),
        (0x2000, 0x1000),
        (0x1000, 0xfff),
        (usize::MAX, 0),
        (usize::MAX - 0xfff, 0),
        (usize::MAX, usize::MAX - 1),
    ] {
        let range = GuestPhysAddrRange::raw(start, end);
        let backwards = Refusal::Backwards {
            bus: BusId::Mmio,
            start,
            end,
        };
        invalid(&devices, range, backwards);
    }
}

#[test]
fn empty_and_backwards_inclusive_ranges() {
    let devices = registry();
    for (start, end) in [(1, 0), (0x60, 0x5f), (0xffff, 0xfffe)] {
        let empty = |bus| Refusal::Empty { bus, at: start };
        let port = PortRange::raw(start, end);
        invalid(&devices, port, empty(BusId::Port));
        let sys_reg = SysRegAddrRange::raw(start, end);
        invalid(&devices, sys_reg, empty(BusId::SysReg));
    }
    for (start, end) in [(2, 0), (0x60, 0x5e), (0xffff, 0)] {
        let backwards = |bus| Refusal::Backwards { bus, start, end };
        let port = PortRange::raw(start, end);
        invalid(&devices, port, backwards(BusId::Port));
        let sys_reg = SysRegAddrRange::raw(start, end);
        invalid(&devices, sys_reg, backwards(BusId::SysReg));
    }
    let (start, end) = (usize::MAX, 0);
    let bus = BusId::SysReg;
    let backwards = Refusal::Backwards { bus, start, end };
    invalid(&devices, SysRegAddrRange::raw(start, end), backwards);
}

#[test]
fn a_refusal_displays_its_bus_its_ranges_and_the_owner() {
    let devices = registry();
    let owner = devices
        .add_port_dev(Recorder::silent(0, 0x3f8, 0x3ff))
        .unwrap();
    let wide = Recorder::<PortRange>::silent(1, 0x3f0, 0x3f8);
    let error = devices.add_port_dev(wide).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "device not added: on bus port, 0x3f0..=0x3f8 overlaps 0x3f8..=0x3ff of device {owner}"
        )
    );
    let debug = format!("{error:?}");
    assert!(debug.contains("Overlap { bus: Port, wanted: Span(0x3f0..=0x3f8), "));
    let backwards = Recorder::new(2, PortRange::raw(0x3ff, 0x3f8), &Journal::default());
    let error = devices.add_port_dev(backwards).unwrap_err();
    assert_eq!(
        error.to_string(),
        "device not added: on bus port, the range from 0x3ff to 0x3f8 ends before it starts"
    );
    let source = error.source().and_then(|source| source.downcast_ref());
    assert_eq!(source, Some(&error.refusal()));
}
