//! The devices of the board. None has a lock, but for the queues, which the registry's `Serialized` gives one.

mod bar;
mod card;
mod doorbells;
mod latch;
mod mailbox;
mod mortal;
mod queue;
mod register;
mod slot;

pub use self::{
    bar::Bar, card::Card, doorbells::Doorbells, latch::Latch, mailbox::Mailbox, mortal::Mortal,
    queue::Queue, register::Register, slot::Slot,
};
