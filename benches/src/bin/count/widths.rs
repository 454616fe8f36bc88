//! Other accesses than plain reads: writes, and accesses to a slice of bytes.

use std::hint::black_box;

use ax_errno::AxResult;
use axaddrspace::GuestPhysAddrRange as Mmio;
use axdevice::{Dispatcher, SharedVmDevices};
use benches::Bus;

use crate::{Addr, Scenario, Setting};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        by_reference("write", |registry, addr| {
            registry.handle_mmio_write(addr, Mmio::WIDTH, 1)
        }),
        by_reference("read-bytes", |registry, addr| {
            registry.read_bytes(addr, black_box(&mut [0; 4]))
        }),
        by_reference("write-bytes", |registry, addr| {
            registry.write_bytes(addr, black_box(&[0; 4]))
        }),
        by_handle("write", |handle, addr| {
            handle.handle_mmio_write(addr, Mmio::WIDTH, 1)
        }),
        by_handle("read-bytes", |handle, addr| {
            handle.read_bytes(addr, black_box(&mut [0; 4]))
        }),
        by_handle("write-bytes", |handle, addr| {
            handle.write_bytes(addr, black_box(&[0; 4]))
        }),
    ]
}

/// By `&self`, to one of eight devices.
fn by_reference<T>(
    name: &str,
    access: impl Fn(&SharedVmDevices, Addr<Mmio>) -> AxResult<T> + 'static,
) -> Scenario {
    Scenario::new(format!("{name}-hot-8"), move |n| {
        let setting = Setting::hot::<Mmio>();
        let registry = setting.registry::<Mmio>();
        setting.count::<Mmio>(n, |addr| {
            black_box(access(&registry, addr).is_ok());
        });
    })
}

/// By a vCPU's own handle, to one of eight devices.
fn by_handle<T>(
    name: &str,
    access: impl Fn(&mut Dispatcher<&SharedVmDevices>, Addr<Mmio>) -> AxResult<T> + 'static,
) -> Scenario {
    Scenario::new(format!("handle-{name}-hot-8"), move |n| {
        let setting = Setting::hot::<Mmio>();
        let registry = setting.registry::<Mmio>();
        let mut dispatcher = registry.dispatcher();
        setting.count::<Mmio>(n, |addr| {
            black_box(access(&mut dispatcher, addr).is_ok());
        });
    })
}
