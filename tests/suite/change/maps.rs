//! `map` and `unmap`: a device keeps its registration and its id, regardless of its ranges.

use ax_errno::AxError;
use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, PortRange, SysRegAddrRange},
};
use axdevice::{AxVmDevices, BusId, DeviceId, Refusal};

use super::sixteen;
use support::{Bus, Recorder, answer, device_of, owners, read_of, registry, span};

const BYTE: AccessWidth = AccessWidth::Byte;
const QWORD: AccessWidth = AccessWidth::Qword;

/// The devices that `for_each_*` visits, by address: the same as in a snapshot.
fn visited<R: Bus>(devices: &AxVmDevices) -> Vec<(DeviceId, R)> {
    let mut visited = Vec::new();
    R::for_each(devices, |id, range, _| visited.push((id, range)));
    assert_eq!(visited, owners::<R, _>(&devices.snapshot()));
    visited
}

fn an_unmapped_device_keeps_its_registration_and_its_id<R: Bus>() {
    let devices = registry();
    let mut vcpu = devices.dispatcher();
    let id = R::add(&devices, Recorder::silent(1, 0x10, 0x1f)).unwrap();
    let other = R::add(&devices, Recorder::silent(2, 0x20, 0x2f)).unwrap();
    assert_eq!(R::vcpu_read(&mut vcpu, 0x18, QWORD), Ok(answer(1, 0x18)));
    assert_eq!(devices.unmap(id, sixteen::<R>(0x10)), Ok(()));
    for at in [0x10, 0x18, 0x1f] {
        assert_eq!(R::read(&devices, at, BYTE), Err(AxError::NotFound));
        let missed = R::vcpu_read(&mut vcpu, at, BYTE);
        assert_eq!(missed, Err(AxError::NotFound));
        assert!(R::find(&devices, at).is_none());
    }
    // It is not in a snapshot and not visited, but it is iterated over, at its position.
    assert_eq!(visited::<R>(&devices), [(other, sixteen(0x20))]);
    assert_eq!(R::count(&devices), 2);
    let ranges: Vec<_> = R::all(&devices).iter().map(|d| d.address_range()).collect();
    assert_eq!(ranges, [sixteen::<R>(0x10), sixteen(0x20)]);
    // At another range and at the old one, with the same id.
    for first in [0x40, 0x10] {
        assert_eq!(devices.map(id, sixteen::<R>(first)), Ok(()));
        let at = first + 8;
        assert_eq!(R::read(&devices, at, QWORD), Ok(answer(1, at)));
        assert_eq!(R::vcpu_read(&mut vcpu, at, QWORD), Ok(answer(1, at)));
        assert!(visited::<R>(&devices).contains(&(id, sixteen(first))));
        assert_eq!(devices.unmap(id, sixteen::<R>(first)), Ok(()));
    }
    // Its range is free, and may be taken.
    let heir = R::add(&devices, Recorder::silent(3, 0x1f, 0x1f)).unwrap();
    let overlap = Refusal::Overlap {
        bus: R::BUS,
        wanted: span(0x10, 0x1f),
        owner: heir,
        owned: span(0x1f, 0x1f),
    };
    assert_eq!(devices.map(id, sixteen::<R>(0x10)), Err(overlap));
    let all = [(heir, R::covering(0x1f, 0x1f)), (other, sixteen(0x20))];
    assert_eq!(visited::<R>(&devices), all);
}

fn an_unmapped_device_can_be_removed_and_not_moved<R: Bus>() {
    let devices = registry();
    let id = R::add(&devices, Recorder::silent(1, 0x10, 0x1f)).unwrap();
    devices.unmap(id, sixteen::<R>(0x10)).unwrap();
    let bus = R::BUS;
    let not_mapped = |span| Refusal::NotMapped { id, bus, span };
    let refusal = not_mapped(None);
    assert_eq!(devices.move_to(id, sixteen::<R>(0x10)), Err(refusal));
    assert_eq!(devices.reindex(id), Err(refusal));
    let unmapped = devices.unmap(id, sixteen::<R>(0x10));
    assert_eq!(unmapped, Err(not_mapped(Some(span(0x10, 0x1f)))));
    let moved = devices.update(|batch| batch.move_to(id, sixteen::<R>(0x10)));
    assert_eq!(moved.unwrap_err(), refusal);
    assert_eq!(
        refusal.to_string(),
        format!("device {id} owns no addresses on bus {bus}")
    );
    assert_eq!(AxError::from(refusal), AxError::NotFound);
    assert_eq!((visited::<R>(&devices).len(), R::count(&devices)), (0, 1));
    let removed = devices.remove(id).unwrap();
    assert_eq!(device_of::<R, _>(removed).address_range(), sixteen(0x10));
    assert_eq!(R::count(&devices), 0);
    let bus = Some(bus);
    let unknown = Refusal::Unknown { id, bus };
    assert_eq!(devices.map(id, sixteen::<R>(0x10)), Err(unknown));
    assert_eq!(devices.unmap(id, sixteen::<R>(0x10)), Err(unknown));
}

fn a_device_with_two_ranges_is_listed_twice_and_iterated_over_once<R: Bus>() {
    let devices = registry();
    let mut vcpu = devices.dispatcher();
    let id = R::add(&devices, Recorder::silent(1, 0x40, 0x4f)).unwrap();
    let other = R::add(&devices, Recorder::silent(2, 0x20, 0x2f)).unwrap();
    assert_eq!(devices.map(id, sixteen::<R>(0x00)), Ok(()));
    let all = [
        (id, sixteen::<R>(0x00)),
        (other, sixteen(0x20)),
        (id, sixteen(0x40)),
    ];
    assert_eq!(visited::<R>(&devices), all);
    assert_eq!((R::count(&devices), R::all(&devices).len()), (2, 2));
    for at in [0x00, 0x0f, 0x40, 0x4f] {
        assert_eq!(R::read(&devices, at, BYTE), read_of::<R>(1, at));
        assert_eq!(R::vcpu_read(&mut vcpu, at, BYTE), read_of::<R>(1, at));
    }
    // It overlaps itself as it would overlap another device.
    let overlap = Refusal::Overlap {
        bus: R::BUS,
        wanted: span(0x0f, 0x1f),
        owner: id,
        owned: span(0x00, 0x0f),
    };
    assert_eq!(devices.map(id, R::covering(0x0f, 0x1f)), Err(overlap));
    // One range goes, the other stays.
    assert_eq!(devices.unmap(id, sixteen::<R>(0x40)), Ok(()));
    assert_eq!(visited::<R>(&devices), all[..2]);
    assert_eq!(R::vcpu_read(&mut vcpu, 0x48, BYTE), Err(AxError::NotFound));
    assert_eq!(R::vcpu_read(&mut vcpu, 0x08, BYTE), read_of::<R>(1, 0x08));
    assert_eq!(devices.map(id, sixteen::<R>(0x40)), Ok(()));
    // A move replaces both ranges by one.
    assert_eq!(devices.move_to(id, sixteen::<R>(0x08)), Ok(()));
    assert_eq!(visited::<R>(&devices), [(id, sixteen(0x08)), all[1]]);
    // So does `reindex`, with the device's own range.
    assert_eq!(devices.map(id, sixteen::<R>(0x80)), Ok(()));
    assert_eq!(devices.reindex(id), Ok(()));
    assert_eq!(visited::<R>(&devices), all[1..]);
    // It is removed with both.
    assert_eq!(devices.map(id, sixteen::<R>(0x00)), Ok(()));
    let removed = devices.remove(id).unwrap();
    assert!(!removed.is_quiescent(), "the handle holds older tables");
    assert_eq!(R::vcpu_read(&mut vcpu, 0x00, BYTE), Err(AxError::NotFound));
    assert_eq!(visited::<R>(&devices), all[1..2]);
    drop(device_of::<R, _>(removed));
}

fn a_device_loses_exactly_a_range_that_it_has<R: Bus>() {
    let devices = registry();
    let id = R::add(&devices, Recorder::silent(1, 0x10, 0x1f)).unwrap();
    R::add(&devices, Recorder::silent(2, 0x20, 0x2f)).unwrap();
    let map = devices.snapshot().to_string();
    for (first, last) in [
        (0x10, 0x1e),
        (0x11, 0x1f),
        (0x10, 0x20),
        (0x20, 0x2f),
        (0x00, 0x0f),
        (0x00, R::HIGHEST),
    ] {
        let refused = devices.unmap(id, R::covering(first, last));
        let refusal = Refusal::NotMapped {
            id,
            bus: R::BUS,
            span: Some(span(first, last)),
        };
        assert_eq!(refused, Err(refusal), "{first:#x}..={last:#x}");
    }
    for range in [R::raw(9, 8), R::raw(9, 7), R::raw(1, 0)] {
        let refusal = devices.map(id, range).unwrap_err();
        assert!(matches!(
            refusal,
            Refusal::Empty { .. } | Refusal::Backwards { .. }
        ));
        assert_eq!(devices.unmap(id, range), Err(refusal));
        assert_eq!(devices.move_to(id, range), Err(refusal));
    }
    assert_eq!(devices.snapshot().to_string(), map);
}

on_every_bus!(
    an_unmapped_device_keeps_its_registration_and_its_id,
    an_unmapped_device_can_be_removed_and_not_moved,
    a_device_with_two_ranges_is_listed_twice_and_iterated_over_once,
    a_device_loses_exactly_a_range_that_it_has,
);

#[test]
fn a_device_is_mapped_on_its_own_bus() {
    let devices = registry();
    let id = devices.add_sys_reg_dev(Recorder::silent(0, 0, 15)).unwrap();
    let unknown = |bus| {
        let bus = Some(bus);
        Err(Refusal::Unknown { id, bus })
    };
    let (mmio, port) = (unknown(BusId::Mmio), unknown(BusId::Port));
    assert_eq!(devices.map(id, sixteen::<GuestPhysAddrRange>(0x10)), mmio);
    assert_eq!(devices.map(id, sixteen::<PortRange>(0x10)), port);
    assert_eq!(devices.unmap(id, sixteen::<GuestPhysAddrRange>(0)), mmio);
    assert_eq!(devices.unmap(id, sixteen::<PortRange>(0)), port);
    let text = format!("there is no device {id} on bus port");
    assert_eq!(port.unwrap_err().to_string(), text);
    assert_eq!(devices.map(id, sixteen::<SysRegAddrRange>(0x10)), Ok(()));
    assert_eq!(devices.unmap(id, sixteen::<SysRegAddrRange>(0)), Ok(()));
    let map = format!("sys_reg  0x10..=0x1f {id}\n");
    assert_eq!(devices.snapshot().to_string(), map);
}
