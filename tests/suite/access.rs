//! The accesses that a device gets: those wholly in its range, up to the ends of the bus, with values masked to the
//! width.

use ax_errno::AxError;
use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, PortRange, SysRegAddrRange},
};
use axdevice::AxVmDevices;
use support::{Bus, Call, Journal, Recorder, WIDTHS, answer, carried, extent, registry};

/// A registry with one device for each range, numbered from 0.
fn devices<R: Bus>(spans: &[(usize, usize)]) -> (AxVmDevices, Journal) {
    let (devices, journal) = (registry(), Journal::default());
    for (number, &(first, last)) in spans.iter().enumerate() {
        let range = R::covering(first, last);
        R::add(&devices, Recorder::new(number, range, &journal)).unwrap();
    }
    (devices, journal)
}

/// Asserts that device `number` gets accesses of `width` at `at` unchanged.
fn hits<R: Bus>(on: &(AxVmDevices, Journal), at: usize, width: AccessWidth, number: usize) {
    let (devices, journal) = on;
    let call = |written| Call {
        device: number,
        at,
        width,
        written,
    };
    let read = carried::<R>(answer(number, at), width);
    assert_eq!(R::read(devices, at, width), Ok(read), "{at:#x} {width:?}");
    assert_eq!(journal.take(), [call(None)], "{at:#x} {width:?}");
    let value = 0xfedc_ba98_7654_3210;
    assert_eq!(R::write(devices, at, width, value), Ok(()));
    assert_eq!(journal.take(), [call(Some(carried::<R>(value, width)))]);
}

/// Asserts that no device gets accesses of `width` at `at`.
fn misses<R: Bus>(on: &(AxVmDevices, Journal), at: usize, width: AccessWidth) {
    let (devices, journal) = on;
    let missed = Err(AxError::NotFound);
    assert_eq!(R::read(devices, at, width), missed, "{at:#x} {width:?}");
    assert_eq!(R::write(devices, at, width, 1), missed.map(drop));
    assert_eq!(journal.take(), [], "{at:#x} {width:?}");
}

fn a_device_can_own_the_first_and_the_last_address<R: Bus>() {
    let on = devices::<R>(&[(R::HIGHEST, R::HIGHEST), (0, 0)]);
    hits::<R>(&on, 0, AccessWidth::Byte, 1);
    hits::<R>(&on, R::HIGHEST, AccessWidth::Byte, 0);
    for at in [1, R::HIGHEST - 1] {
        misses::<R>(&on, at, AccessWidth::Byte);
        assert!(R::find(&on.0, at).is_none());
    }
}

fn a_device_can_own_the_whole_bus<R: Bus>() {
    let on = devices::<R>(&[(0, R::HIGHEST)]);
    for width in WIDTHS {
        hits::<R>(&on, 0, width, 0);
        hits::<R>(&on, R::HIGHEST / 2, width, 0);
        hits::<R>(&on, R::HIGHEST - (extent::<R>(width) - 1), width, 0);
    }
}

fn an_access_at_the_end_of_the_bus_does_not_wrap<R: Bus>() {
    let on = devices::<R>(&[(R::HIGHEST - 0xf, R::HIGHEST), (0, 0xf)]);
    for width in WIDTHS {
        let extent = extent::<R>(width);
        hits::<R>(&on, R::HIGHEST - (extent - 1), width, 0);
        (0..extent - 1).for_each(|short| misses::<R>(&on, R::HIGHEST - short, width));
    }
}

fn an_access_must_lie_wholly_in_a_device<R: Bus>() {
    // A hole after the first device, another device directly after the second.
    let on = devices::<R>(&[(0x20, 0x2f), (0x40, 0x4f), (0x50, 0x5f)]);
    for width in WIDTHS {
        let extent = extent::<R>(width);
        for (device, first) in [0x20, 0x40, 0x50].into_iter().enumerate() {
            hits::<R>(&on, first, width, device);
            hits::<R>(&on, first + 0x10 - extent, width, device);
            // From the last bytes the access runs into the hole or into the next device.
            (1..extent).for_each(|inside| misses::<R>(&on, first + 0x10 - inside, width));
        }
        // From before the first device into it.
        (1..=8).for_each(|before| misses::<R>(&on, 0x20 - before, width));
    }
}

fn a_device_of_one_address_takes_bytes_only<R: Bus>() {
    let on = devices::<R>(&[(7, 7)]);
    for width in WIDTHS {
        if extent::<R>(width) == 1 {
            hits::<R>(&on, 7, width, 0);
        } else {
            misses::<R>(&on, 7, width);
        }
    }
}

fn many_devices_are_distinguished_at_both_ends<R: Bus>() {
    // Added in neither ascending nor descending order: 37 and 64 are coprime.
    let spans: Vec<_> = (0..64)
        .map(|n| (n * 37 % 64) * 0x20)
        .map(|f| (f, f + 0xf))
        .collect();
    let on = devices::<R>(&spans);
    for (number, &(first, last)) in spans.iter().enumerate() {
        hits::<R>(&on, first, AccessWidth::Byte, number);
        hits::<R>(&on, last, AccessWidth::Byte, number);
        misses::<R>(&on, last + 1, AccessWidth::Byte);
    }
}

on_every_bus!(
    a_device_can_own_the_first_and_the_last_address,
    a_device_can_own_the_whole_bus,
    an_access_at_the_end_of_the_bus_does_not_wrap,
    an_access_must_lie_wholly_in_a_device,
    a_device_of_one_address_takes_bytes_only,
    many_devices_are_distinguished_at_both_ends,
);

#[test]
fn no_mmio_device_owns_the_last_address_of_all() {
    let on = devices::<GuestPhysAddrRange>(&[(0, usize::MAX - 1)]);
    misses::<GuestPhysAddrRange>(&on, usize::MAX, AccessWidth::Byte);
    assert!(GuestPhysAddrRange::find(&on.0, usize::MAX).is_none());
}

#[test]
fn the_buses_do_not_mix() {
    let on = devices::<SysRegAddrRange>(&[(0x10, 0x1f)]);
    hits::<SysRegAddrRange>(&on, 0x10, AccessWidth::Byte, 0);
    misses::<GuestPhysAddrRange>(&on, 0x10, AccessWidth::Byte);
    misses::<PortRange>(&on, 0x10, AccessWidth::Byte);
}

#[test]
fn the_width_of_a_system_register_access_is_passed_on_and_means_nothing() {
    let on = devices::<SysRegAddrRange>(&[(5, 5), (6, 6)]);
    for width in WIDTHS {
        assert_eq!(
            SysRegAddrRange::read(&on.0, 5, width),
            Ok(answer(0, 5)),
            "unmasked"
        );
        assert_eq!(on.1.take()[0].width, width);
        assert_eq!(SysRegAddrRange::write(&on.0, 5, width, usize::MAX), Ok(()));
        assert_eq!(on.1.take()[0].written, Some(usize::MAX));
    }
}
