//! `remove`: a device is unlinked at once, its range is free, its id is not used again.

use std::{
    sync::{Arc, Barrier},
    thread,
};

use ax_errno::AxError;
use axaddrspace::device::AccessWidth;
use axdevice::Refusal;
use support::{Bus, Recorder, answer, device_of, registry, shared_registry, size};

const BYTE: AccessWidth = AccessWidth::Byte;
const QWORD: AccessWidth = AccessWidth::Qword;

fn a_removed_device_is_unlinked_at_once_and_its_range_is_free<R: Bus>() {
    let devices = registry();
    let mut vcpu = devices.dispatcher();
    let add = |n| R::add(&devices, Recorder::silent(n, n * 0x10, n * 0x10 + 0xf)).unwrap();
    let ids = [0, 1, 2].map(add);
    assert_eq!(
        R::vcpu_read(&mut vcpu, 0x18, QWORD),
        Ok(answer(1, 0x18)),
        "it is remembered by the handle"
    );
    let removed = devices.remove(ids[1]).unwrap();
    assert_eq!(removed.id(), ids[1]);
    assert_eq!(R::read(&devices, 0x18, BYTE), Err(AxError::NotFound));
    let missed = R::vcpu_read(&mut vcpu, 0x18, BYTE);
    assert_eq!(missed, Err(AxError::NotFound));
    assert!(R::find(&devices, 0x18).is_none());
    assert_eq!(R::all(&devices).len(), 2);
    let listed: Vec<_> = R::listed(&devices.snapshot()).iter().map(|l| l.0).collect();
    assert_eq!(listed, [ids[0], ids[2]]);
    for (n, at) in [(0, 0), (2, 0x20)] {
        assert_eq!(R::read(&devices, at, QWORD), Ok(answer(n, at)));
        assert_eq!(R::vcpu_read(&mut vcpu, at, QWORD), Ok(answer(n, at)));
    }
    // The range can be taken at once, regardless of the state of the old device; its id is not used
    // again.
    let heir = R::add(&devices, Recorder::silent(3, 0x10, 0x1f)).unwrap();
    assert!(heir > ids[2]);
    assert_eq!(R::vcpu_read(&mut vcpu, 0x18, QWORD), Ok(answer(3, 0x18)));
    assert!(removed.is_quiescent());
}

fn removing_may_be_the_first_use_after_iter_mut<R: Bus>() {
    let mut devices = registry();
    let id = R::add(&devices, Recorder::silent(0, 0, 7)).unwrap();
    R::add(&devices, Recorder::silent(1, 8, 8)).unwrap();
    let heir = Recorder::<R>::silent(2, 0x10, 0x17);
    *R::all_mut(&mut devices)[0] = heir.clone();
    let removed = devices.remove(id).unwrap();
    assert!(R::read(&devices, 0x10, BYTE).is_err() && R::read(&devices, 8, BYTE).is_ok());
    let given = device_of::<R, _>(removed);
    assert!(
        Arc::ptr_eq(&given, &(heir.clone() as _)),
        "the place's device"
    );
    // A device that `iter_mut_*` put back is not put back again.
    assert_eq!(R::all_mut(&mut devices).len(), 1);
    assert_eq!(R::all(&devices).len(), 1);
    assert_eq!(Arc::strong_count(&heir), 2, "given, and the test's");
}

on_every_bus!(
    a_removed_device_is_unlinked_at_once_and_its_range_is_free,
    removing_may_be_the_first_use_after_iter_mut,
);

#[test]
fn of_many_that_remove_one_device_one_does() {
    const ROUNDS: usize = size(200, 4);
    let devices = shared_registry();
    for round in 0..ROUNDS {
        let id = devices.add_port_dev(Recorder::silent(round, 0, 7)).unwrap();
        let start = Barrier::new(3);
        let removals: Vec<_> = thread::scope(|scope| {
            let remover = |_| {
                scope.spawn(|| {
                    start.wait();
                    devices.remove(id)
                })
            };
            let removers: Vec<_> = (0..3).map(remover).collect();
            removers.into_iter().map(|r| r.join().unwrap()).collect()
        });
        let (removed, refused): (Vec<_>, Vec<_>) = removals.into_iter().partition(Result::is_ok);
        assert_eq!((removed.len(), refused.len()), (1, 2));
        for refusal in refused {
            assert_eq!(refusal.unwrap_err(), Refusal::Unknown { id, bus: None });
        }
        for removed in removed {
            assert!(removed.unwrap().wait(usize::MAX).is_ok());
        }
    }
}
