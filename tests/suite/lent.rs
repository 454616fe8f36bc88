//! A device that `iter_*` has lent lives until the next `iter_mut_*`, or as long as the registry. A device that was
//! only looked at is dropped when it is removed.

use std::sync::{Arc, Weak};

use ax_errno::AxError;
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice::{DeviceId, SharedVmDevices};
use support::{Access, Bus, Recorder, device, device_of, shared_registry, size};

const BYTE: AccessWidth = AccessWidth::Byte;

/// A device at one address, which only the registry holds.
fn add<R: Bus>(devices: &SharedVmDevices, at: usize) -> (DeviceId, Weak<Recorder<R>>) {
    let device = Recorder::silent(0, at, at);
    (
        R::add(devices, device.clone()).unwrap(),
        Arc::downgrade(&device),
    )
}

fn a_device_that_was_only_looked_at_dies_when_it_is_removed<R: Bus>() {
    type Looks = (&'static str, fn(&SharedVmDevices));
    let looks: [Looks; 6] = [
        ("count", |devices| assert_eq!(R::count(devices), 1)),
        ("for_each", |devices| {
            let mut visited = 0;
            R::for_each(devices, |_, _, _| visited += 1);
            assert_eq!(visited, 1);
        }),
        ("find", |devices| assert!(R::find(devices, 7).is_some())),
        ("snapshot", |devices| {
            assert_eq!(R::listed(&devices.snapshot()).len(), 1);
        }),
        ("access", |devices| {
            assert!(R::read(devices, 7, BYTE).is_ok())
        }),
        ("handle", |devices| {
            let mut vcpu = devices.dispatcher();
            assert!(R::vcpu_read(&mut vcpu, 7, BYTE).is_ok());
        }),
    ];
    let devices = shared_registry();
    for (name, look) in looks {
        let (id, device) = add::<R>(&devices, 7);
        look(&devices);
        let given = device_of::<R, _>(devices.remove(id).unwrap());
        assert_eq!(Arc::strong_count(&given), 1, "{name}");
        drop(given);
        assert_eq!(device.strong_count(), 0, "{name}");
    }
    // So does one that no caller waits for.
    let (id, device) = add::<R>(&devices, 7);
    looks.iter().for_each(|(_, look)| look(&devices));
    drop(devices.remove(id).unwrap());
    devices.reclaim();
    assert_eq!(device.strong_count(), 0);
}

fn a_device_that_was_lent_lives_as_long_as_the_registry<R: Bus>() {
    let devices = shared_registry();
    let (id, device) = add::<R>(&devices, 7);
    assert_eq!(R::all(&devices).len(), 1);
    let removed = devices.remove(id).unwrap();
    assert!(removed.is_quiescent(), "no vCPU can reach it, all the same");
    let given = device_of::<R, _>(removed);
    assert_eq!(Arc::strong_count(&given), 2);
    drop(given);
    devices.reclaim();
    assert_eq!((device.strong_count(), R::count(&devices)), (1, 0));
    // Others are added and removed.
    let (other, same_place) = add::<R>(&devices, 7);
    drop(devices.remove(other).unwrap());
    devices.reclaim();
    assert_eq!((device.strong_count(), same_place.strong_count()), (1, 0));
    drop(devices);
    assert_eq!(device.strong_count(), 0);
}

fn a_device_that_was_lent_lives_until_the_next_iter_mut<R: Bus>() {
    let mut devices = shared_registry();
    let (id, device) = add::<R>(&devices, 7);
    assert_eq!(R::all(&devices).len(), 1);
    drop(devices.remove(id).unwrap());
    devices.reclaim();
    assert_eq!(device.strong_count(), 1);
    assert_eq!(R::all_mut(&mut devices).len(), 0);
    assert_eq!(device.strong_count(), 0);
    // Another device is lent.
    let (id, device) = add::<R>(&devices, 7);
    assert_eq!(R::all(&devices).len(), 1);
    drop(devices.remove(id).unwrap());
    devices.reclaim();
    assert_eq!(device.strong_count(), 1);
}

fn a_device_that_the_iterator_has_not_reached_is_not_lent<R: Bus>() {
    let devices = shared_registry();
    let devices_at = [1, 2, 3].map(|at| add::<R>(&devices, at));
    let first = R::iter(&devices)
        .next()
        .map(|device| device.address_range());
    assert_eq!(first, Some(R::covering(1, 1)));
    for (id, _) in &devices_at {
        drop(devices.remove(*id).unwrap());
    }
    devices.reclaim();
    let counts = devices_at.map(|(_, device)| device.strong_count());
    assert_eq!(counts, [1, 0, 0]);
}

on_every_bus!(
    a_device_that_was_only_looked_at_dies_when_it_is_removed,
    a_device_that_was_lent_lives_as_long_as_the_registry,
    a_device_that_was_lent_lives_until_the_next_iter_mut,
    a_device_that_the_iterator_has_not_reached_is_not_lent,
);

#[test]
fn a_device_lent_before_stays_the_same_while_handlers_add() {
    const DEVICES: usize = size(100, 20);
    let devices = Arc::new(shared_registry());
    let weak = Arc::downgrade(&devices);
    let grows = device::<PortRange>(0, 0, move |Access { written, .. }| {
        let at = written.unwrap();
        let devices = weak.upgrade().unwrap();
        let added = devices.add_port_dev(Recorder::silent(at, at, at));
        added.map(|_| 0).map_err(AxError::from)
    });
    devices.add_port_dev(grows).unwrap();
    let lent: Vec<_> = devices.iter_port_dev().collect();
    let mut iter = devices.iter_port_dev();
    for at in 1..DEVICES {
        assert_eq!(devices.handle_port_write(Port(0), BYTE, at), Ok(()));
        let again = devices.handle_port_write(Port(0), BYTE, at);
        assert_eq!(again, Err(AxError::AlreadyExists));
        assert_eq!(lent[0].address_range(), PortRange::new(Port(0), Port(0)));
    }
    // The devices of the instant at which the iterator was made.
    assert!(iter.next().is_some() && iter.next().is_none());
    assert_eq!(devices.iter_port_dev().count(), DEVICES);
}
