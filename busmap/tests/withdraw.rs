//! Devices that are withdrawn, replaced and restored.

mod common;

use std::{sync::Arc, thread};

use busmap::{BusId, Device, Direction, Miss, Mmio, Port, Refusal, Vcpu, Withdrawn};

use self::common::{Devices, Fns, Handler, read, reads_as, rounds, span, while_changing};

/// A registry with a device at each of the ports 0 to 3, which reads as its port. All are
/// withdrawn, with replacements that read as their port plus ten.
fn replaced() -> (Devices, Vec<Withdrawn<Fns>>) {
    let mut devices = Devices::new();
    for n in 0..4 {
        devices.add::<Port>(reads_as(n), span(n, n)).unwrap();
    }
    let withdrawn = devices.withdraw();
    let replaced = withdrawn.iter().zip(10..).map(|(of, value)| {
        let spans = of.spans().to_vec();
        of.replaced(reads_as(value), spans)
    });
    let replaced = replaced.collect();
    (devices, replaced)
}

/// Reads; if the devices are withdrawn, restores them and reads again.
fn read_or_restore(
    devices: &Devices,
    withdrawn: &[Withdrawn<Fns>],
    port: u64,
) -> Result<u64, Miss> {
    match read(devices, port) {
        Err(Miss::Withdrawn) => {
            devices.restore(withdrawn).unwrap();
            read(devices, port)
        }
        done => done,
    }
}

#[test]
fn the_first_to_miss_them_restores_them() {
    let (devices, replaced) = replaced();
    assert_eq!(read(&devices, 0), Err(Miss::Withdrawn));
    assert_eq!(read_or_restore(&devices, &replaced, 3), Ok(13));
    assert_eq!(read(&devices, 0), Ok(10));
    assert_eq!(read_or_restore(&devices, &replaced, 4), Err(Miss::Unmapped));
    let ids = devices.view(|view| {
        view.devices()
            .map(|of| of.id().number())
            .collect::<Vec<_>>()
    });
    assert_eq!(ids, [1, 2, 3, 4]);
}

/// A second call restores nothing: later changes stay.
#[test]
fn many_threads_miss_them_at_once() {
    for _ in 0..rounds(300) {
        let (devices, replaced) = replaced();
        let (devices, replaced) = (&devices, &replaced);
        let use_first = |own: u64| {
            assert_eq!(read_or_restore(devices, replaced, own), Ok(10 + own));
            devices
                .add::<Port>(reads_as(own), span(100 + own, 100 + own))
                .unwrap();
            devices
                .remap::<Port>(replaced[own as usize].id(), span(200 + own, 200 + own))
                .unwrap();
        };
        thread::scope(|scope| (0..3).for_each(|own| drop(scope.spawn(move || use_first(own)))));
        for own in 0..3 {
            assert_eq!(read(devices, 100 + own), Ok(own), "an addition was undone");
            assert_eq!(read(devices, 200 + own), Ok(10 + own), "a move was undone");
            assert_eq!(read(devices, own), Err(Miss::Unmapped));
        }
        assert_eq!(devices.view(|view| view.devices().count()), 7);
    }
}

/// A thread sees either all devices, or that they are withdrawn; never some of them.
#[test]
fn a_restoration_is_seen_whole() {
    for _ in 0..rounds(300) {
        let (devices, replaced) = replaced();
        let mut vcpu = devices.vcpu();
        let watch = || {
            devices.view(|view| {
                let seen = (view.is_withdrawn(), view.spans::<Port>().count());
                assert!(matches!(seen, (true, 0) | (false, 4)), "{seen:?}");
            });
            let found = vcpu.dispatch::<Port, _>(Direction::Read, 3, 0, |hit| hit.handler()(0));
            assert!(matches!(found, Ok(13) | Err(Miss::Withdrawn)), "{found:?}");
        };
        while_changing(watch, || devices.restore(&replaced).unwrap());
        assert_eq!(read(&devices, 3), Ok(13));
    }
}

/// A withdrawal needs `&mut` of the registry, so no handle exists during it.
#[test]
fn handles_hold_the_tables_that_stand_in() {
    let mut devices = Arc::new(Devices::new());
    devices.add::<Port>(reads_as(1), span(0, 0)).unwrap();
    let vcpu = Vcpu::new(devices.clone());
    assert!(Arc::get_mut(&mut devices).is_none(), "a handle holds it");
    drop(vcpu);
    let withdrawn = Arc::get_mut(&mut devices).unwrap().withdraw();
    let mut vcpu = Vcpu::new(devices.clone());
    let mut other = devices.vcpu();
    other.refresh();
    let missed = vcpu.dispatch::<Port, _>(Direction::Read, 0, 0, |_| ());
    assert_eq!(missed, Err(Miss::Withdrawn));
    devices.restore(&withdrawn).unwrap();
    assert_eq!(
        vcpu.dispatch::<Port, _>(Direction::Read, 0, 0, |hit| hit.handler()(0)),
        Ok(1)
    );
    assert_eq!(
        other.dispatch::<Port, _>(Direction::Read, 0, 0, |hit| hit.handler()(0)),
        Ok(1)
    );
    assert_eq!(other.counters::<Port>().misses, 0);
}

#[test]
fn a_withdrawn_copy_keeps_the_device_alive() {
    let handler: Arc<Handler> = Arc::new(|_| 1);
    let mut devices = Devices::new();
    let device = Device::new("kept").on::<Port>(handler.clone());
    let id = devices.add::<Port>(device, span(0, 0)).unwrap();
    let withdrawn = devices.withdraw();
    devices.reclaim();
    assert_eq!(Arc::strong_count(&handler), 2, "the tables list it still");
    devices.restore(&withdrawn).unwrap();
    assert_eq!(Arc::strong_count(&handler), 3);
    let removed = devices.remove(id).unwrap();
    assert!(removed.is_quiescent());
    drop((removed, withdrawn));
    assert_eq!(Arc::strong_count(&handler), 1);
}

#[test]
fn replacements_that_overlap_are_refused_until_the_spans_are_corrected() {
    let (devices, mut replaced) = replaced();
    let spans = vec![(BusId::Port, span(1, 1)), (BusId::Mmio, span(0, 9))];
    replaced[0] = replaced[0].replaced(reads_as(20), spans);
    let overlap = devices.restore(&replaced).unwrap_err();
    assert!(matches!(overlap, Refusal::Overlap { wanted, .. } if wanted == span(1, 1)));
    assert_eq!(devices.restore(&replaced), Err(overlap));
    assert!(devices.view(|view| view.is_withdrawn()));
    let spans = vec![(BusId::Port, span(4, 4)), (BusId::Mmio, span(0, 9))];
    replaced[0] = replaced[0].replaced(reads_as(20), spans);
    assert_eq!(read_or_restore(&devices, &replaced, 4), Ok(20));
    let mmio = devices.dispatch::<Mmio, _>(9, 0, |hit| hit.handler()(9));
    assert_eq!((mmio, read(&devices, 0)), (Ok(20), Err(Miss::Unmapped)));
    assert_eq!(
        devices.find::<Mmio>(0).map(|(id, _)| id),
        Some(replaced[0].id())
    );
}
