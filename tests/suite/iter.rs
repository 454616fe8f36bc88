//! `iter_*`: the devices of one instant, in the order of their registration.

use std::sync::Arc;

use axaddrspace::device::{Port, PortRange};
use support::{Bus, Recorder, registry};

fn a_device_is_iterated_over_once_regardless_of_its_ranges<R: Bus>() {
    let devices = registry();
    let added = [0x40, 0x00, 0x80, 0x20].map(|first| {
        let device = Recorder::<R>::silent(0, first, first + 0xf);
        (R::add(&devices, device.clone()).unwrap(), device)
    });
    let [(one, _), (two, _), (three, _), _] = added;
    devices.map(one, R::covering(0xc0, 0xcf)).unwrap();
    devices.map(two, R::covering(0x10, 0x1f)).unwrap();
    devices.unmap(three, R::covering(0x80, 0x8f)).unwrap();
    assert_eq!(R::count(&devices), 4);
    let all = R::all(&devices);
    assert_eq!(all.len(), 4);
    for (device, (_, expected)) in all.into_iter().zip(&added) {
        assert!(Arc::ptr_eq(device, &(expected.clone() as _)));
    }
    // Moves and maps do not change the order, a removal does.
    devices.move_to(one, R::covering(0x08, 0x0f)).unwrap_err();
    devices.move_to(one, R::covering(0xd0, 0xdf)).unwrap();
    devices.map(three, R::covering(0x80, 0x8f)).unwrap();
    drop(devices.remove(two).unwrap());
    let firsts = R::all(&devices).into_iter().map(|d| d.address_range());
    let expected = [0x40, 0x80, 0x20].map(|first| R::covering(first, first + 0xf));
    assert!(firsts.eq(expected));
}

fn an_item_is_the_same_device_that_find_returns<R: Bus>() {
    let devices = registry();
    R::add(&devices, Recorder::silent(0, 0x10, 0x1f)).unwrap();
    R::add(&devices, Recorder::silent(1, 0x00, 0x0f)).unwrap();
    for (item, at) in R::all(&devices).into_iter().zip([0x1f, 0x00]) {
        assert!(Arc::ptr_eq(item, &R::find(&devices, at).unwrap()));
    }
}

on_every_bus!(
    a_device_is_iterated_over_once_regardless_of_its_ranges,
    an_item_is_the_same_device_that_find_returns,
);

#[test]
fn the_items_are_of_the_instant_at_which_the_iterator_was_made() {
    let devices = registry();
    let add = |at| devices.add_port_dev(Recorder::silent(0, at, at)).unwrap();
    let ids = [3, 1, 2].map(add);
    let mut iter = devices.iter_port_dev();
    let range = |at| PortRange::new(Port(at), Port(at));
    assert_eq!(iter.next().map(|d| d.address_range()), Some(range(3)));
    add(0);
    ids.into_iter().for_each(|id| drop(devices.remove(id)));
    assert_eq!(iter.size_hint(), (2, Some(2)));
    let left = iter.by_ref().map(|device| device.address_range());
    assert!(left.eq([range(1), range(2)]));
    assert!(iter.next().is_none() && iter.next().is_none());
    assert_eq!(devices.iter_port_dev().count(), 1);
}
