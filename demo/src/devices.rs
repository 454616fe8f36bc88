//! The devices that the board does not have: those of a PC.

mod crossing;
mod uart;

pub(crate) use crossing::Crossing;
pub(crate) use uart::{Console, Uart};
