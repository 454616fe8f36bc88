//! [`Registry`]: the interface of the registries that are compared.

use std::hint::black_box;

use axaddrspace::{GuestPhysAddrRange, device::DeviceAddrRange};
use busmap::Span;

use crate::{
    accesses::Access,
    bus::{Bus, Nothing},
};

/// A registry of devices on one bus.
pub trait Registry<R: Bus>: Sync + Sized {
    /// The registry's name in reports.
    const NAME: &'static str;
    /// Whether it is this crate's.
    const OURS: bool = false;
    /// Whether a search takes a step for each device.
    const LINEAR: bool = false;
    /// Whether it supports accesses that no device owns: 0.4.10 panics.
    const MISSES: bool = true;

    /// A vCPU's view of the registry.
    type Vcpu<'r>: Vcpu<R>
    where
        Self: 'r;

    /// A registry of devices that own these spans.
    fn with(spans: &[Span]) -> Self;

    /// The view of the vCPU that the calling thread runs.
    fn vcpu(&self) -> Self::Vcpu<'_>;
}

/// A registry that can be changed while vCPUs use it.
pub trait Changeable: Registry<GuestPhysAddrRange> {
    /// Hot-adds a device.
    fn add(&self, device: Nothing<GuestPhysAddrRange>);
}

/// A vCPU's view of a registry, through which it dispatches.
pub trait Vcpu<R: Bus> {
    /// The target of an access.
    type Target: Copy;

    /// Returns the target of an access. The benches call this before the timed part.
    fn aim(&self, access: Access<R>) -> Self::Target;

    /// A read.
    fn read(&mut self, target: Self::Target) -> usize;
}

/// A [`Vcpu`] that looks up the device by its address. All do except the floor.
pub trait Search {
    /// The bus.
    type Bus: Bus;

    /// A read of `addr`.
    fn search(&mut self, addr: <Self::Bus as DeviceAddrRange>::Addr) -> usize;
}

impl<S: Search> Vcpu<S::Bus> for S {
    type Target = <S::Bus as DeviceAddrRange>::Addr;

    fn aim(&self, access: Access<S::Bus>) -> Self::Target {
        access.addr
    }

    #[inline]
    fn read(&mut self, addr: Self::Target) -> usize {
        self.search(addr)
    }
}

/// Makes `n` accesses, to one target after the other.
///
/// The processor may begin an access before it has the value of the previous one. In the same way it
/// may overlap an access with the code around a vCPU's exit.
#[inline(never)]
pub fn dispatch<R: Bus, V: Vcpu<R>>(vcpu: &mut V, targets: &[V::Target], n: u64) {
    let mut left = n as usize;
    while left > 0 {
        let turn = left.min(targets.len());
        for &target in &targets[..turn] {
            black_box(vcpu.read(target));
        }
        left -= turn;
    }
}

#[cfg(test)]
mod tests {
    use axaddrspace::device::{PortRange, SysRegAddrRange};

    use super::*;
    use crate::{
        ChangeVisitor, Visitor,
        accesses::{Pattern, accesses},
        all, changeable,
        layout::{Layout, SEED, seed},
        on_any_bus, rust_vmm,
    };

    fn check<R: Bus, T: Registry<R>>(registry: &T, layout: &Layout, n: usize) {
        let mut vcpu = registry.vcpu();
        let patterns = Pattern::ALL.into_iter();
        for pattern in patterns.filter(|pattern| T::MISSES || !pattern.is_miss()) {
            for access in accesses(layout, pattern, n).into_iter().take(300) {
                let target = vcpu.aim(access);
                let (name, layout) = (T::NAME, layout.name);
                assert_eq!(
                    vcpu.read(target),
                    access.reads_as(),
                    "{name}, {n} of {layout}: {access:?}"
                );
            }
        }
    }

    /// The seed of random layouts.
    struct Check(u64);

    impl<R: Bus> Visitor<R> for Check {
        fn visit<T: Registry<R>>(&mut self) {
            for layout in R::layouts(self.0) {
                for n in [1, 2, 37, 150] {
                    check(&T::with(&layout.spans(n)), &layout, n);
                }
            }
        }
    }

    #[test]
    fn every_registry_finds_every_device_and_no_other() {
        let seed = seed();
        println!("{SEED}={seed}");
        all(&mut Check(seed));
        on_any_bus::<SysRegAddrRange>(&mut Check(seed));
        on_any_bus::<PortRange>(&mut Check(seed));
        rust_vmm(&mut Check(seed));
    }

    struct Grow;

    impl ChangeVisitor for Grow {
        fn visit<T: Changeable>(&mut self) {
            let layout = GuestPhysAddrRange::plain();
            let spans = layout.spans(37);
            let registry = T::with(&spans[..1]);
            let mut vcpu = registry.vcpu();
            for (i, &span) in spans.iter().enumerate().skip(1) {
                registry.add(Nothing::new(i, span));
                let there = accesses(&layout, Pattern::Random, i + 1).into_iter();
                for access in there.take(100) {
                    let target = vcpu.aim(access);
                    assert_eq!(vcpu.read(target), access.reads_as(), "{}", T::NAME);
                }
            }
            check(&registry, &layout, spans.len());
        }
    }

    #[test]
    fn every_vcpu_finds_added_devices() {
        changeable(&mut Grow);
    }
}
