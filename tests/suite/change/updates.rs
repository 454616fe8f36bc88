//! `update`: changes on all buses, made at one instant or not at all.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Acquire},
    },
    thread,
};

use ax_errno::AxError;
use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange, SysRegAddrRange},
};
use axdevice::{Batch, Refusal, SharedVmDevices, Snapshot, Span, ThreadSafe};
use support::{
    Access, Bus, Recorder, Sets, answer, device, owners, read_of, registry, shared_registry, size,
    span,
};

const BYTE: AccessWidth = AccessWidth::Byte;
const QWORD: AccessWidth = AccessWidth::Qword;

fn changes_are_made_together_and_in_order<R: Bus>() {
    let devices = shared_registry();
    let add = |n| R::add(&devices, Recorder::silent(n, n * 0x10, n * 0x10 + 0xf)).unwrap();
    let [one, two, three] = [0, 1, 2].map(add);
    // A range that is freed and taken, one that is taken and freed, two that are swapped.
    let (added, removed) = devices
        .update(|batch| -> Result<_, Refusal> {
            batch.remove(one)?;
            let heir = R::record(batch, Recorder::silent(3, 0, 0xf))?;
            let passing = R::record(batch, Recorder::silent(4, 0x40, 0x4f))?;
            batch.remove(passing)?;
            batch.move_to(two, R::covering(0x40, 0x4f))?;
            batch.move_to(three, R::covering(0x10, 0x1f))?;
            batch.move_to(two, R::covering(0x20, 0x2f))?;
            // None of the changes is visible yet.
            assert_eq!(R::read(&devices, 0, QWORD), Ok(answer(0, 0)));
            assert_eq!(owners::<R, _>(&devices.snapshot()).len(), 3);
            Ok([heir, passing])
        })
        .unwrap();
    let [heir, passing] = added;
    let ids: Vec<_> = removed.iter().map(|removed| removed.id()).collect();
    assert_eq!(ids, [one, passing], "in the order of the removals");
    let places = [(heir, 0), (three, 0x10), (two, 0x20)];
    let expected = places.map(|(id, first)| (id, R::covering(first, first + 0xf)));
    assert_eq!(owners::<R, _>(&devices.snapshot()), expected);
    for (n, at) in [(3, 0), (2, 0x10), (1, 0x20)] {
        assert_eq!(R::read(&devices, at, QWORD), Ok(answer(n, at)));
    }
    for removed in removed {
        let device = removed.wait(0).unwrap();
        assert_eq!(Arc::strong_count(&R::unwrapped(device).unwrap()), 1);
    }
}

fn a_conflict_inside_the_batch_is_found_and_named<R: Bus>() {
    let devices = shared_registry();
    let there = R::add(&devices, Recorder::silent(0, 0x10, 0x1f)).unwrap();
    let map = devices.snapshot().to_string();
    let mut recorded = None;
    let refused = devices.update(|batch| -> Result<(), Refusal> {
        batch.remove(there)?;
        recorded = Some(R::record(batch, Recorder::silent(1, 0x10, 0x17))?);
        R::record(batch, Recorder::silent(2, 0x17, 0x18))?;
        Ok(())
    });
    let overlap = Refusal::Overlap {
        bus: R::BUS,
        wanted: Span::new(0x17, 0x18).unwrap(),
        owner: recorded.unwrap(),
        owned: Span::new(0x10, 0x17).unwrap(),
    };
    assert_eq!(refused.unwrap_err(), overlap);
    // With a registered device that stays.
    let refused = devices.update(|batch| R::record(batch, Recorder::silent(3, 0x1f, 0x1f)));
    let overlap = Refusal::Overlap {
        bus: R::BUS,
        wanted: Span::new(0x1f, 0x1f).unwrap(),
        owner: there,
        owned: Span::new(0x10, 0x1f).unwrap(),
    };
    assert_eq!(refused.unwrap_err(), overlap);
    // Removed twice, moved once it is gone.
    let unknown = |bus| Refusal::Unknown { id: there, bus };
    let refused = devices.update(|batch| batch.remove(there).and_then(|()| batch.remove(there)));
    assert_eq!(refused.unwrap_err(), unknown(None));
    let refused = devices.update(|batch| {
        batch.remove(there)?;
        batch.move_to(there, R::covering(0, 0))
    });
    assert_eq!(refused.unwrap_err(), unknown(Some(R::BUS)));
    assert_eq!(devices.snapshot().to_string(), map);
    assert_eq!(R::read(&devices, 0x10, QWORD), Ok(answer(0, 0x10)));
}

fn a_record_that_fails_or_unwinds_changes_nothing<R: Bus>() {
    let devices = shared_registry();
    let there = R::add(&devices, Recorder::silent(0, 0x10, 0x1f)).unwrap();
    let map = devices.snapshot().to_string();
    let device = Recorder::<R>::silent(1, 0x20, 0x2f);
    let record = |batch: &mut Batch<'_, ThreadSafe>| {
        batch.remove(there)?;
        batch.move_to(there, R::covering(0, 0))?;
        R::record(batch, device.clone())
    };
    let failed = devices.update(|batch| {
        record(batch)?;
        Err::<(), AxError>(AxError::Io)
    });
    assert_eq!(failed.unwrap_err(), AxError::Io, "the closure's own error");
    let unwinds = || {
        devices.update(|batch| -> Result<(), Refusal> {
            record(batch)?;
            panic!("a closure that unwinds");
        })
    };
    assert!(catch_unwind(AssertUnwindSafe(unwinds)).is_err());
    assert_eq!(devices.snapshot().to_string(), map);
    assert_eq!(
        Arc::strong_count(&device),
        1,
        "nothing keeps what was recorded"
    );
    // The ids that were assigned are skipped.
    let next = R::add(&devices, device).unwrap();
    assert!(next > there);
    assert_eq!(next.to_string(), "#4");
}

fn an_update_applies_after_changes_published_while_it_records<R: Bus>() {
    let devices = shared_registry();
    let add = |n, first: usize| R::add(&devices, Recorder::silent(n, first, first + 0xf));
    let [one, two] = [0, 1].map(|n| add(n, n * 0x10).unwrap());
    let mut runs = 0;
    let mut between = None;
    let (heir, removed) = devices
        .update(|batch| -> Result<_, Refusal> {
            runs += 1;
            batch.remove(one)?;
            // Published before the recorded changes.
            between = Some(add(2, 0x20).unwrap());
            devices.move_to(two, R::covering(0x40, 0x4f))?;
            R::record(batch, Recorder::silent(3, 0, 0x1f))
        })
        .unwrap();
    assert_eq!(runs, 1);
    assert_eq!(removed.len(), 1);
    let expected = [
        (heir, R::covering(0, 0x1f)),
        (between.unwrap(), R::covering(0x20, 0x2f)),
        (two, R::covering(0x40, 0x4f)),
    ];
    assert_eq!(owners::<R, _>(&devices.snapshot()), expected);
    assert!(between.unwrap() < heir);
}

fn an_update_fails_if_it_conflicts_with_a_change_made_while_it_records<R: Bus>() {
    let devices = shared_registry();
    let there = R::add(&devices, Recorder::silent(0, 0x10, 0x1f)).unwrap();
    let device = Recorder::<R>::silent(2, 0x20, 0x2f);
    let mut between = None;
    let refused = devices.update(|batch| -> Result<(), Refusal> {
        batch.remove(there)?;
        R::record(batch, device.clone())?;
        between = Some(R::add(&devices, Recorder::silent(1, 0x2f, 0x2f))?);
        Ok(())
    });
    let overlap = Refusal::Overlap {
        bus: R::BUS,
        wanted: Span::new(0x20, 0x2f).unwrap(),
        owner: between.unwrap(),
        owned: Span::new(0x2f, 0x2f).unwrap(),
    };
    assert_eq!(refused.unwrap_err(), overlap);
    assert_eq!(Arc::strong_count(&device), 1);
    let mut gone = None;
    let refused = devices.update(|batch| -> Result<(), Refusal> {
        batch.move_to(there, R::covering(0, 0xf))?;
        gone = Some(devices.remove(there)?);
        Ok(())
    });
    let bus = Some(R::BUS);
    assert_eq!(refused.unwrap_err(), Refusal::Unknown { id: there, bus });
    assert!(gone.unwrap().wait(0).is_ok());
    let left = [(between.unwrap(), R::covering(0x2f, 0x2f))];
    assert_eq!(owners::<R, _>(&devices.snapshot()), left);
}

fn a_handler_updates_the_registry_that_called_it<R: Bus>() {
    let devices = Arc::new(shared_registry());
    let weak = Arc::downgrade(&devices);
    let device = device::<R>(0, 7, move |Access { at, .. }| {
        let devices: Arc<SharedVmDevices> = weak.upgrade().unwrap();
        let own = R::listed(&devices.snapshot())[0].0;
        let (heir, removed) = devices.update(|batch| -> Result<_, Refusal> {
            batch.remove(own)?;
            R::record(batch, Recorder::silent(1, 0, 7))
        })?;
        assert!(!removed[0].is_quiescent());
        assert!(heir > removed[0].id());
        R::read(&*devices, at, BYTE)
    });
    R::add(&*devices, device).unwrap();
    let read = R::read(&*devices, 3, BYTE);
    assert_eq!(read, R::read(&*devices, 3, BYTE));
    assert!(read.is_ok());
}

/// No address is free, so no device can be moved out of the way first.
fn two_devices_that_fill_the_bus_swap<R: Bus>() {
    let devices = shared_registry();
    let half = R::HIGHEST / 2;
    let (low, high) = (R::covering(0, half), R::covering(half + 1, R::HIGHEST));
    let one = R::add(&devices, Recorder::silent(1, 0, half)).unwrap();
    let two = R::add(&devices, Recorder::silent(2, half + 1, R::HIGHEST)).unwrap();
    let mut vcpu = devices.dispatcher();
    let mut reads = |number, first, last| {
        for at in [first, last] {
            let expected = read_of::<R>(number, at);
            assert_eq!(R::read(&devices, at, BYTE), expected, "{at:#x}");
            assert_eq!(R::vcpu_read(&mut vcpu, at, BYTE), expected, "{at:#x}");
        }
    };
    reads(1, 0, half);
    let swapped = devices.update(|batch| {
        batch.move_to(one, high)?;
        batch.move_to(two, low)
    });
    assert!(swapped.unwrap().1.is_empty());
    assert_eq!(
        owners::<R, _>(&devices.snapshot()),
        [(two, low), (one, high)]
    );
    reads(2, 0, half);
    reads(1, half + 1, R::HIGHEST);
    // And back, with maps recorded before unmaps.
    let swapped = devices.update(|batch| {
        batch.map(one, low)?;
        batch.map(two, high)?;
        batch.unmap(two, low)?;
        batch.unmap(one, high)
    });
    assert!(swapped.unwrap().1.is_empty());
    assert_eq!(
        owners::<R, _>(&devices.snapshot()),
        [(one, low), (two, high)]
    );
    reads(1, 0, half);
    reads(2, half + 1, R::HIGHEST);
}

fn three_devices_that_fill_the_bus_change_places_in_a_circle<R: Bus>() {
    let devices = shared_registry();
    let third = R::HIGHEST / 3;
    let ranges = [
        (0, third),
        (third + 1, 2 * third),
        (2 * third + 1, R::HIGHEST),
    ];
    let add = |n: usize| R::add(&devices, Recorder::silent(n, ranges[n].0, ranges[n].1));
    let ids = [0, 1, 2].map(|n| add(n).unwrap());
    // In every order of recording the three moves.
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    for (turns, order) in (1..).zip(orders) {
        let place = |device: usize| ranges[(device + turns) % 3];
        let range = |device| R::covering(place(device).0, place(device).1);
        let turned = devices.update(|batch| {
            let mut moves = order.into_iter();
            moves.try_for_each(|device| batch.move_to(ids[device], range(device)))
        });
        assert!(turned.unwrap().1.is_empty());
        for device in 0..3 {
            let (first, last) = place(device);
            assert_eq!(R::read(&devices, first, BYTE), read_of::<R>(device, first));
            assert_eq!(R::read(&devices, last, BYTE), read_of::<R>(device, last));
        }
    }
}

fn an_update_may_take_a_range_before_it_removes_the_owner<R: Bus>() {
    let devices = shared_registry();
    let old = R::add(&devices, Recorder::silent(0, 0, R::HIGHEST)).unwrap();
    // Its place is taken by a new device first, and by one that moves then.
    let (heir, removed) = devices
        .update(|batch| {
            let heir = R::record(batch, Recorder::silent(1, 0, R::HIGHEST))?;
            batch.remove(old)?;
            Ok::<_, Refusal>(heir)
        })
        .unwrap();
    assert!(removed.iter().map(|of| of.id()).eq([old]));
    assert_eq!(
        R::read(&devices, R::HIGHEST, BYTE),
        read_of::<R>(1, R::HIGHEST)
    );
    devices.move_to(heir, R::covering(0, 7)).unwrap();
    let other = R::add(&devices, Recorder::silent(2, 8, 15)).unwrap();
    let ((), removed) = devices
        .update(|batch| {
            batch.move_to(other, R::covering(0, R::HIGHEST))?;
            batch.remove(heir)
        })
        .unwrap();
    assert!(removed.iter().map(|of| of.id()).eq([heir]));
    let all = [(other, R::covering(0, R::HIGHEST))];
    assert_eq!(owners::<R, _>(&devices.snapshot()), all);
}

fn an_update_whose_result_overlaps_changes_nothing<R: Bus>() {
    let devices = shared_registry();
    let one = R::add(&devices, Recorder::silent(1, 0, 7)).unwrap();
    let two = R::add(&devices, Recorder::silent(2, 8, 0xf)).unwrap();
    let map = devices.snapshot().to_string();
    // The first has left its range by then, and would overlap the second's new range.
    let refused = devices.update(|batch| {
        batch.move_to(one, R::covering(0x10, 0x1f))?;
        batch.move_to(two, R::covering(0, 0x10))
    });
    let overlap = Refusal::Overlap {
        bus: R::BUS,
        wanted: span(0, 0x10),
        owner: one,
        owned: span(0x10, 0x1f),
    };
    assert_eq!(refused.unwrap_err(), overlap);
    // A swap that forgets one of the two.
    let refused = devices.update(|batch| batch.move_to(one, R::covering(8, 0xf)));
    assert!(matches!(refused, Err(Refusal::Overlap { owner, .. }) if owner == two));
    assert_eq!(devices.snapshot().to_string(), map);
    assert_eq!(R::read(&devices, 8, QWORD), Ok(answer(2, 8)));
}

fn no_access_misses_while_the_devices_that_fill_the_bus_swap<R: Bus>() {
    const SWAPS: usize = size(300, 6);
    let devices = shared_registry();
    let half = R::HIGHEST / 2;
    let ranges = [R::covering(0, half), R::covering(half + 1, R::HIGHEST)];
    let one = R::add(&devices, Recorder::silent(1, 0, half)).unwrap();
    let two = R::add(&devices, Recorder::silent(2, half + 1, R::HIGHEST)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let stops = Sets(&done);
        scope.spawn(|| {
            let mut vcpu = devices.dispatcher();
            while !done.load(Acquire) {
                for at in [0, half, half + 1, R::HIGHEST] {
                    let either = [read_of::<R>(1, at), read_of::<R>(2, at)];
                    assert!(
                        either.contains(&R::vcpu_read(&mut vcpu, at, BYTE)),
                        "{at:#x}"
                    );
                    assert!(either.contains(&R::read(&devices, at, BYTE)), "{at:#x}");
                }
            }
        });
        for swap in 1..=SWAPS {
            let swapped = devices.update(|batch| {
                batch.move_to(one, ranges[swap % 2])?;
                batch.move_to(two, ranges[1 - swap % 2])
            });
            assert!(swapped.is_ok());
        }
        drop(stops);
    });
}

on_every_bus!(
    two_devices_that_fill_the_bus_swap,
    three_devices_that_fill_the_bus_change_places_in_a_circle,
    an_update_may_take_a_range_before_it_removes_the_owner,
    an_update_whose_result_overlaps_changes_nothing,
    no_access_misses_while_the_devices_that_fill_the_bus_swap,
    changes_are_made_together_and_in_order,
    a_conflict_inside_the_batch_is_found_and_named,
    a_record_that_fails_or_unwinds_changes_nothing,
    an_update_applies_after_changes_published_while_it_records,
    an_update_fails_if_it_conflicts_with_a_change_made_while_it_records,
    a_handler_updates_the_registry_that_called_it,
);

#[test]
fn an_update_of_nothing_succeeds() {
    let devices = registry();
    let (value, removed) = devices.update(|_| Ok::<_, Refusal>(7)).unwrap();
    assert_eq!((value, removed.len()), (7, 0));
}

/// The closure may return the error type of its last call.
#[test]
fn an_update_may_end_in_an_add() {
    let devices = shared_registry();
    let old = devices.add_port_dev(Recorder::silent(0, 0, 7)).unwrap();
    let (heir, removed) = devices
        .update(|batch| {
            batch.remove(old)?;
            batch.add_port_dev(Recorder::silent(1, 0, 7))
        })
        .unwrap();
    assert!(heir > old && removed.iter().map(|of| of.id()).eq([old]));
    let refused = devices.update(|batch| batch.add_port_dev(Recorder::silent(2, 7, 8)));
    assert!(matches!(refused, Err(Refusal::Overlap { owner, .. }) if owner == heir));
}

#[test]
fn an_update_in_an_update_is_published_first() {
    let devices = shared_registry();
    let ((), removed) = devices
        .update(|outer| -> Result<(), Refusal> {
            let early = outer.add_port_dev(Recorder::silent(0, 0, 7))?;
            let (inner, _) = devices.update(|inner| -> Result<_, Refusal> {
                inner.add_port_dev(Recorder::silent(1, 8, 15))
            })?;
            assert!(early < inner);
            assert!(devices.handle_port_read(Port(8), BYTE).is_ok());
            assert!(devices.handle_port_read(Port(0), BYTE).is_err());
            outer.remove(inner)
        })
        .unwrap();
    assert_eq!(removed.len(), 1);
    assert!(devices.handle_port_read(Port(0), BYTE).is_ok());
    assert!(devices.handle_port_read(Port(8), BYTE).is_err());
}

/// A device on all three buses is added, moved and removed; every lookup sees it on all buses or on
/// none.
#[test]
fn all_buses_change_in_one_publication() {
    const ROUNDS: usize = size(600, 6);
    let devices = shared_registry();
    let done = AtomicBool::new(false);
    let firsts = |snapshot: &Snapshot<ThreadSafe>| {
        let mmio = snapshot.mmio().map(|(_, range, _)| range.start.as_usize());
        let sys_reg = snapshot.sys_reg().map(|(_, range, _)| range.start.0);
        let port = snapshot.port().map(|(_, range, _)| range.start.0.into());
        [mmio.collect::<Vec<_>>(), sys_reg.collect(), port.collect()]
    };
    thread::scope(|scope| {
        let stops = Sets(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Acquire) {
                    let [mmio, sys_reg, port] = firsts(&devices.snapshot());
                    assert!(mmio.len() < 2 && mmio == sys_reg && sys_reg == port);
                }
            });
        }
        for round in 0..ROUNDS {
            let first = round % 16 * 0x20;
            let (ids, removed) = devices
                .update(|batch| -> Result<_, Refusal> {
                    let mmio = batch.add_mmio_dev(Recorder::silent(0, first, first + 1))?;
                    let sys_reg = batch.add_sys_reg_dev(Recorder::silent(1, first, first + 1))?;
                    let port = batch.add_port_dev(Recorder::silent(2, first, first + 1))?;
                    Ok([mmio, sys_reg, port])
                })
                .unwrap();
            assert!(removed.is_empty());
            let [mmio, sys_reg, port] = ids;
            devices
                .update(|batch| {
                    batch.move_to(port, PortRange::covering(first + 8, first + 9))?;
                    batch.move_to(sys_reg, SysRegAddrRange::covering(first + 8, first + 9))?;
                    batch.move_to(mmio, GuestPhysAddrRange::covering(first + 8, first + 9))
                })
                .unwrap();
            let removal =
                devices.update(|batch| ids.into_iter().try_for_each(|id| batch.remove(id)));
            let removed: Vec<_> = removal.unwrap().1.iter().map(|r| r.id()).collect();
            assert_eq!(removed, ids);
        }
        drop(stops);
    });
}
