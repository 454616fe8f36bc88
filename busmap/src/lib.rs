#![doc = include_str!("../README.md")]
#![cfg_attr(not(any(test, loom)), no_std)]
// Not tests, whose threads are std's.
#![cfg_attr(not(test), warn(clippy::disallowed_types, clippy::disallowed_methods))]

extern crate alloc;
#[cfg(not(target_os = "none"))]
extern crate std;

mod accesses;
mod aside;
mod bus;
mod cache;
mod change;
mod device;
mod difference;
mod direction;
mod index;
mod listener;
#[cfg(test)]
#[path = "../loom-tests/mod.rs"]
mod loom_tests;
mod mapping;
mod miss;
mod missed;
#[cfg(object_code)]
mod object_code;
pub mod orderings;
mod past;
mod profile;
mod publication;
mod publish;
mod refusal;
mod registrations;
mod registry;
mod removed;
mod reserve;
#[cfg(feature = "rust-vmm")]
pub mod rust_vmm;
mod space_saving;
mod span;
mod stack;
mod sync;
mod table;
mod tables;
mod tallies;
#[cfg(all(test, not(loom)))]
mod testing;
mod turns;
mod vcpu;
mod veto;
mod withdraw;

pub use crate::{
    accesses::Accesses,
    bus::{Bus, BusId, Handlers, Mmio, On, Port, SysReg},
    change::Batch,
    device::{Device, DeviceId},
    difference::Difference,
    direction::Direction,
    listener::Listener,
    mapping::Mapping,
    miss::Miss,
    missed::{Missed, MissedAddress},
    profile::{DeviceProfile, Profile},
    refusal::{Refusal, Refused},
    registry::{Hit, Registry, View},
    removed::Removed,
    span::Span,
    tables::Registration,
    vcpu::{BusCounters, RegistryLike, Vcpu},
    veto::Veto,
    withdraw::Withdrawn,
};
