//! `iter_mut_*`: items that are replaced, and the first use of the registry afterwards, for each kind of use.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange, SysRegAddrRange},
};
use axdevice::{AxVmDevices, Unmapped};
use axdevice_base::BaseDeviceOps;
use support::{Bus, Recorder, answer, carried, mortal, ranged, registry};

const BYTE: AccessWidth = AccessWidth::Byte;

/// The device, of the first ten, that answers at `at`.
fn owner<R: Bus>(devices: &AxVmDevices, at: usize) -> Option<usize> {
    // Two reads of a byte distinguish devices that one read does not.
    let value = R::read(devices, at, BYTE).ok()?;
    let found: Vec<_> = (0..10)
        .filter(|&n| carried::<R>(answer(n, at), BYTE) == value)
        .collect();
    assert_eq!(found.len(), 1, "the reads distinguish the devices");
    Some(found[0])
}

/// Device 0 at `0x10..=0x1f`, device 1 at `0x00..=0x0f`.
fn two<R: Bus>() -> AxVmDevices {
    let devices = registry();
    R::add(&devices, Recorder::silent(0, 0x10, 0x1f)).unwrap();
    R::add(&devices, Recorder::silent(1, 0x00, 0x0f)).unwrap();
    devices
}

/// Replaces item `index` by device `number` at `first..=last`.
fn replace<R: Bus>(devices: &mut AxVmDevices, index: usize, number: usize, span: (usize, usize)) {
    *R::all_mut(devices)[index] = Recorder::<R>::silent(number, span.0, span.1);
}

fn items_come_in_the_order_of_registration_and_stay_replaced<R: Bus>() {
    let mut devices = two::<R>();
    let ids = |d: &AxVmDevices| -> Vec<_> {
        let mut ids: Vec<_> = R::listed(&d.snapshot()).into_iter().map(|l| l.0).collect();
        ids.sort();
        ids
    };
    let before = ids(&devices);
    replace::<R>(&mut devices, 0, 2, (0x10, 0x1f));
    assert_eq!(owner::<R>(&devices, 0x10), Some(2));
    assert_eq!(owner::<R>(&devices, 0), Some(1));
    assert_eq!(ids(&devices), before, "a place keeps its id");
    replace::<R>(&mut devices, 1, 3, (0x00, 0x0f));
    assert_eq!(owner::<R>(&devices, 0x10), Some(2));
    assert_eq!(owner::<R>(&devices, 0), Some(3));
    assert_eq!(ids(&devices), before);
}

fn a_device_is_replaced_by_one_with_another_range<R: Bus>() {
    let mut devices = two::<R>();
    replace::<R>(&mut devices, 0, 2, (0x40, 0x41));
    assert_eq!(owner::<R>(&devices, 0x41), Some(2));
    assert_eq!(owner::<R>(&devices, 0x10), None);
    // A freed range can be taken, by an addition and by a replacement.
    let added = R::add(&devices, Recorder::silent(3, 0x10, 0x17));
    assert!(added.is_ok());
    replace::<R>(&mut devices, 1, 4, (0x18, 0x1f));
    let owners = [0x00, 0x10, 0x18, 0x40].map(|at| owner::<R>(&devices, at));
    assert_eq!(owners, [None, Some(3), Some(4), Some(2)]);
}

fn devices_can_swap_their_ranges<R: Bus>() {
    let mut devices = two::<R>();
    for (item, span) in R::all_mut(&mut devices)
        .into_iter()
        .zip([(0, 0xf), (0x10, 0x1f)])
    {
        *item = Recorder::<R>::silent(span.0 / 0x10 + 2, span.0, span.1);
    }
    assert_eq!(owner::<R>(&devices, 0), Some(2));
    assert_eq!(owner::<R>(&devices, 0x10), Some(3));
    R::all_mut(&mut devices).swap(0, 1);
    assert_eq!(owner::<R>(&devices, 0), Some(2), "only references moved");
    let mut items = R::all_mut(&mut devices);
    let (first, second) = items.split_at_mut(1);
    std::mem::swap(first[0], second[0]);
    assert_eq!(owner::<R>(&devices, 0), Some(2));
    let order: Vec<_> = R::all(&devices).iter().map(|d| d.address_range()).collect();
    assert_eq!(order, [R::covering(0x10, 0x1f), R::covering(0, 0xf)]);
}

fn a_replacement_that_does_not_fit_undoes_all_replacements<R: Bus>() {
    // To the other's new range, an empty range, a range that wraps.
    for range in [R::covering(0x8f, 0x90), R::raw(9, 8), R::raw(9, 7)] {
        let mut devices = two::<R>();
        let map = devices.snapshot().to_string();
        *R::all_mut(&mut devices)[0] = Recorder::new(2, range, &Default::default());
        // A replacement that would fit alone is undone too.
        replace::<R>(&mut devices, 1, 3, (0x80, 0x8f));
        assert_eq!(owner::<R>(&devices, 0x10), Some(0), "{range:?}");
        assert_eq!(owner::<R>(&devices, 0x0f), Some(1), "{range:?}");
        assert_eq!(owner::<R>(&devices, 0x80), None, "{range:?}");
        assert_eq!(devices.snapshot().to_string(), map);
        // It does not come back later.
        assert_eq!(R::all_mut(&mut devices).len(), 2);
        assert_eq!(owner::<R>(&devices, 0x10), Some(0), "{range:?}");
        assert_eq!(owner::<R>(&devices, 0x00), Some(1), "{range:?}");
    }
}

fn the_first_use_after_iter_mut_sees_the_new_devices<R: Bus>() {
    type First<'a> = (&'a str, fn(&AxVmDevices) -> bool);
    fn adds<R: Bus>(devices: &AxVmDevices, at: usize) -> bool {
        R::add(devices, Recorder::silent(3, at, at)).is_ok()
    }
    let firsts: [First<'_>; 9] = [
        ("read", |d| R::read(d, 0x40, BYTE).is_ok()),
        ("write", |d| R::write(d, 0x40, BYTE, 0).is_ok()),
        ("miss", |d| R::read(d, 0x10, BYTE).is_err()),
        ("find", |d| R::find(d, 0x40).is_some()),
        ("vain find", |d| R::find(d, 0x10).is_none()),
        ("iter", |d| {
            R::all(d)[0].address_range() == R::covering(0x40, 0x4f) && R::all(d).len() == 2
        }),
        ("add", |d| adds::<R>(d, 0x10)),
        ("refused add", |d| !adds::<R>(d, 0x40)),
        ("snapshot", |d| R::listed(&d.snapshot()).len() == 2),
    ];
    for (name, first) in firsts {
        let mut devices = two::<R>();
        replace::<R>(&mut devices, 0, 2, (0x40, 0x4f));
        assert!(first(&devices), "{name}");
        assert_eq!(owner::<R>(&devices, 0x4f), Some(2), "after {name}");
        assert_eq!(owner::<R>(&devices, 0x00), Some(1), "after {name}");
    }
}

fn an_iterator_that_is_not_used_changes_nothing<R: Bus>() {
    let mut devices = two::<R>();
    let map = devices.snapshot().to_string();
    drop(R::all_mut(&mut devices));
    drop(R::all_mut(&mut devices));
    assert_eq!(owner::<R>(&devices, 0x10), Some(0));
    drop(R::all_mut(&mut devices));
    assert_eq!(devices.snapshot().to_string(), map);
    let mut none = registry();
    assert_eq!(R::all_mut(&mut none).len(), 0);
    assert_eq!(owner::<R>(&none, 0), None);
    assert!(R::add(&none, Recorder::silent(0, 0, 0)).is_ok());
    assert_eq!(owner::<R>(&none, 0), Some(0));
}

fn iteration_after_a_replacement_lends_the_new_device<R: Bus>() {
    let mut devices = two::<R>();
    assert_eq!(R::all(&devices).len(), 2);
    for number in 2..6 {
        replace::<R>(&mut devices, 0, number, (0x10, 0x1f));
        let ranges: Vec<_> = R::all(&devices).iter().map(|d| d.address_range()).collect();
        assert_eq!(ranges, [R::covering(0x10, 0x1f), R::covering(0, 0xf)]);
        let lent = R::all(&devices);
        assert_eq!(
            lent[0].handle_read(R::at(0x10), BYTE),
            Ok(answer(number, 0x10))
        );
    }
}

fn the_next_replacement_drops_a_replaced_device<R: Bus>() {
    let mut devices = registry();
    let old = Recorder::<R>::silent(0, 0x10, 0x1f);
    R::add(&devices, old.clone()).unwrap();
    replace::<R>(&mut devices, 0, 1, (0x10, 0x1f));
    assert_eq!(owner::<R>(&devices, 0x10), Some(1));
    assert!(
        Arc::strong_count(&old) > 1,
        "it may still have to be put back"
    );
    drop(R::all_mut(&mut devices));
    assert_eq!(Arc::strong_count(&old), 1);
    drop(devices);
}

fn a_device_that_has_no_range_gets_none<R: Bus>() {
    let mut devices = two::<R>();
    let id = R::listed(&devices.snapshot())[1].0;
    devices.unmap(id, R::covering(0x10, 0x1f)).unwrap();
    let map = devices.snapshot().to_string();
    // Not if it stays, and not if it is replaced, regardless of the new device's range: the other's range, or an empty
    // one.
    assert_eq!(R::all_mut(&mut devices).len(), 2);
    assert_eq!(devices.snapshot().to_string(), map);
    for range in [
        R::covering(0x10, 0x1f),
        R::covering(0x08, 0x08),
        R::raw(9, 8),
    ] {
        *R::all_mut(&mut devices)[0] = Recorder::new(2, range, &Default::default());
        assert_eq!(owner::<R>(&devices, 0x10), None);
        assert_eq!(owner::<R>(&devices, 0x08), Some(1));
        assert_eq!(devices.snapshot().to_string(), map);
        assert_eq!(R::all(&devices)[0].address_range(), range, "it is there");
    }
    // It keeps its id, and can be mapped.
    devices.map(id, R::covering(0x40, 0x4f)).unwrap();
    assert_eq!(owner::<R>(&devices, 0x4f), Some(2));
    let listed = R::listed(&devices.snapshot());
    assert_eq!((listed[1].0, listed[1].1), (id, R::covering(0x40, 0x4f)));
}

fn a_device_with_two_ranges_keeps_both_and_another_in_its_place_neither<R: Bus>() {
    let mut devices = two::<R>();
    let id = R::listed(&devices.snapshot())[1].0;
    devices.map(id, R::covering(0x40, 0x4f)).unwrap();
    let map = devices.snapshot().to_string();
    // It is one item.
    assert_eq!(R::all_mut(&mut devices).len(), 2);
    assert_eq!(devices.snapshot().to_string(), map);
    replace::<R>(&mut devices, 1, 3, (0x20, 0x2f));
    let owners = [0x10, 0x20, 0x40].map(|at| owner::<R>(&devices, at));
    assert_eq!(owners, [Some(0), Some(3), Some(0)]);
    // A device that would overlap the second range puts it back.
    replace::<R>(&mut devices, 1, 4, (0x48, 0x57));
    let owners = [0x10, 0x20, 0x48].map(|at| owner::<R>(&devices, at));
    assert_eq!(owners, [Some(0), Some(3), Some(0)]);
    // Another device gets the range that it returns, in place of both.
    replace::<R>(&mut devices, 0, 5, (0x18, 0x1f));
    let owners = [0x10, 0x18, 0x40].map(|at| owner::<R>(&devices, at));
    assert_eq!(owners, [None, Some(5), None]);
    let listed = R::listed(&devices.snapshot());
    assert_eq!((listed[0].0, listed[0].1), (id, R::covering(0x18, 0x1f)));
}

on_every_bus!(
    a_device_that_has_no_range_gets_none,
    a_device_with_two_ranges_keeps_both_and_another_in_its_place_neither,
    items_come_in_the_order_of_registration_and_stay_replaced,
    a_device_is_replaced_by_one_with_another_range,
    devices_can_swap_their_ranges,
    a_replacement_that_does_not_fit_undoes_all_replacements,
    the_first_use_after_iter_mut_sees_the_new_devices,
    an_iterator_that_is_not_used_changes_nothing,
    iteration_after_a_replacement_lends_the_new_device,
    the_next_replacement_drops_a_replaced_device,
);

#[test]
fn the_items_of_all_buses_are_replaced_together() {
    let mut devices = two::<GuestPhysAddrRange>();
    devices.add_port_dev(Recorder::silent(0, 0, 0)).unwrap();
    devices.add_sys_reg_dev(Recorder::silent(0, 0, 0)).unwrap();
    replace::<GuestPhysAddrRange>(&mut devices, 0, 5, (0x20, 0x2f));
    replace::<PortRange>(&mut devices, 0, 6, (1, 1));
    replace::<SysRegAddrRange>(&mut devices, 0, 7, (2, 2));
    assert_eq!(owner::<SysRegAddrRange>(&devices, 2), Some(7));
    assert_eq!(owner::<PortRange>(&devices, 1), Some(6));
    assert_eq!(owner::<PortRange>(&devices, 0), None);
    assert_eq!(owner::<GuestPhysAddrRange>(&devices, 0x20), Some(5));
    assert_eq!(owner::<GuestPhysAddrRange>(&devices, 0), Some(1));
}

#[test]
fn one_bus_that_does_not_fit_puts_the_others_back_too() {
    let mut devices = two::<GuestPhysAddrRange>();
    devices.add_port_dev(Recorder::silent(0, 0, 0)).unwrap();
    replace::<PortRange>(&mut devices, 0, 6, (1, 1));
    replace::<GuestPhysAddrRange>(&mut devices, 0, 5, (0, 0xff));
    assert_eq!(owner::<PortRange>(&devices, 0), Some(0));
    assert_eq!(owner::<PortRange>(&devices, 1), None);
    assert_eq!(owner::<GuestPhysAddrRange>(&devices, 0x10), Some(0));
}

#[test]
fn a_miss_afterwards_is_answered_as_the_policy_says() {
    for (policy, read) in [
        (Unmapped::Float, Ok(0xff)),
        (Unmapped::Error, Err(ax_errno::AxError::NotFound)),
    ] {
        let mut devices = two::<PortRange>().with_unmapped(policy);
        replace::<PortRange>(&mut devices, 0, 2, (0x40, 0x4f));
        assert_eq!(devices.handle_port_read(Port(0x10), BYTE), read);
    }
}

#[test]
fn a_destructor_that_unwinds_leaves_the_registry_usable() {
    let mut devices = two::<PortRange>();
    let mine = mortal::<PortRange>(0x20, 0x2f, || panic!("a destructor that unwinds"));
    devices.add_port_dev(mine).unwrap();
    replace::<PortRange>(&mut devices, 2, 4, (0x20, 0x2f));
    assert_eq!(owner::<PortRange>(&devices, 0x20), Some(4));
    // The replaced device is dropped here.
    let unwound = catch_unwind(AssertUnwindSafe(|| drop(PortRange::all_mut(&mut devices))));
    assert!(unwound.is_err());
    let owners = [0x00, 0x10, 0x20].map(|at| owner::<PortRange>(&devices, at));
    assert_eq!(owners, [Some(1), Some(0), Some(4)]);
    replace::<PortRange>(&mut devices, 0, 5, (0x30, 0x3f));
    assert_eq!(owner::<PortRange>(&devices, 0x30), Some(5));
    assert_eq!(owner::<PortRange>(&devices, 0x20), Some(4));
}

/// A device that counts the reads of its range, and panics at the `unwinds`th.
fn asked(count: &Arc<AtomicUsize>, unwinds: usize) -> Arc<impl BaseDeviceOps<PortRange> + use<>> {
    let count = count.clone();
    ranged(move || {
        let asked = count.fetch_add(1, Relaxed) + 1;
        assert_ne!(asked, unwinds, "a range that unwinds");
        PortRange::new(Port(0x20), Port(0x2f))
    })
}

#[test]
fn a_range_is_read_once_when_added_and_not_when_put_back() {
    let count = Arc::new(AtomicUsize::new(0));
    let mut devices = registry();
    devices.add_port_dev(asked(&count, 0)).unwrap();
    let uses = |devices: &AxVmDevices| {
        assert_eq!(devices.handle_port_read(Port(0x2f), BYTE), Ok(1));
        assert!(devices.find_port_dev(Port(0x20)).is_some());
        assert_eq!(devices.iter_port_dev().count(), 1);
        assert!(devices.handle_port_read(Port(0x30), BYTE).is_err());
        devices.add_mmio_dev(Recorder::silent(0, 0, 0)).err()
    };
    assert!(uses(&devices).is_none());
    assert_eq!(count.load(Relaxed), 1);
    drop(PortRange::all_mut(&mut devices));
    drop(PortRange::all_mut(&mut devices));
    assert!(uses(&devices).is_some(), "it is there from before");
    assert_eq!(count.load(Relaxed), 1);
}

#[test]
fn a_range_that_unwinds_is_asked_for_again() {
    // When it is added, the registry is unchanged; when it replaces another device, the next use reads its range.
    let device = || asked(&Arc::default(), 1);
    let mut devices = two::<PortRange>();
    let added = device();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        devices.add_port_dev(added.clone()).is_ok()
    }));
    assert!(unwound.is_err());
    assert_eq!(Arc::strong_count(&added), 1);
    assert_eq!(devices.iter_port_dev().count(), 2);
    replace::<PortRange>(&mut devices, 0, 5, (0x40, 0x4f));
    *devices.iter_mut_port_dev().nth(1).unwrap() = device();
    let unwound = catch_unwind(AssertUnwindSafe(|| devices.snapshot().to_string()));
    assert!(unwound.is_err());
    assert_eq!(devices.handle_port_read(Port(0x20), BYTE), Ok(1));
    assert_eq!(owner::<PortRange>(&devices, 0x40), Some(5));
}
