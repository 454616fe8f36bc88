//! The devices of the board. None has a lock, except the queues, which the registry wraps in `Serialized`.

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
