//! Moves: a device gets another range, in one step, even with vCPUs inside it.

use std::sync::{Arc, OnceLock};

use ax_errno::AxError;
use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange, SysRegAddrRange},
};
use axdevice::{BusId, DeviceId, Refusal, Span};

use super::{By, with_bar};
use support::{
    Access, Bus, Journal, Recorder, answer, device, read_of, registry, shared_registry, span,
};

const BYTE: AccessWidth = AccessWidth::Byte;
const QWORD: AccessWidth = AccessWidth::Qword;

fn a_moved_device_answers_in_its_new_range_alone<R: Bus>() {
    let devices = registry();
    let mut vcpu = devices.dispatcher();
    let id = R::add(&devices, Recorder::silent(0, 0x10, 0x1f)).unwrap();
    let other = R::add(&devices, Recorder::silent(1, 0x20, 0x2f)).unwrap();
    assert_eq!(R::vcpu_read(&mut vcpu, 0x18, QWORD), Ok(answer(0, 0x18)));
    devices.move_to(id, R::covering(0x40, 0x4f)).unwrap();
    for at in [0x10, 0x18, 0x1f] {
        assert_eq!(R::read(&devices, at, BYTE), Err(AxError::NotFound));
        let missed = R::vcpu_read(&mut vcpu, at, BYTE);
        assert_eq!(missed, Err(AxError::NotFound));
        assert!(R::find(&devices, at).is_none());
    }
    assert_eq!(R::read(&devices, 0x48, QWORD), Ok(answer(0, 0x48)));
    assert_eq!(R::vcpu_read(&mut vcpu, 0x48, QWORD), Ok(answer(0, 0x48)));
    let listed = R::listed(&devices.snapshot());
    let places: Vec<_> = listed.iter().map(|&(id, range, _)| (id, range)).collect();
    let (moved, stayed) = (R::covering(0x40, 0x4f), R::covering(0x20, 0x2f));
    assert_eq!(places, [(other, stayed), (id, moved)]);
    // It keeps its place in the order of registration.
    let order: Vec<_> = R::all(&devices).iter().map(|d| d.address_range()).collect();
    assert_eq!(
        order,
        [R::covering(0x10, 0x1f), stayed],
        "as the devices say"
    );
    // And the old range is free.
    R::add(&devices, Recorder::silent(2, 0x10, 0x1f)).unwrap();
    assert_eq!(R::vcpu_read(&mut vcpu, 0x18, QWORD), Ok(answer(2, 0x18)));
}

fn a_device_moves_over_itself<R: Bus>() {
    let devices = registry();
    let id = R::add(&devices, Recorder::silent(0, 0x10, 0x1f)).unwrap();
    R::add(&devices, Recorder::silent(1, 0x08, 0x0f)).unwrap();
    R::add(&devices, Recorder::silent(2, 0x30, 0x30)).unwrap();
    // The same range, shifted, smaller, larger, to the ends of the bus and back.
    for (first, last) in [
        (0x10, 0x1f),
        (0x18, 0x27),
        (0x1a, 0x1a),
        (0x10, 0x2f),
        (R::HIGHEST, R::HIGHEST),
        (0x31, R::HIGHEST),
        (0, 7),
        (0x11, 0x1f),
    ] {
        devices.move_to(id, R::covering(first, last)).unwrap();
        for at in [first, last] {
            assert_eq!(R::read(&devices, at, BYTE), read_of::<R>(0, at), "{at:#x}");
        }
        for at in [first.checked_sub(1), last.checked_add(1)]
            .into_iter()
            .flatten()
        {
            let neighbours = match at {
                0x08..=0x0f => read_of::<R>(1, at),
                0x30 => read_of::<R>(2, at),
                _ => Err(AxError::NotFound),
            };
            if at <= R::HIGHEST {
                assert_eq!(R::read(&devices, at, BYTE), neighbours, "{at:#x}");
            }
        }
    }
}

fn a_refused_move_names_the_owner_and_leaves_the_old_mapping<R: Bus>() {
    let devices = registry();
    let id = R::add(&devices, Recorder::silent(0, 0x10, 0x1f)).unwrap();
    let lower = R::add(&devices, Recorder::silent(1, 0x00, 0x07)).unwrap();
    let upper = R::add(&devices, Recorder::silent(2, 0x28, 0x2f)).unwrap();
    let map = devices.snapshot().to_string();
    let owned = |id: DeviceId| match id {
        id if id == lower => Span::new(0x00, 0x07).unwrap(),
        _ => Span::new(0x28, 0x2f).unwrap(),
    };
    for (first, last, owner) in [
        (0x07, 0x07, lower),
        (0x00, 0x0f, lower),
        (0x07, 0x16, lower),
        (0x18, 0x28, upper),
        (0x2f, 0x2f, upper),
        (0x2f, R::HIGHEST, upper),
        (0x00, R::HIGHEST, lower),
    ] {
        let overlap = Refusal::Overlap {
            bus: R::BUS,
            wanted: span(first, last),
            owner,
            owned: owned(owner),
        };
        let refused = devices.move_to(id, R::covering(first, last));
        assert_eq!(refused, Err(overlap), "{first:#x}..={last:#x}");
        assert_eq!(devices.snapshot().to_string(), map);
        assert_eq!(R::read(&devices, 0x18, QWORD), Ok(answer(0, 0x18)));
    }
}

fn empty_and_backwards_ranges_are_refused<R: Bus>() {
    let devices = registry();
    let id = R::add(&devices, Recorder::silent(0, 0x10, 0x1f)).unwrap();
    for range in [R::raw(9, 8), R::raw(9, 7), R::raw(1, 0)] {
        let added = R::add(&devices, Recorder::new(1, range, &Journal::default()));
        // The refusal is that of an addition with the same range.
        let refusal = added.unwrap_err().refusal();
        assert!(matches!(
            refusal,
            Refusal::Empty { .. } | Refusal::Backwards { .. }
        ));
        assert_eq!(devices.move_to(id, range), Err(refusal));
        assert_eq!(R::read(&devices, 0x1f, BYTE), read_of::<R>(0, 0x1f));
    }
}

fn a_serialized_device_moves_itself_from_its_own_handler<R: Bus + Send>() {
    let (devices, _) = with_bar::<R>(By::MoveTo);
    let mut vcpu = devices.dispatcher();
    R::add(&*devices, Recorder::silent(1, 0x60, 0x6f)).unwrap();
    assert_eq!(R::write(&*devices, 0x14, BYTE, 0x40), Ok(()));
    assert_eq!(R::read(&*devices, 0x14, BYTE), Err(AxError::NotFound));
    assert_eq!(R::read(&*devices, 0x44, BYTE), Ok(4));
    // Through a handle, to a range that overlaps its own.
    assert_eq!(R::vcpu_write(&mut vcpu, 0x44, BYTE, 0x48), Ok(()));
    assert_eq!(R::vcpu_read(&mut vcpu, 0x40, BYTE), Err(AxError::NotFound));
    assert_eq!(R::vcpu_read(&mut vcpu, 0x57, BYTE), Ok(15));
    // To a range that overlaps another: it stays, and can move again.
    let refused = R::write(&*devices, 0x48, BYTE, 0x58);
    assert_eq!(refused, Err(AxError::AlreadyExists));
    assert_eq!(R::read(&*devices, 0x4a, BYTE), Ok(2));
    assert_eq!(R::write(&*devices, 0x48, BYTE, 0), Ok(()));
    assert_eq!(R::vcpu_read(&mut vcpu, 0xf, BYTE), Ok(15));
}

on_every_bus!(
    a_moved_device_answers_in_its_new_range_alone,
    a_device_moves_over_itself,
    a_refused_move_names_the_owner_and_leaves_the_old_mapping,
    empty_and_backwards_ranges_are_refused,
    a_serialized_device_moves_itself_from_its_own_handler,
);

#[test]
fn a_device_does_not_change_its_bus() {
    let devices = registry();
    let port = devices.add_port_dev(Recorder::silent(0, 0, 7)).unwrap();
    let mmio = devices.add_mmio_dev(Recorder::silent(1, 0, 7)).unwrap();
    let map = devices.snapshot().to_string();
    let unknown = |id, bus| {
        let bus = Some(bus);
        Err(Refusal::Unknown { id, bus })
    };
    let (mmio_bus, sys_reg, port_bus) = (BusId::Mmio, BusId::SysReg, BusId::Port);
    let to = |id| {
        [
            devices.move_to(id, GuestPhysAddrRange::covering(8, 15)),
            devices.move_to(id, SysRegAddrRange::covering(8, 15)),
            devices.move_to(id, PortRange::covering(8, 15)),
        ]
    };
    assert_eq!(
        to(port),
        [unknown(port, mmio_bus), unknown(port, sys_reg), Ok(())]
    );
    assert_eq!(devices.move_to(port, PortRange::covering(0, 7)), Ok(()));
    assert_eq!(
        to(mmio),
        [Ok(()), unknown(mmio, sys_reg), unknown(mmio, port_bus)]
    );
    let moved = map.replace("mmio     0x0..=0x7", "mmio     0x8..=0xf");
    assert_eq!(devices.snapshot().to_string(), moved);
}

/// Until it has dropped the old tables, a vCPU may call a moved device with the old addresses. So
/// may a handler that is inside the device while it moves.
#[test]
fn a_vcpu_inside_a_device_that_moves_stays_inside() {
    let devices = Arc::new(shared_registry());
    let own = Arc::new(OnceLock::new());
    let (weak, id) = (Arc::downgrade(&devices), own.clone());
    let device = device::<PortRange>(0, 7, move |Access { at, .. }| {
        let devices = weak.upgrade().unwrap();
        if at < 8 {
            devices.move_to(*id.get().unwrap(), PortRange::covering(0x10, 0x17))?;
            let missed = devices.handle_port_read(Port(at as u16), BYTE);
            assert_eq!(missed, Err(AxError::NotFound));
            let nested = devices.handle_port_read(Port(0x13), BYTE)?;
            return Ok(nested + 1);
        }
        Ok(at)
    });
    own.set(devices.add_port_dev(device).unwrap()).unwrap();
    assert_eq!(devices.handle_port_read(Port(3), BYTE), Ok(0x14));
    assert_eq!(devices.handle_port_read(Port(0x17), BYTE), Ok(0x17));
}

#[test]
fn a_move_may_be_the_first_use_after_iter_mut() {
    let mut devices = registry();
    let id = devices.add_port_dev(Recorder::silent(0, 0, 7)).unwrap();
    *devices.iter_mut_port_dev().next().unwrap() = Recorder::silent(1, 8, 9);
    devices
        .move_to(id, PortRange::covering(0x20, 0x21))
        .unwrap();
    assert_eq!(
        devices.handle_port_read(Port(0x20), QWORD),
        Err(AxError::NotFound)
    );
    let byte = devices.handle_port_read(Port(0x21), BYTE);
    assert_eq!(byte, read_of::<PortRange>(1, 0x21));
    // A device that stays in its place keeps the range that it was moved to.
    assert_eq!(devices.iter_mut_port_dev().count(), 1);
    assert!(devices.handle_port_read(Port(0x21), BYTE).is_ok());
    assert!(devices.handle_port_read(Port(8), BYTE).is_err());
    let map = format!("port     0x20..=0x21 {id}\n");
    assert_eq!(devices.snapshot().to_string(), map);
}
