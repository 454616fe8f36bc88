//! Ids: unique, in order, unknown once the device is removed, and unknown to every other registry.

use ax_errno::AxError;
use axaddrspace::device::AccessWidth;
use axdevice::{Batch, BusId, DeviceId, Refusal, Unbound};
use support::{Bus, Recorder, read_of, registry};

fn an_unknown_device_is_refused_and_nothing_changes<R: Bus>() {
    let devices = registry();
    let id = R::add(&devices, Recorder::silent(0, 0, 7)).unwrap();
    let witness = R::add(&devices, Recorder::silent(1, 8, 15)).unwrap();
    // This id is assigned to a device that is refused.
    let refused = R::add(&devices, Recorder::silent(2, 7, 8)).unwrap_err();
    assert!(matches!(refused.refusal(), Refusal::Overlap { owner, .. } if owner == id));
    let other = registry();
    let ids = [0, 1, 2, 3].map(|n| R::add(&other, Recorder::silent(n, n, n)).unwrap());
    drop(devices.remove(id).unwrap());
    let map = devices.snapshot().to_string();
    for gone in [id, ids[2], ids[3]] {
        let unknown = |bus| Refusal::Unknown { id: gone, bus };
        let on_any = unknown(None);
        assert_eq!(devices.remove(gone).unwrap_err(), on_any);
        assert_eq!(devices.reindex(gone), Err(on_any));
        assert_eq!(
            on_any.to_string(),
            format!("there is no device {gone} on any bus")
        );
        let bus = R::BUS;
        let unknown = unknown(Some(bus));
        assert_eq!(devices.move_to(gone, R::covering(0, 0)), Err(unknown));
        assert_eq!(devices.map(gone, R::covering(0, 0)), Err(unknown));
        assert_eq!(devices.unmap(gone, R::covering(0, 7)), Err(unknown));
        assert_eq!(AxError::from(unknown), AxError::NotFound);
        assert_eq!(
            unknown.to_string(),
            format!("there is no device {gone} on bus {bus}")
        );
    }
    assert_eq!(devices.snapshot().to_string(), map);
    assert_eq!(devices.remove(witness).unwrap().id(), witness);
}

fn an_id_of_another_registry_is_unknown<R: Bus>() {
    let (devices, other) = (registry(), registry());
    let own = R::add(&devices, Recorder::silent(0, 0x10, 0x1f)).unwrap();
    let foreign = R::add(&other, Recorder::silent(1, 0x10, 0x1f)).unwrap();
    // They have the same number.
    assert_eq!(own.number(), foreign.number());
    assert_eq!(own.to_string(), foreign.to_string());
    assert_ne!(own, foreign);
    let maps = [&devices, &other].map(|of| of.snapshot().to_string());
    let (here, elsewhere) = (R::covering(0x10, 0x1f), R::covering(0x40, 0x4f));
    let unknown = |id, bus| Err(Refusal::Unknown { id, bus });
    let bus = Some(R::BUS);
    for (devices, id) in [(&devices, foreign), (&other, own)] {
        assert_eq!(devices.remove(id).map(drop), unknown(id, None));
        assert_eq!(devices.move_to(id, elsewhere), unknown(id, bus));
        assert_eq!(devices.map(id, elsewhere), unknown(id, bus));
        assert_eq!(devices.unmap(id, here), unknown(id, bus));
        assert_eq!(devices.reindex(id), unknown(id, None));
        type Records<R> = fn(&mut Batch<'_, Unbound>, DeviceId, [R; 2]) -> Result<(), Refusal>;
        let records: [(Records<R>, Option<BusId>); 4] = [
            (|batch, id, _| batch.remove(id), None),
            (
                |batch, id, [_, elsewhere]| batch.move_to(id, elsewhere),
                bus,
            ),
            (|batch, id, [_, elsewhere]| batch.map(id, elsewhere), bus),
            (|batch, id, [here, _]| batch.unmap(id, here), bus),
        ];
        for (record, bus) in records {
            let device = Recorder::silent(2, 0x80, 0x80);
            let updated = devices.update(|batch| {
                R::record(batch, device.clone())?;
                record(batch, id, [here, elsewhere])
            });
            assert_eq!(updated.map(drop), unknown(id, bus));
            assert_eq!(std::sync::Arc::strong_count(&device), 1);
        }
    }
    assert_eq!([&devices, &other].map(|of| of.snapshot().to_string()), maps);
    let reads = [&devices, &other].map(|of| R::read(of, 0x18, AccessWidth::Byte));
    assert_eq!(reads, [read_of::<R>(0, 0x18), read_of::<R>(1, 0x18)]);
}

on_every_bus!(
    an_unknown_device_is_refused_and_nothing_changes,
    an_id_of_another_registry_is_unknown,
);

#[test]
fn ids_are_unique_and_grow_over_all_buses() {
    let devices = registry();
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(devices.add_mmio_dev(Recorder::silent(0, n, n)).unwrap());
        assert!(devices.add_mmio_dev(Recorder::silent(0, n, n)).is_err());
        // In descending order of addresses: the order of ids is not that of the addresses.
        ids.push(
            devices
                .add_port_dev(Recorder::silent(0, 99 - n, 99 - n))
                .unwrap(),
        );
        ids.push(devices.add_sys_reg_dev(Recorder::silent(0, n, n)).unwrap());
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}
