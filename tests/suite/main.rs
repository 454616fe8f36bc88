//! The registry, through its public API only.
//!
//! Each module is named after the module of the library that it tests. `common` is shared by all.

#[macro_use]
mod common;

mod access;
mod batch;
mod bus;
mod bytes;
mod change;
mod dispatcher;
mod iter;
mod iter_mut;
mod ivc;
mod lent;
mod listener;
mod profile;
mod refusal;
mod registry;
mod removed;
mod serialized;
mod snapshot;
mod unmapped;

// The published crate builds interrupt controllers, which call their hypervisor.
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
use support as _;
