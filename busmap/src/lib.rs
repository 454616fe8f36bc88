//! A lock-free registry of emulated devices: it looks up the device that owns an address on a guest's bus,
//! and calls the device's handler.
//!
//! Tables of all buses are one immutable snapshot. A dispatch takes no lock and looks the address up in an
//! indexed table; a change copies the tables, edits the copy and publishes it.
//!
//! # Items
//!
//! - [`Handlers`] names the embedder's types: a handler for each bus ([`Mmio`], [`Port`], [`SysReg`]) and a
//!   tag to keep beside a device.
//! - [`Registry`] holds the devices of one guest. [`dispatch`](Registry::dispatch) calls a closure with the
//!   [`Hit`], or returns a [`Miss`].
//! - [`Vcpu`] is a vCPU's own handle, and faster: a warm dispatch writes no shared memory. It counts a
//!   [`Profile`] of accesses and misses.
//! - [`Device`] is what [`add`](Registry::add) registers; [`map`](Registry::map),
//!   [`unmap`](Registry::unmap) and [`move_to`](Registry::move_to) change its [`Span`]s. A [`Batch`] makes
//!   several changes at one instant.
//! - [`remove`](Registry::remove) unlinks a device immediately; the returned [`Removed`] reports when no
//!   vCPU is inside it any more.
//! - [`Refusal`] is the reason why a change is not made.
//! - [`Listener`] gets each change before and after it is published, and may veto it.
//! - [`orderings`] lists every atomic operation.
//!
//! # Targets and features
//!
//! The crate is `no_std` with `alloc`, on stable Rust. On hosted targets snapshots are published through
//! arc-swap, on bare metal through a cell without thread-locals.
//!
//! - `rust-vmm`: module `rust_vmm`, a front end for the devices of rust-vmm, unchanged. Needs `std`.
//! - `slot-cell`: the cell for bare metal on hosted targets too.
//!
//! # Examples
//!
//! See [`Registry`] for an example that dispatches, and [`Listener`] for one that follows changes.
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

/// The examples of README.md, as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
