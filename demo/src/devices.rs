//! The devices of the VM. None has a lock, save the UART and the queues, which the registry's `Serialized`
//! gives one.

mod bar;
mod card;
mod crossing;
mod latch;
mod mailbox;
mod mortal;
mod queue;
mod register;
mod slot;
mod uart;

pub(crate) use bar::Bar;
pub(crate) use card::{Card, Noticed};
pub(crate) use crossing::Crossing;
pub(crate) use latch::Latch;
pub(crate) use mailbox::Mailbox;
pub(crate) use mortal::Mortal;
pub(crate) use queue::Queue;
pub(crate) use slot::Slot;
pub(crate) use uart::{Console, Uart};
