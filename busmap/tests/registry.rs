//! Lookups, and the operations that a handler may call.

mod common;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock, Weak},
};

use busmap::{
    Device, Direction, Handlers, Hit, Miss, Mmio, Port, Refusal, Registry, Removed, SysReg, Vcpu,
    View,
};
use static_assertions::{assert_impl_all, assert_not_impl_any};

use self::common::{Devices, Fns, Handler, read, reads_as, rounds, size, span, while_changing};

#[test]
fn the_ends_of_a_bus_are_addresses_like_others() {
    let devices = Devices::new();
    let whole = devices.add::<Port>(reads_as(1), span(0, u64::MAX)).unwrap();
    assert_eq!(
        (read(&devices, 0), read(&devices, u64::MAX)),
        (Ok(1), Ok(1))
    );
    let beyond = |at, beyond| devices.dispatch::<Port, _>(at, beyond, |_| ());
    assert_eq!(beyond(0, u64::MAX), Ok(()));
    assert_eq!(beyond(1, u64::MAX), Err(Miss::Crosses(span(0, u64::MAX))));
    let last = span(u64::MAX, u64::MAX);
    devices.remap::<Port>(whole, last).unwrap();
    assert_eq!(beyond(u64::MAX - 1, 0), Err(Miss::Unmapped));
    assert_eq!(beyond(u64::MAX, 0), Ok(()));
    assert_eq!(beyond(u64::MAX, 1), Err(Miss::Crosses(last)));
}

#[test]
fn one_handler_serves_several_buses_and_others_have_none() {
    let devices = Devices::new();
    let id = devices.add::<Port>(reads_as(1), span(0, 7)).unwrap();
    devices.map::<Mmio>(id, span(4, 0xff)).unwrap();
    let refused = devices.map::<SysReg>(id, span(0, 7)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "device #1 has no handler for bus sys_reg"
    );
    let offset = |hit: Hit<'_, Fns, Mmio>| hit.handler()(0);
    assert_eq!(devices.dispatch(0xff, 0, offset), Ok(1));
    assert_eq!(devices.dispatch(0, 3, offset), Err(Miss::Unmapped));
    assert_eq!(
        devices.dispatch::<SysReg, _>(0, 0, |_| ()),
        Err(Miss::Unmapped)
    );
}

/// Each device forwards to the next lower port. The last but one adds a device and forwards to it.
#[test]
fn handlers_dispatch_and_change_nested() {
    let devices = Arc::new(Devices::new());
    let forwards = |to: u64| -> Arc<Handler> {
        let devices = Arc::downgrade(&devices);
        Arc::new(move |_| {
            let devices = devices.upgrade().expect("the registry is in use");
            if to == 0 {
                devices.add::<Port>(reads_as(0), span(0, 0)).unwrap();
            }
            read(&devices, to).unwrap() + 1
        })
    };
    const DEPTH: u64 = size(100, 12);
    for port in 1..=DEPTH {
        let device = Device::new("bridge").on::<Port>(forwards(port - 1));
        devices.add::<Port>(device, span(port, port)).unwrap();
    }
    assert_eq!(read(&devices, DEPTH), Ok(DEPTH));
    assert_eq!(read(&devices, 0), Ok(0));
}

#[test]
fn a_handler_that_unwinds_leaves_the_registry_as_it_was() {
    let devices = Devices::new();
    let handler: Arc<Handler> = Arc::new(|offset| {
        assert_eq!(offset, 0, "an offset that the device does not like");
        7
    });
    let device = Device::new("panics").on::<Port>(handler);
    let id = devices.add::<Port>(device, span(0, 1)).unwrap();
    let mut vcpu = devices.vcpu();
    // More than the cell has slots.
    for _ in 0..size(100, 9) {
        assert!(catch_unwind(AssertUnwindSafe(|| read(&devices, 1))).is_err());
        let dispatch = || vcpu.dispatch::<Port, _>(Direction::Read, 1, 0, |hit| hit.handler()(1));
        assert!(catch_unwind(AssertUnwindSafe(dispatch)).is_err());
    }
    assert_eq!(read(&devices, 0), Ok(7));
    let removed = devices.remove(id).unwrap();
    vcpu.park();
    assert!(
        removed.is_quiescent(),
        "an access that unwound is still inside"
    );
}

#[test]
fn a_found_handler_outlives_the_device_and_the_registry() {
    let devices = Devices::new();
    let id = devices.add::<Port>(reads_as(5), span(0, 0)).unwrap();
    let (found, handler) = devices.find::<Port>(0).unwrap();
    assert_eq!(found, id);
    let removed = devices.remove(id).unwrap();
    assert!(removed.is_quiescent(), "a found handler does not delay it");
    drop((removed, devices));
    assert_eq!((handler(0), Arc::strong_count(&handler)), (5, 1));
}

/// The spans of a device on two buses move together: a view never sees one without the other.
#[test]
fn a_view_is_of_one_instant_on_all_buses() {
    let devices = Devices::new();
    let id = devices.add::<Port>(reads_as(1), span(0, 0)).unwrap();
    devices.map::<Mmio>(id, span(0, 0)).unwrap();
    let look = |view: View<'_, Fns>| {
        let ports = view.spans::<Port>().map(|hit| hit.span());
        assert!(ports.eq(view.spans::<Mmio>().map(|hit| hit.span())));
        assert_eq!(view.devices().count(), 1);
    };
    let watch = || devices.view(look);
    while_changing(watch, || {
        for n in 1..=rounds(20_000) {
            let to = span(n % 7, n % 7 + n % 3);
            let both = devices.update(|batch| {
                batch.remap::<Port>(id, to)?;
                batch.remap::<Mmio>(id, to)
            });
            both.map_err(|refusal: Refusal| refusal).unwrap();
        }
    });
    // Two views are of two instants.
    let firsts = || devices.view(|view| view.spans::<Port>().map(|hit| hit.span().first()).sum());
    let before: u64 = firsts();
    devices.remap::<Port>(id, span(100, 100)).unwrap();
    assert_ne!(before, firsts());
}

/// The numbers of the devices that are registered differ, and are small.
#[test]
fn a_devices_index_is_its_own() {
    let devices = Devices::new();
    let add = |n| devices.add::<Port>(reads_as(n), span(n, n)).unwrap();
    let ids: Vec<_> = (0..40).map(add).collect();
    for id in &ids[..20] {
        drop(devices.remove(*id).unwrap());
    }
    let later: Vec<_> = (100..110).map(add).collect();
    assert_ne!(later, ids[..10]);
    let mut indices = Vec::new();
    devices.for_each::<Port>(|hit| indices.push(hit.index()));
    assert_eq!(indices.len(), 30);
    indices.sort_unstable();
    assert!(indices.is_sorted_by(|a, b| a < b), "{indices:?}");
    assert!(indices[29] < 64, "{indices:?}");
}

/// Also a device whose handler has a `Weak` to the registry.
#[test]
fn dropping_the_registry_drops_its_devices() {
    let devices = Arc::new(Devices::new());
    let own = Arc::new(OnceLock::<Weak<Devices>>::new());
    let inside = own.clone();
    let handler: Arc<Handler> = Arc::new(move |_| u64::from(inside.get().is_some()));
    let device = Device::new("weak").on::<Port>(handler);
    devices.add::<Port>(device, span(0, 0)).unwrap();
    own.set(Arc::downgrade(&devices)).unwrap();
    assert_eq!(read(&devices, 0), Ok(1));
    assert_eq!(Arc::strong_count(&own), 2);
    drop(devices);
    assert_eq!(Arc::strong_count(&own), 1);
}

/// Handlers that stay on one thread.
enum Local {}

impl Handlers for Local {
    type Mmio = dyn Fn();
    type Port = dyn Fn();
    type SysReg = dyn Fn();
    type Tag = ();
}

/// Handlers that may be shared, beside a tag that may not.
enum LocalTag {}

impl Handlers for LocalTag {
    type Mmio = ();
    type Port = ();
    type SysReg = ();
    type Tag = std::rc::Rc<()>;
}

assert_impl_all!(Registry<Fns>: Send, Sync);
assert_impl_all!(Device<Fns>: Send, Sync);
assert_impl_all!(Removed<Fns>: Send, Sync, std::error::Error);
assert_impl_all!(Vcpu<Arc<Registry<Fns>>>: Send, Sync);
assert_not_impl_any!(Registry<Local>: Send, Sync);
assert_not_impl_any!(Device<Local>: Send, Sync);
assert_not_impl_any!(Removed<Local>: Send, Sync);
assert_not_impl_any!(Vcpu<&'static Registry<Local>>: Send, Sync);
assert_not_impl_any!(Registry<LocalTag>: Send, Sync);
assert_not_impl_any!(Removed<LocalTag>: Send, Sync);
