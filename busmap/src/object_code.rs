//! Every public method as machine code, which `.ci/thread-locals.sh` inspects: generic code is
//! compiled only where it is used.

use core::{error::Error, fmt, hint::black_box, ops::Deref};

use crate::{
    Accesses, Batch, Bus, BusId, Device, DeviceId, Difference, Direction, Handlers, Hit, Mapping,
    Miss, Missed, MissedAddress, Mmio, Port, Profile, Refusal, Refused, Registration, Registry,
    Removed, Span, SysReg, Vcpu, Veto, View, Withdrawn, sync::Arc,
};

/// Devices that a guest reads.
enum Reads {}

type Read = dyn Fn(u64) -> u64 + Send + Sync;

impl Handlers for Reads {
    type Mmio = Read;
    type Port = Read;
    type SysReg = Read;
    type Tag = Arc<str>;
}

/// Makes the compiler emit the functions, by taking their addresses.
macro_rules! compile {
    ($of:ty: $($method:ident $(::<$arg:ty>)?),+) => {
        $(black_box(<$of>::$method $(::<$arg>)? as *const ());)+
    };
}

#[unsafe(no_mangle)]
fn busmap_api() {
    compile!(Registry<Reads>: new, default, reclaim, remove, batch, vcpu);
    compile!(Registry<Reads>: withdraw, restore);
    compile!(Registry<Reads>: with_listener, with_listener_and_context_id);
    compile!(Difference: unmapped, mapped, is_empty);
    compile!(Veto: new, with_code, reason, code);
    compile!(Batch<'_, Reads>: add, remove, publish);
    compile!(Device<Reads>: new, tag, into_tag, clone);
    compile!(Registration<Reads>: id, device);
    compile!(Removed<Reads>: id, tag, is_quiescent, holders, wait);
    #[cfg(not(target_os = "none"))]
    compile!(Removed<Reads>: wait_timeout);
    compile!(Withdrawn<Reads>: id, device, spans, clone);
    compile!(View<'_, Reads>: device, devices, is_withdrawn);
    compile!(Span: new, with_length, first, last, contains, overlaps);
    compile!(DeviceId: number);
    compile!(Profile: merge, answered, missed);
    compile!(Missed: merge);
    compile!(MissedAddress: at_least);
    compile!(Accesses: total);
    black_box(<Refusal as From<Refused<Reads>>>::from as *const ());
    black_box(replaces as *const ());
    black_box(looks as *const ());
    black_box(updates as *const ());
    black_box(names as *const ());
    bus::<Mmio>();
    bus::<Port>();
    bus::<SysReg>();
    vcpu::<&'static Registry<Reads>>();
    vcpu::<Arc<Registry<Reads>>>();
    shows::<(Registry<Reads>, Batch<'_, Reads>, Device<Reads>, Miss)>();
    shows::<(Registration<Reads>, Withdrawn<Reads>, View<'_, Reads>)>();
    shows::<(Profile, Direction, Difference, Mapping)>();
    fails::<Miss>();
    fails::<Refusal>();
    fails::<Refused<Reads>>();
    fails::<Veto>();
    fails::<Removed<Reads>>();
    black_box((
        <BusId as fmt::Display>::fmt as *const (),
        <Span as fmt::Display>::fmt as *const (),
        <Mapping as fmt::Display>::fmt as *const (),
        <DeviceId as fmt::Display>::fmt as *const (),
        <Profile as fmt::Display>::fmt as *const (),
    ));
}

fn names(profile: &Profile, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    fmt::Display::fmt(&profile.named(|id| id), f)
}

fn replaces(of: &Withdrawn<Reads>, device: Device<Reads>, spans: Arc<[(BusId, Span)]>) {
    black_box(of.replaced(device, spans));
}

fn bus<K: Bus>() {
    compile!(Registry<Reads>: add::<K>, map::<K>, unmap::<K>, move_to::<K>, remap::<K>, find::<K>);
    compile!(Registry<Reads>: set_aside::<K>);
    compile!(Batch<'_, Reads>: add_at::<K>, map::<K>, unmap::<K>, move_to::<K>, remap::<K>);
    compile!(Device<Reads>: on::<K>, handler::<K>, into_handler::<K>);
    compile!(Hit<'_, Reads, K>: handler, span, offset, index, owner, id, tag);
    shows::<Hit<'_, Reads, K>>();
    black_box(accesses::<K> as *const ());
}

fn vcpu<V: Deref<Target = Registry<Reads>>>() {
    compile!(Vcpu<V>: new, registry, is_parked, refresh, park, profile, take_profile);
    compile!(Vcpu<V>: counters::<Mmio>, counters::<Port>, counters::<SysReg>);
    shows::<Vcpu<V>>();
    black_box(exits::<V, Mmio> as *const ());
    black_box(exits::<V, Port> as *const ());
    black_box(exits::<V, SysReg> as *const ());
}

fn shows<T: fmt::Debug>() {
    black_box(<T as fmt::Debug>::fmt as *const ());
}

fn fails<T: Error>() {
    shows::<T>();
    black_box(<T as fmt::Display>::fmt as *const ());
    black_box(<T as Error>::source as *const ());
}

// A function that takes a closure has no address.

fn see<T>(value: T) {
    black_box(value);
}

fn accesses<K: Bus>(registry: &Registry<Reads>, at: u64) {
    let _ = black_box(registry.dispatch::<K, _>(at, 3, |found| see(found)));
    registry.dispatch_with::<K, _>(at, 3, |found| see(found));
    registry.for_each::<K>(|hit| see(hit));
    registry.aside::<K>().for_each(see);
    registry.view(|view| view.spans::<K>().for_each(see));
}

fn exits<V: Deref<Target = Registry<Reads>>, K: Bus>(vcpu: &mut Vcpu<V>, at: u64) {
    let _ = black_box(vcpu.dispatch::<K, _>(Direction::Read, at, 3, |found| see(found)));
    vcpu.dispatch_with::<K, _>(Direction::Read, at, 3, |found| see(found));
}

fn looks(registry: &Registry<Reads>) {
    registry.view(|view| view.devices().for_each(see));
}

fn updates(registry: &Registry<Reads>, id: DeviceId) {
    let _ = black_box(registry.update(|batch| batch.remove(id)));
}
