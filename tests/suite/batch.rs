//! Recording changes in a batch.

use std::{sync::Arc, thread};

use axaddrspace::device::{AccessWidth, Port};
use axdevice::Refusal;
use support::{Bus, Journal, Recorder, owners, read_of, shared_registry, span};

use crate::common::Graves;

const BYTE: AccessWidth = AccessWidth::Byte;

fn a_batch_goes_on_without_a_range_that_it_refuses<R: Bus>() {
    let devices = shared_registry();
    let device = Recorder::new(1, R::raw(9, 7), &Journal::default());
    let (id, removed) = devices
        .update(|batch| -> Result<_, Refusal> {
            let refused = R::record(batch, device.clone()).unwrap_err();
            assert!(matches!(
                refused,
                Refusal::Empty { .. } | Refusal::Backwards { .. }
            ));
            let id = R::record(batch, Recorder::silent(0, 0x10, 0x1f))?;
            let again = batch.map(id, R::raw(9, 7)).unwrap_err();
            assert_eq!(batch.unmap(id, R::raw(9, 7)), Err(again));
            let refused = batch.move_to(id, R::raw(9, 7)).unwrap_err();
            assert_eq!(refused, again);
            assert!(matches!(
                refused,
                Refusal::Empty { .. } | Refusal::Backwards { .. }
            ));
            Ok(id)
        })
        .unwrap();
    assert!(removed.is_empty());
    assert_eq!(Arc::strong_count(&device), 1);
    assert_eq!(
        owners::<R, _>(&devices.snapshot()),
        [(id, R::covering(0x10, 0x1f))]
    );
}

fn a_device_is_unmapped_and_mapped_in_one_publication<R: Bus>() {
    let devices = shared_registry();
    let one = R::add(&devices, Recorder::silent(1, 0x10, 0x1f)).unwrap();
    let two = R::add(&devices, Recorder::silent(2, 0x20, 0x2f)).unwrap();
    let sixteen = |first: usize| R::covering(first, first + 0xf);
    // The second takes the range that the first loses, and keeps its own.
    let updated = devices.update(|batch| {
        batch.map(two, sixteen(0x10))?;
        batch.unmap(one, sixteen(0x10))?;
        batch.map(one, sixteen(0x40))
    });
    assert!(updated.unwrap().1.is_empty());
    let all = [
        (two, sixteen(0x10)),
        (two, sixteen(0x20)),
        (one, sixteen(0x40)),
    ];
    assert_eq!(owners::<R, _>(&devices.snapshot()), all);
    // A recorded change can be undone; the registry is unchanged.
    let updated = devices.update(|batch| {
        batch.map(one, sixteen(0x20))?;
        batch.unmap(one, sixteen(0x20))?;
        batch.unmap(two, sixteen(0x20))?;
        batch.map(two, sixteen(0x20))
    });
    assert!(updated.unwrap().1.is_empty());
    assert_eq!(owners::<R, _>(&devices.snapshot()), all);
    // A new device with two ranges, and one with none.
    let ((three, four), _) = devices
        .update(|batch| {
            let three = R::record(batch, Recorder::silent(3, 0x80, 0x8f))?;
            batch.map(three, sixteen(0x60))?;
            let four = R::record(batch, Recorder::silent(4, 0x90, 0x9f))?;
            batch.unmap(four, sixteen(0x90))?;
            Ok::<_, Refusal>((three, four))
        })
        .unwrap();
    let new = [(three, sixteen(0x60)), (three, sixteen(0x80))];
    let listed = owners::<R, _>(&devices.snapshot());
    assert_eq!(listed, [&all[..], &new[..]].concat());
    assert_eq!(R::count(&devices), 4);
    assert_eq!(devices.map(four, sixteen(0x90)), Ok(()));
    assert_eq!(R::read(&devices, 0x98, BYTE), read_of::<R>(4, 0x98));
}

fn the_changes_of_one_device_are_made_in_their_order<R: Bus>() {
    let devices = shared_registry();
    let id = R::add(&devices, Recorder::silent(0, 0x10, 0x1f)).unwrap();
    let listed = || owners::<R, _>(&devices.snapshot());
    let (here, there) = (R::covering(0x10, 0x1f), R::covering(0x40, 0x4f));
    let bus = R::BUS;
    let not_mapped = |span| Refusal::NotMapped { id, bus, span };
    // A move replaces ranges that were mapped before it, not ranges that are mapped after it.
    let updated = devices.update(|batch| {
        batch.map(id, there)?;
        batch.move_to(id, R::covering(0x80, 0x80))
    });
    assert!(updated.is_ok() && listed() == [(id, R::covering(0x80, 0x80))]);
    let updated = devices.update(|batch| {
        batch.move_to(id, here)?;
        batch.map(id, there)
    });
    assert!(updated.is_ok() && listed() == [(id, here), (id, there)]);
    // A device without ranges cannot be moved, and no device can lose a range twice.
    let refused = devices.update(|batch| {
        batch.unmap(id, here)?;
        batch.unmap(id, there)?;
        batch.move_to(id, here)
    });
    assert_eq!(refused.unwrap_err(), not_mapped(None));
    let refused = devices.update(|batch| {
        batch.unmap(id, here)?;
        batch.unmap(id, here)
    });
    let span = span(0x10, 0x1f);
    assert_eq!(refused.unwrap_err(), not_mapped(Some(span)));
    // A removed device has no ranges, and gets none.
    let refused = devices.update(|batch| {
        batch.remove(id)?;
        batch.map(id, R::covering(0, 0))
    });
    let bus = Some(bus);
    assert_eq!(refused.unwrap_err(), Refusal::Unknown { id, bus });
    assert_eq!(listed(), [(id, here), (id, there)]);
}

/// If two changes are wrong, the overlap is not reported, regardless of the order of recording.
fn an_overlap_comes_after_all_other_reasons<R: Bus>() {
    let devices = shared_registry();
    let [one, two] = [1, 2].map(|n| R::add(&devices, Recorder::silent(n, n, n)).unwrap());
    let (gone, _) = (two, devices.remove(two).unwrap());
    let unknown = Refusal::Unknown {
        id: gone,
        bus: None,
    };
    let overlaps = || Recorder::silent(3, 1, 1);
    let refused = devices.update(|batch| {
        R::record(batch, overlaps())?;
        batch.remove(gone)
    });
    assert_eq!(refused.unwrap_err(), unknown);
    let refused = devices.update(|batch| {
        batch.remove(gone)?;
        R::record(batch, overlaps())
    });
    assert_eq!(refused.unwrap_err(), unknown);
    // Of the other errors, the first recorded one is reported.
    let refused = devices.update(|batch| {
        batch.unmap(one, R::covering(7, 7))?;
        batch.remove(gone)
    });
    let not_mapped = Refusal::NotMapped {
        id: one,
        bus: R::BUS,
        span: Some(span(7, 7)),
    };
    assert_eq!(refused.unwrap_err(), not_mapped);
}

on_every_bus!(
    a_batch_goes_on_without_a_range_that_it_refuses,
    a_device_is_unmapped_and_mapped_in_one_publication,
    the_changes_of_one_device_are_made_in_their_order,
    an_overlap_comes_after_all_other_reasons,
);

#[test]
fn a_device_that_was_recorded_in_vain_dies_with_the_update() {
    let graves = Graves::default();
    let devices = shared_registry();
    let there = devices.add_port_dev(graves.mortal(0)).unwrap();
    let refused = devices.update(|batch| -> Result<(), Refusal> {
        batch.add_port_dev(graves.mortal(0x10))?;
        batch.add_port_dev(graves.mortal(0x17))?;
        batch.remove(there)
    });
    assert!(matches!(refused, Err(Refusal::Overlap { .. })));
    assert_eq!(*graves.lock(), [thread::current().id(); 2]);
    assert!(devices.find_port_dev(Port(0)).is_some());
}
