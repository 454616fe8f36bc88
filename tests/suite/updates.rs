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
use axdevice::{AddError, Batch, DeviceId, Refusal, SharedVmDevices, Snapshot, Span, ThreadSafe};

use crate::{
    bus::Bus,
    device::{Graves, Journal, Mortal, Probe, Script, Sets, answer, registry, shared_registry},
};

const BYTE: AccessWidth = AccessWidth::Byte;
const QWORD: AccessWidth = AccessWidth::Qword;

/// Who owns what, by address.
fn owners<R: Bus>(snapshot: &Snapshot<ThreadSafe>) -> Vec<(DeviceId, R)> {
    let listed = R::listed(snapshot).into_iter();
    listed.map(|(id, range, _)| (id, range)).collect()
}

fn changes_are_made_together_and_in_order<R: Bus>() {
    let devices = shared_registry();
    let add = |n| R::add(&devices, Probe::silent(n, n * 0x10, n * 0x10 + 0xf)).unwrap();
    let [one, two, three] = [0, 1, 2].map(add);
    // A range that is freed and taken, one that is taken and freed, two that are swapped.
    let (added, removed) = devices
        .update(|batch| -> Result<_, Refusal> {
            batch.remove(one)?;
            let heir = R::record(batch, Probe::silent(3, 0, 0xf))?;
            let passing = R::record(batch, Probe::silent(4, 0x40, 0x4f))?;
            batch.remove(passing)?;
            batch.move_to(two, R::covering(0x40, 0x4f))?;
            batch.move_to(three, R::covering(0x10, 0x1f))?;
            batch.move_to(two, R::covering(0x20, 0x2f))?;
            // Nothing of it is seen yet.
            assert_eq!(R::read(&devices, 0, QWORD), Ok(answer(0, 0)));
            assert_eq!(owners::<R>(&devices.snapshot()).len(), 3);
            Ok([heir, passing])
        })
        .unwrap();
    let [heir, passing] = added;
    let ids: Vec<_> = removed.iter().map(|removed| removed.id()).collect();
    assert_eq!(ids, [one, passing], "in the order of the removals");
    let places = [(heir, 0), (three, 0x10), (two, 0x20)];
    let expected = places.map(|(id, first)| (id, R::covering(first, first + 0xf)));
    assert_eq!(owners::<R>(&devices.snapshot()), expected);
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
    let there = R::add(&devices, Probe::silent(0, 0x10, 0x1f)).unwrap();
    let map = devices.snapshot().to_string();
    let mut recorded = None;
    let refused = devices.update(|batch| -> Result<(), Refusal> {
        batch.remove(there)?;
        recorded = Some(R::record(batch, Probe::silent(1, 0x10, 0x17))?);
        R::record(batch, Probe::silent(2, 0x17, 0x18))?;
        Ok(())
    });
    let overlap = Refusal::Overlap {
        wanted: Span::new(0x17, 0x18).unwrap(),
        owner: recorded.unwrap(),
        owned: Span::new(0x10, 0x17).unwrap(),
    };
    assert_eq!(refused.unwrap_err(), overlap);
    // With one that is there, and in the wrong order.
    let refused = devices.update(|batch| -> Result<(), Refusal> {
        R::record(batch, Probe::silent(3, 0x1f, 0x1f))?;
        batch.remove(there)
    });
    let overlap = Refusal::Overlap {
        wanted: Span::new(0x1f, 0x1f).unwrap(),
        owner: there,
        owned: Span::new(0x10, 0x1f).unwrap(),
    };
    assert_eq!(refused.unwrap_err(), overlap);
    // Removed twice, moved once it is gone.
    let unknown = Refusal::Unknown { id: there };
    let refused = devices.update(|batch| batch.remove(there).and_then(|()| batch.remove(there)));
    assert_eq!(refused.unwrap_err(), unknown);
    let refused = devices.update(|batch| {
        batch.remove(there)?;
        batch.move_to(there, R::covering(0, 0))
    });
    assert_eq!(refused.unwrap_err(), unknown);
    assert_eq!(devices.snapshot().to_string(), map);
    assert_eq!(R::read(&devices, 0x10, QWORD), Ok(answer(0, 0x10)));
}

fn what_cannot_be_recorded_is_given_back_and_the_batch_goes_on<R: Bus>() {
    let devices = shared_registry();
    let device = Probe::new(1, R::raw(9, 7), &Journal::default());
    let (id, removed) = devices
        .update(|batch| -> Result<_, Refusal> {
            let error: AddError<_> = R::record(batch, device.clone()).unwrap_err();
            assert!(matches!(
                error.refusal(),
                Refusal::Empty { .. } | Refusal::Wrapping { .. }
            ));
            assert!(Arc::ptr_eq(&error.into_device(), &(device.clone() as _)));
            let id = R::record(batch, Probe::silent(0, 0x10, 0x1f))?;
            let refused = batch.move_to(id, R::raw(9, 7)).unwrap_err();
            assert!(matches!(
                refused,
                Refusal::Empty { .. } | Refusal::Wrapping { .. }
            ));
            Ok(id)
        })
        .unwrap();
    assert!(removed.is_empty());
    assert_eq!(Arc::strong_count(&device), 1);
    assert_eq!(
        owners::<R>(&devices.snapshot()),
        [(id, R::covering(0x10, 0x1f))]
    );
}

fn a_record_that_fails_or_unwinds_changes_nothing<R: Bus>() {
    let devices = shared_registry();
    let there = R::add(&devices, Probe::silent(0, 0x10, 0x1f)).unwrap();
    let map = devices.snapshot().to_string();
    let device = Probe::<R>::silent(1, 0x20, 0x2f);
    let record = |batch: &mut Batch<'_, ThreadSafe>| {
        batch.remove(there)?;
        batch.move_to(there, R::covering(0, 0))?;
        R::record(batch, device.clone()).map_err(Refusal::from)
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
    // The ids that were handed out are skipped.
    let next = R::add(&devices, device).unwrap();
    assert!(next > there);
    assert_eq!(next.to_string(), "#4");
}

fn the_record_is_made_again_on_what_came_between<R: Bus>() {
    let devices = shared_registry();
    let add = |n, first: usize| R::add(&devices, Probe::silent(n, first, first + 0xf));
    let [one, two] = [0, 1].map(|n| add(n, n * 0x10).unwrap());
    let mut runs = 0;
    let mut between = None;
    let (heir, removed) = devices
        .update(|batch| -> Result<_, Refusal> {
            runs += 1;
            batch.remove(one)?;
            // Published before what is recorded here.
            between = Some(add(2, 0x20).unwrap());
            devices.move_to(two, R::covering(0x40, 0x4f))?;
            Ok(R::record(batch, Probe::silent(3, 0, 0x1f))?)
        })
        .unwrap();
    assert_eq!(runs, 1);
    assert_eq!(removed.len(), 1);
    let expected = [
        (heir, R::covering(0, 0x1f)),
        (between.unwrap(), R::covering(0x20, 0x2f)),
        (two, R::covering(0x40, 0x4f)),
    ];
    assert_eq!(owners::<R>(&devices.snapshot()), expected);
    assert!(between.unwrap() < heir);
}

fn a_conflict_with_what_came_between_is_the_updates_error<R: Bus>() {
    let devices = shared_registry();
    let there = R::add(&devices, Probe::silent(0, 0x10, 0x1f)).unwrap();
    let device = Probe::<R>::silent(2, 0x20, 0x2f);
    let mut between = None;
    let refused = devices.update(|batch| -> Result<(), Refusal> {
        batch.remove(there)?;
        R::record(batch, device.clone())?;
        between = Some(R::add(&devices, Probe::silent(1, 0x2f, 0x2f))?);
        Ok(())
    });
    let overlap = Refusal::Overlap {
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
    assert_eq!(refused.unwrap_err(), Refusal::Unknown { id: there });
    assert!(gone.unwrap().wait(0).is_ok());
    let left = [(between.unwrap(), R::covering(0x2f, 0x2f))];
    assert_eq!(owners::<R>(&devices.snapshot()), left);
}

fn a_handler_updates_the_registry_that_called_it<R: Bus>() {
    let devices = Arc::new(shared_registry());
    let weak = Arc::downgrade(&devices);
    let device = Script::<R, _>::new(0, 7, move |at, _| {
        let devices: Arc<SharedVmDevices> = weak.upgrade().unwrap();
        let own = R::listed(&devices.snapshot())[0].0;
        let (heir, removed) = devices.update(|batch| -> Result<_, Refusal> {
            batch.remove(own)?;
            Ok(R::record(batch, Probe::silent(1, 0, 7))?)
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

on_every_bus!(
    changes_are_made_together_and_in_order,
    a_conflict_inside_the_batch_is_found_and_named,
    what_cannot_be_recorded_is_given_back_and_the_batch_goes_on,
    a_record_that_fails_or_unwinds_changes_nothing,
    the_record_is_made_again_on_what_came_between,
    a_conflict_with_what_came_between_is_the_updates_error,
    a_handler_updates_the_registry_that_called_it,
);

#[test]
fn an_update_of_nothing_succeeds() {
    let devices = registry();
    let (value, removed) = devices.update(|_| Ok::<_, Refusal>(7)).unwrap();
    assert_eq!((value, removed.len()), (7, 0));
}

#[test]
fn an_update_in_an_update_is_published_first() {
    let devices = shared_registry();
    let ((), removed) = devices
        .update(|outer| -> Result<(), Refusal> {
            let early = outer.add_port_dev(Probe::silent(0, 0, 7))?;
            let (inner, _) = devices.update(|inner| -> Result<_, Refusal> {
                Ok(inner.add_port_dev(Probe::silent(1, 8, 15))?)
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

#[test]
fn a_device_that_was_recorded_in_vain_dies_with_the_update() {
    let graves = Graves::default();
    let devices = shared_registry();
    let there = devices.add_port_dev(Mortal::new(0, &graves)).unwrap();
    let refused = devices.update(|batch| -> Result<(), Refusal> {
        batch.add_port_dev(Mortal::new(0x10, &graves))?;
        batch.add_port_dev(Mortal::new(0x17, &graves))?;
        batch.remove(there)
    });
    assert!(matches!(refused, Err(Refusal::Overlap { .. })));
    assert_eq!(*graves.lock().unwrap(), [thread::current().id(); 2]);
    assert!(devices.find_port_dev(Port(0)).is_some());
}

/// A device on all three buses comes, moves and goes; whoever looks sees it whole or not at all.
#[test]
fn all_buses_change_in_one_publication() {
    const ROUNDS: usize = if cfg!(miri) { 6 } else { 600 };
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
                    let mmio = batch.add_mmio_dev(Probe::silent(0, first, first + 1))?;
                    let sys_reg = batch.add_sys_reg_dev(Probe::silent(1, first, first + 1))?;
                    let port = batch.add_port_dev(Probe::silent(2, first, first + 1))?;
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
