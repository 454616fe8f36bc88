//! Every public method as machine code, for `.ci/thread-locals.sh` to inspect: generic code is
//! compiled only where it is used.

use core::{fmt, hint::black_box, ops::Deref};

use ax_errno::AxResult;
use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange, SysRegAddr, SysRegAddrRange},
};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use crate::{
    AddError, AxVmDeviceConfig, Batch, BusRange, Device, DeviceBound, Dispatcher, ProfileTable,
    Refusal, Removed, Serialized, Snapshot, ThreadSafe, Unbound, VmDevices, VmDevicesBuilder,
    guarded, mount, sync::Arc,
};

#[unsafe(no_mangle)]
fn axdevice_api() {
    methods::<Unbound>();
    methods::<ThreadSafe>();
}

/// Makes the compiler emit the functions, by taking their addresses.
macro_rules! compile {
    ($of:ty: $($method:ident $(::<$arg:ty>)?),+) => {
        $(black_box(<$of>::$method $(::<$arg>)? as *const ());)+
    };
}

fn methods<B: DeviceBound>() {
    compile!(VmDevices<B>: new, try_new, builder, with_unmapped, with_listener, default);
    compile!(VmDevices<B>: add_mmio_dev, add_sys_reg_dev, add_port_dev);
    compile!(VmDevices<B>: find_mmio_dev, find_sys_reg_dev, find_port_dev);
    compile!(VmDevices<B>: iter_mmio_dev, iter_sys_reg_dev, iter_port_dev);
    compile!(VmDevices<B>: iter_mut_mmio_dev, iter_mut_sys_reg_dev, iter_mut_port_dev);
    compile!(VmDevices<B>: handle_mmio_read, handle_sys_reg_read, handle_port_read);
    compile!(VmDevices<B>: handle_mmio_write, handle_sys_reg_write, handle_port_write);
    compile!(VmDevices<B>: read_bytes::<GuestPhysAddr>, write_bytes::<GuestPhysAddr>);
    compile!(VmDevices<B>: read_repeated::<GuestPhysAddr>, write_repeated::<GuestPhysAddr>);
    compile!(VmDevices<B>: read_bytes::<SysRegAddr>, write_bytes::<SysRegAddr>);
    compile!(VmDevices<B>: read_repeated::<SysRegAddr>, write_repeated::<SysRegAddr>);
    compile!(VmDevices<B>: read_bytes::<Port>, write_bytes::<Port>);
    compile!(VmDevices<B>: read_repeated::<Port>, write_repeated::<Port>);
    compile!(VmDevices<B>: alloc_ivc_channel, release_ivc_channel, snapshot, reclaim);
    compile!(VmDevices<B>: dispatcher, profile_table);
    vcpu::<B, &'static VmDevices<B>>();
    vcpu::<B, Arc<VmDevices<B>>>();
    compile!(VmDevices<B>: remove, reindex);
    compile!(Batch<'_, B>: add_mmio_dev, add_sys_reg_dev, add_port_dev, remove);
    compile!(Removed<B>: id, holders, is_quiescent, wait);
    #[cfg(not(target_os = "none"))]
    compile!(Removed<B>: wait_timeout);
    black_box(visits::<B> as *const ());
    let record = |batch: &mut Batch<'_, B>| batch.remove(black_box(None).ok_or(Refusal::NoMemory)?);
    drop(black_box(VmDevices::<B>::default().update(record)));
    compile!(Snapshot<B>: mmio, sys_reg, port, ivc);
    compile!(ProfileTable: profile, rows);
    black_box(<ProfileTable as fmt::Debug>::fmt as *const ());
    black_box(<ProfileTable as fmt::Display>::fmt as *const ());
    compile!(AxVmDeviceConfig: new);
    compile!(VmDevicesBuilder<'_, B>: new, config, unmapped, listener, build);
    compile!(VmDevicesBuilder<'_, B>: trust_guest_its, with_virtual_timer, skip_unbuilt);
    let factory = |_: &_, batch: &mut Batch<'_, B>| {
        black_box(batch);
        Ok(())
    };
    let _ = black_box(VmDevicesBuilder::new().factory(EmulatedDeviceType::Dummy, factory));
    black_box(<VmDevices<B> as fmt::Debug>::fmt as *const ());
    black_box(<Snapshot<B> as fmt::Debug>::fmt as *const ());
    black_box(<Snapshot<B> as fmt::Display>::fmt as *const ());
    black_box(<Device<B> as fmt::Debug>::fmt as *const ());
    black_box(crate::set_context_id as *const ());
    black_box(guarded::gicv2::<B, Idle> as *const ());
    black_box(guarded::gicd::<B, Idle> as *const ());
    black_box(guarded::gicr::<B, Idle> as *const ());
    black_box(guarded::plic::<B, Idle> as *const ());
    on::<B, GuestPhysAddrRange>();
    on::<B, SysRegAddrRange>();
    on::<B, PortRange>();
}

/// Runs the iterators as well.
fn visits<B: DeviceBound>(devices: &mut VmDevices<B>, snapshot: &Snapshot<B>) {
    devices.for_each_mmio_dev(|id, range, device| see((id, range, device)));
    devices.for_each_sys_reg_dev(|id, range, device| see((id, range, device)));
    devices.for_each_port_dev(|id, range, device| see((id, range, device)));
    devices.iter_mmio_dev().for_each(see);
    devices.iter_sys_reg_dev().for_each(see);
    devices.iter_port_dev().for_each(see);
    devices.iter_mut_mmio_dev().for_each(see);
    devices.iter_mut_sys_reg_dev().for_each(see);
    devices.iter_mut_port_dev().for_each(see);
    snapshot.mmio().for_each(see);
    snapshot.sys_reg().for_each(see);
    snapshot.port().for_each(see);
}

fn see<T>(value: T) {
    black_box(value);
}

fn vcpu<B: DeviceBound, V: Deref<Target = VmDevices<B>> + Clone>() {
    compile!(Dispatcher<V>: new, registry, counters, profile, take_profile, refresh, park);
    compile!(Dispatcher<V>: handle_mmio_read, handle_sys_reg_read, handle_port_read);
    compile!(Dispatcher<V>: handle_mmio_write, handle_sys_reg_write, handle_port_write);
    compile!(Dispatcher<V>: read_bytes::<GuestPhysAddr>, write_bytes::<GuestPhysAddr>);
    compile!(Dispatcher<V>: read_repeated::<GuestPhysAddr>, write_repeated::<GuestPhysAddr>);
    compile!(Dispatcher<V>: read_bytes::<SysRegAddr>, write_bytes::<SysRegAddr>);
    compile!(Dispatcher<V>: read_repeated::<SysRegAddr>, write_repeated::<SysRegAddr>);
    compile!(Dispatcher<V>: read_bytes::<Port>, write_bytes::<Port>);
    compile!(Dispatcher<V>: read_repeated::<Port>, write_repeated::<Port>);
    black_box(<Dispatcher<V> as fmt::Debug>::fmt as *const ());
}

fn on<B: DeviceBound, R: BusRange>() {
    black_box((
        mount::shared::<B, R, _, _>(Idle, ()),
        mount::serialized::<B, R, _, _>(Idle, ()),
    ));
    let serialized: &dyn BaseDeviceOps<R> = &Serialized::new(Idle);
    black_box(serialized);
    compile!(VmDevices<B>: move_to::<R>, map::<R>, unmap::<R>);
    compile!(Batch<'_, B>: move_to::<R>, map::<R>, unmap::<R>);
    compile!(Serialized<Idle>: get_mut, into_inner);
    let _ = black_box(Serialized::new(Idle).enter(|_| ()));
    compile!(AddError<B::Dev<R>>: refusal, into_device);
    black_box(<AddError<B::Dev<R>> as fmt::Display>::fmt as *const ());
}

/// A device that does nothing.
struct Idle;

impl<R: BusRange> BaseDeviceOps<R> for Idle {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> R {
        R::EMPTY
    }

    fn handle_read(&self, _: R::Addr, _: AccessWidth) -> AxResult<usize> {
        Ok(0)
    }

    fn handle_write(&self, _: R::Addr, _: AccessWidth, _: usize) -> AxResult {
        Ok(())
    }
}

impl guarded::Plic for Idle {
    fn is_active(&self, _: usize) -> bool {
        true
    }
}
