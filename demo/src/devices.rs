//! The devices of the VM. None has a lock, save the UART, which the registry's `Serialized` gives
//! one.

mod latch;
mod mailbox;
mod register;
mod slot;
mod uart;

pub(crate) use latch::Latch;
pub(crate) use mailbox::Mailbox;
pub(crate) use slot::Slot;
pub(crate) use uart::{Console, Uart};
