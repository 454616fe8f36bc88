//! Moves: a device gets another range, in one step, whoever is inside it.

use std::{
    cell::Cell,
    marker::PhantomData,
    rc::{self, Rc},
    sync::{Arc, OnceLock, Weak},
};

use ax_errno::{AxError, AxResult};
use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange, SysRegAddrRange},
};
use axdevice::{AxVmDevices, DeviceId, Refusal, Serialized, SharedVmDevices, Span};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use crate::{
    bus::Bus,
    device::{Journal, Probe, Script, answer, registry, shared_registry},
};

const BYTE: AccessWidth = AccessWidth::Byte;
const QWORD: AccessWidth = AccessWidth::Qword;

fn a_moved_device_answers_in_its_new_range_alone<R: Bus>() {
    let devices = registry();
    let mut vcpu = devices.dispatcher();
    let id = R::add(&devices, Probe::silent(0, 0x10, 0x1f)).unwrap();
    let other = R::add(&devices, Probe::silent(1, 0x20, 0x2f)).unwrap();
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
    R::add(&devices, Probe::silent(2, 0x10, 0x1f)).unwrap();
    assert_eq!(R::vcpu_read(&mut vcpu, 0x18, QWORD), Ok(answer(2, 0x18)));
}

fn a_device_moves_over_itself<R: Bus>() {
    let devices = registry();
    let id = R::add(&devices, Probe::silent(0, 0x10, 0x1f)).unwrap();
    R::add(&devices, Probe::silent(1, 0x08, 0x0f)).unwrap();
    R::add(&devices, Probe::silent(2, 0x30, 0x30)).unwrap();
    // Where it is, shifted, smaller, larger, to the ends of the bus and back.
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

/// What a byte read of a [`Probe`] gives.
fn read_of<R: Bus>(number: usize, at: usize) -> AxResult<usize> {
    Ok(crate::bus::carried::<R>(answer(number, at), BYTE))
}

fn a_refused_move_names_the_owner_and_leaves_the_old_mapping<R: Bus>() {
    let devices = registry();
    let id = R::add(&devices, Probe::silent(0, 0x10, 0x1f)).unwrap();
    let lower = R::add(&devices, Probe::silent(1, 0x00, 0x07)).unwrap();
    let upper = R::add(&devices, Probe::silent(2, 0x28, 0x2f)).unwrap();
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
            wanted: Span::new(first, last).unwrap(),
            owner,
            owned: owned(owner),
        };
        let refused = devices.move_to(id, R::covering(first, last));
        assert_eq!(refused, Err(overlap), "{first:#x}..={last:#x}");
        assert_eq!(devices.snapshot().to_string(), map);
        assert_eq!(R::read(&devices, 0x18, QWORD), Ok(answer(0, 0x18)));
    }
}

fn a_range_that_is_none_is_refused<R: Bus>() {
    let devices = registry();
    let id = R::add(&devices, Probe::silent(0, 0x10, 0x1f)).unwrap();
    for range in [R::raw(9, 8), R::raw(9, 7), R::raw(1, 0)] {
        let added = R::add(&devices, Probe::new(1, range, &Journal::default()));
        // As an addition with that range is.
        let refusal = added.unwrap_err().refusal();
        assert!(matches!(
            refusal,
            Refusal::Empty { .. } | Refusal::Wrapping { .. }
        ));
        assert_eq!(devices.move_to(id, range), Err(refusal));
        assert_eq!(R::read(&devices, 0x1f, BYTE), read_of::<R>(0, 0x1f));
    }
}

/// How a BAR is moved.
#[derive(Clone, Copy)]
enum By {
    /// By saying where to, before it changes its own idea of its range.
    MoveTo,
    /// By having the registry ask, after that.
    Reindex,
}

/// A device with a BAR: what is written to it becomes the first of its sixteen addresses, if it can.
struct Bar<R> {
    devices: Weak<SharedVmDevices>,
    id: Arc<OnceLock<DeviceId>>,
    first: Cell<usize>,
    by: By,
    bus: PhantomData<R>,
}

/// A registry with a [`Bar`] at `0x10..=0x1f`.
fn with_bar<R: Bus + Send>(by: By) -> (Arc<SharedVmDevices>, DeviceId) {
    let devices = Arc::new(shared_registry());
    let id = Arc::new(OnceLock::new());
    let bar = Bar::<R> {
        devices: Arc::downgrade(&devices),
        id: id.clone(),
        first: 0x10.into(),
        by,
        bus: PhantomData,
    };
    let added = R::add(&*devices, Arc::new(Serialized::new(bar))).unwrap();
    id.set(added).unwrap();
    (devices, added)
}

fn sixteen<R: Bus>(first: usize) -> R {
    R::covering(first, first + 15)
}

impl<R: Bus> BaseDeviceOps<R> for Bar<R> {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> R {
        sixteen(self.first.get())
    }

    fn handle_read(&self, addr: R::Addr, _: AccessWidth) -> AxResult<usize> {
        Ok(R::place(addr).wrapping_sub(self.first.get()))
    }

    fn handle_write(&self, _: R::Addr, _: AccessWidth, first: usize) -> AxResult {
        let devices = self.devices.upgrade().unwrap();
        let id = *self.id.get().unwrap();
        match self.by {
            By::MoveTo => {
                devices.move_to(id, sixteen::<R>(first))?;
                self.first.set(first);
            }
            By::Reindex => {
                let old = self.first.replace(first);
                let moved = devices.reindex(id);
                moved.inspect_err(|_| self.first.set(old))?;
            }
        }
        Ok(())
    }
}

fn a_serialised_device_moves_itself_from_its_own_handler<R: Bus + Send>() {
    let (devices, _) = with_bar::<R>(By::MoveTo);
    let mut vcpu = devices.dispatcher();
    R::add(&*devices, Probe::silent(1, 0x60, 0x6f)).unwrap();
    assert_eq!(R::write(&*devices, 0x14, BYTE, 0x40), Ok(()));
    assert_eq!(R::read(&*devices, 0x14, BYTE), Err(AxError::NotFound));
    assert_eq!(R::read(&*devices, 0x44, BYTE), Ok(4));
    // By a handle, over itself.
    assert_eq!(R::vcpu_write(&mut vcpu, 0x44, BYTE, 0x48), Ok(()));
    assert_eq!(R::vcpu_read(&mut vcpu, 0x40, BYTE), Err(AxError::NotFound));
    assert_eq!(R::vcpu_read(&mut vcpu, 0x57, BYTE), Ok(15));
    // Onto another: it stays, and can move again.
    let refused = R::write(&*devices, 0x48, BYTE, 0x58);
    assert_eq!(refused, Err(AxError::AlreadyExists));
    assert_eq!(R::read(&*devices, 0x4a, BYTE), Ok(2));
    assert_eq!(R::write(&*devices, 0x48, BYTE, 0), Ok(()));
    assert_eq!(R::vcpu_read(&mut vcpu, 0xf, BYTE), Ok(15));
}

fn reindexing_asks_the_device<R: Bus + Send>() {
    let (devices, id) = with_bar::<R>(By::MoveTo);
    // Nothing to do.
    assert_eq!(devices.reindex(id), Ok(()));
    assert_eq!(R::read(&*devices, 0x1f, BYTE), Ok(15));
    // The tables say 0x30, the device what it was made with.
    let fixed = R::add(&*devices, Probe::silent(1, 0x20, 0x2f)).unwrap();
    devices.move_to(fixed, R::covering(0x30, 0x3f)).unwrap();
    assert_eq!(R::read(&*devices, 0x30, QWORD), Ok(answer(1, 0x30)));
    assert_eq!(devices.reindex(fixed), Ok(()));
    assert_eq!(R::read(&*devices, 0x20, QWORD), Ok(answer(1, 0x20)));
    assert_eq!(R::read(&*devices, 0x30, BYTE), Err(AxError::NotFound));
    // Where it wants to be another has come.
    devices.move_to(fixed, R::covering(0x30, 0x3f)).unwrap();
    devices.move_to(id, R::covering(0x28, 0x2f)).unwrap();
    let overlap = Refusal::Overlap {
        wanted: Span::new(0x20, 0x2f).unwrap(),
        owner: id,
        owned: Span::new(0x28, 0x2f).unwrap(),
    };
    assert_eq!(devices.reindex(fixed), Err(overlap));
    assert_eq!(R::read(&*devices, 0x30, QWORD), Ok(answer(1, 0x30)));
}

fn reindexing_a_busy_serialised_device_leaves_it_where_it_was<R: Bus + Send>() {
    let (devices, id) = with_bar::<R>(By::Reindex);
    let map = devices.snapshot().to_string();
    // Inside its handler it cannot be asked, and says that it has no range.
    let refused = R::write(&*devices, 0x10, BYTE, 0x40);
    assert_eq!(refused, Err(AxError::InvalidInput));
    assert_eq!(devices.snapshot().to_string(), map);
    assert_eq!(R::read(&*devices, 0x13, BYTE), Ok(3));
    assert_eq!(devices.reindex(id), Ok(()));
}

/// A device that has one address more after each read.
struct Grows<R> {
    devices: OnceLock<(rc::Weak<AxVmDevices>, DeviceId)>,
    reads: Cell<usize>,
    bus: PhantomData<R>,
}

impl<R: Bus> BaseDeviceOps<R> for Grows<R> {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> R {
        R::covering(0x10, 0x10 + self.reads.get())
    }

    fn handle_read(&self, _: R::Addr, _: AccessWidth) -> AxResult<usize> {
        self.reads.set(self.reads.get() + 1);
        let (devices, id) = self.devices.get().unwrap();
        devices.upgrade().unwrap().reindex(*id)?;
        Ok(self.reads.get())
    }

    fn handle_write(&self, _: R::Addr, _: AccessWidth, _: usize) -> AxResult {
        Ok(())
    }
}

fn a_device_without_a_lock_may_be_reindexed_in_its_own_handler<R: Bus + Send>() {
    let devices = Rc::new(registry());
    let device = Arc::new(Grows::<R> {
        devices: OnceLock::new(),
        reads: 0.into(),
        bus: PhantomData,
    });
    let id = R::add(&*devices, device.clone()).unwrap();
    assert!(device.devices.set((Rc::downgrade(&devices), id)).is_ok());
    let limit = R::add(&*devices, Probe::silent(1, 0x13, 0x13)).unwrap();
    let read = |at| R::read(&*devices, at, BYTE);
    assert_eq!([0x10, 0x11].map(read), [Ok(1), Ok(2)]);
    assert_eq!(read(0x12), Err(AxError::AlreadyExists), "what reindex gave");
    assert_eq!(read(0x13), read_of::<R>(1, 0x13));
    assert!(devices.remove(limit).unwrap().wait(0).is_ok());
    assert_eq!([0x10, 0x14].map(read), [Ok(4), Ok(5)]);
}

on_every_bus!(
    a_moved_device_answers_in_its_new_range_alone,
    a_device_moves_over_itself,
    a_refused_move_names_the_owner_and_leaves_the_old_mapping,
    a_range_that_is_none_is_refused,
    a_serialised_device_moves_itself_from_its_own_handler,
    reindexing_asks_the_device,
    reindexing_a_busy_serialised_device_leaves_it_where_it_was,
    a_device_without_a_lock_may_be_reindexed_in_its_own_handler,
);

#[test]
fn a_device_does_not_change_its_bus() {
    let devices = registry();
    let port = devices.add_port_dev(Probe::silent(0, 0, 7)).unwrap();
    let mmio = devices.add_mmio_dev(Probe::silent(1, 0, 7)).unwrap();
    let map = devices.snapshot().to_string();
    let unknown = |id| Err(Refusal::Unknown { id });
    let to = |id| {
        [
            devices.move_to(id, GuestPhysAddrRange::covering(8, 15)),
            devices.move_to(id, SysRegAddrRange::covering(8, 15)),
            devices.move_to(id, PortRange::covering(8, 15)),
        ]
    };
    assert_eq!(to(port), [unknown(port), unknown(port), Ok(())]);
    assert_eq!(devices.move_to(port, PortRange::covering(0, 7)), Ok(()));
    assert_eq!(to(mmio), [Ok(()), unknown(mmio), unknown(mmio)]);
    let moved = map.replace("mmio     0x0..=0x7", "mmio     0x8..=0xf");
    assert_eq!(devices.snapshot().to_string(), moved);
}

/// Until it has let go of the old tables, a vCPU may call a moved device with the old addresses; so
/// does a handler that is inside it while it moves.
#[test]
fn a_vcpu_inside_a_device_that_moves_stays_inside() {
    let devices = Arc::new(shared_registry());
    let own = Arc::new(OnceLock::new());
    let (weak, id) = (Arc::downgrade(&devices), own.clone());
    let device = Script::<PortRange, _>::new(0, 7, move |at, _| {
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
    let id = devices.add_port_dev(Probe::silent(0, 0, 7)).unwrap();
    *devices.iter_mut_port_dev().next().unwrap() = Probe::silent(1, 8, 9);
    devices
        .move_to(id, PortRange::covering(0x20, 0x21))
        .unwrap();
    assert_eq!(
        devices.handle_port_read(Port(0x20), QWORD),
        Err(AxError::NotFound)
    );
    let byte = devices.handle_port_read(Port(0x21), BYTE);
    assert_eq!(byte, read_of::<PortRange>(1, 0x21));
    // What stays in its place keeps the range that it was moved to.
    assert_eq!(devices.iter_mut_port_dev().count(), 1);
    assert!(devices.handle_port_read(Port(0x21), BYTE).is_ok());
    assert!(devices.handle_port_read(Port(8), BYTE).is_err());
    let map = format!("port     0x20..=0x21 {id}\n");
    assert_eq!(devices.snapshot().to_string(), map);
}
