//! The guest that runs on threads, in KVM and on bare metal. It accesses devices at the addresses of the
//! [`contract`], round by round, and checks every value that it reads.
//!
//! The guest is the same everywhere; a [`Machine`] makes its accesses.

#![no_std]

mod console;
pub mod contract;
mod guest;
mod machine;
mod rounds;

pub use self::{
    guest::Guest,
    machine::{At, Machine},
};
