//! `for_each_*`: the devices of one instant, by address.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use axaddrspace::device::AccessWidth;
use support::{Bus, Recorder, read_of, registry};

const BYTE: AccessWidth = AccessWidth::Byte;

fn devices_are_visited_by_address<R: Bus>() {
    let devices = registry();
    R::for_each(&devices, |_, _, _| panic!("there is none"));
    let add = |first| {
        let device = Recorder::<R>::silent(0, first, first);
        (R::add(&devices, device.clone()).unwrap(), first, device)
    };
    let added = [R::HIGHEST, 0x20, 0].map(add);
    let mut expected = added.iter().rev();
    R::for_each(&devices, |id, range, device| {
        let (known, first, added) = expected.next().unwrap();
        assert_eq!((id, range), (*known, R::covering(*first, *first)));
        assert!(Arc::ptr_eq(device, &(added.clone() as _)));
    });
    assert!(expected.next().is_none());
}

fn a_visitor_may_use_the_registry<R: Bus>() {
    let devices = registry();
    let add = |n| R::add(&devices, Recorder::silent(n, n * 0x10, n * 0x10 + 0xf)).unwrap();
    let ids = [0, 1, 2].map(add);
    let mut visited = Vec::new();
    let mut removed = Vec::new();
    R::for_each(&devices, |id, range, _| {
        // All devices are removed, and another is added, before the second is visited.
        if visited.is_empty() {
            removed.extend(ids.map(|id| devices.remove(id).unwrap()));
            R::add(&devices, Recorder::silent(3, 0, 0x2f)).unwrap();
            R::for_each(&devices, |_, range, _| {
                assert_eq!(range, R::covering(0, 0x2f))
            });
        }
        assert_eq!(R::read(&devices, 0x18, BYTE), read_of::<R>(3, 0x18));
        assert!(removed.iter().all(|of| !of.is_quiescent()));
        visited.push((id, range));
    });
    let ranges = [0, 0x10, 0x20].map(|first| R::covering(first, first + 0xf));
    assert!(visited.into_iter().eq(ids.into_iter().zip(ranges)));
    assert!(removed.into_iter().all(|of| of.wait(0).is_ok()));
    assert_eq!(R::count(&devices), 1);
}

fn a_visitor_that_unwinds_holds_nothing<R: Bus>() {
    let devices = registry();
    let device = Recorder::<R>::silent(0, 0, 7);
    let id = R::add(&devices, device.clone()).unwrap();
    let visit = || R::for_each(&devices, |_, _, _| panic!("a visitor that unwinds"));
    assert!(catch_unwind(AssertUnwindSafe(visit)).is_err());
    assert!(devices.remove(id).unwrap().wait(0).is_ok());
    assert_eq!(Arc::strong_count(&device), 1);
}

on_every_bus!(
    devices_are_visited_by_address,
    a_visitor_may_use_the_registry,
    a_visitor_that_unwinds_holds_nothing,
);
