//! The code that the benches share: devices, layouts, accesses, the registries that are compared, and scenarios.

mod accesses;
mod bus;
pub mod guarded;
mod in_turn;
mod layout;
mod ours;
mod registry;
mod rivals;
mod rust_vmm;
pub mod scenario;
mod table;

use std::hint::black_box;

use axaddrspace::GuestPhysAddrRange;
use log::LevelFilter;

pub use crate::{
    accesses::{Access, Pattern, accesses, repeated},
    bus::{Bus, Nothing},
    in_turn::in_turn,
    layout::{Layout, SEED, seed},
    ours::CELL,
    registry::{Changeable, Registry, Search, Vcpu, dispatch},
};
use crate::{
    ours::{Dispatched, Shared},
    rivals::{
        cache::Cached,
        direct::Direct,
        epoch::Epoch,
        io_manager::LockedIoManager,
        left_right::LeftRight,
        published::{LockedPublished, Published},
        spin::SpinLocked,
        tree::LockedTree,
    },
};

/// An action that is repeated for each of several registries.
pub trait Visitor<R: Bus> {
    /// Does it for one registry.
    fn visit<T: Registry<R>>(&mut self);
}

/// Visits all registries.
pub fn all(visitor: &mut impl Visitor<GuestPhysAddrRange>) {
    on_any_layout(visitor);
    visitor.visit::<LockedPublished>();
    visitor.visit::<LockedIoManager>();
    visitor.visit::<LockedTree>();
    visitor.visit::<SpinLocked>();
    visitor.visit::<LeftRight>();
    visitor.visit::<Epoch>();
}

/// Visits the registries that have every bus: the floor, the published 0.4.10, and this crate's.
pub fn on_any_bus<R: Bus>(visitor: &mut impl Visitor<R>) {
    log_nothing();
    visitor.visit::<Direct<R>>();
    visitor.visit::<Published<R>>();
    visitor.visit::<Shared<R>>();
    visitor.visit::<Dispatched<R>>();
}

/// Visits the registries that are compared on every layout of MMIO devices.
pub fn on_any_layout(visitor: &mut impl Visitor<GuestPhysAddrRange>) {
    on_any_bus(visitor);
    visitor.visit::<Cached>();
}

/// Visits the registries that take rust-vmm's devices: rust-vmm's own, and `busmap`.
pub fn rust_vmm(visitor: &mut impl Visitor<GuestPhysAddrRange>) {
    log_nothing();
    visitor.visit::<LockedIoManager>();
    visitor.visit::<rust_vmm::Shared>();
    visitor.visit::<rust_vmm::Handled>();
}

/// An action that is repeated for each of several registries that can be changed while they are used.
pub trait ChangeVisitor {
    /// Does it for one registry.
    fn visit<T: Changeable>(&mut self);
}

/// Visits all registries that can be changed while they are used.
pub fn changeable(visitor: &mut impl ChangeVisitor) {
    log_nothing();
    visitor.visit::<Shared<GuestPhysAddrRange>>();
    visitor.visit::<Dispatched<GuestPhysAddrRange>>();
    visitor.visit::<LockedPublished>();
    visitor.visit::<LockedIoManager>();
    visitor.visit::<LockedTree>();
    visitor.visit::<SpinLocked>();
    visitor.visit::<LeftRight>();
    visitor.visit::<Epoch>();
    visitor.visit::<Cached>();
}

/// Turns logging off. `black_box` hides this from the compiler, which could otherwise omit the checks of
/// the log level in accesses.
pub fn log_nothing() {
    log::set_max_level(black_box(LevelFilter::Off));
}
