//! The board that the demo and metal give their guest: the devices of the guest's contract, and the code that
//! hot-adds, moves and removes them while it runs.
//!
//! The board needs no operating system: a [`Host`] provides the clock.

#![no_std]
#![expect(missing_debug_implementations, reason = "no device is printed")]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod adder;
mod arrivals;
mod belts;
mod board;
mod changer;
mod count;
mod devices;
mod finding;
mod host;
mod noticed;
mod removals;
mod sabotage;

pub use self::{
    adder::{Added, Adder},
    arrivals::Arrivals,
    belts::Gone,
    board::Board,
    changer::{Changer, Changes, Made},
    count::Count,
    devices::{Bar, Card, Doorbells, Latch, Mailbox, Mortal, Queue, Register, Slot},
    finding::Finding,
    host::Host,
    noticed::Noticed,
    sabotage::Sabotage,
};
