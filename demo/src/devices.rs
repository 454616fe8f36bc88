//! The devices of the VM. None has a lock, save the UART, which the registry's `Serialized` gives
//! one.

mod bar;
mod card;
mod latch;
mod mailbox;
mod mortal;
mod register;
mod slot;
mod uart;

pub(crate) use bar::Bar;
pub(crate) use card::{Card, Noticed};
pub(crate) use latch::Latch;
pub(crate) use mailbox::Mailbox;
pub(crate) use mortal::Mortal;
pub(crate) use slot::Slot;
pub(crate) use uart::{Console, Uart};
