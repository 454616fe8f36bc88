//! The devices that are not on the board: those of a PC.

mod crossing;
mod uart;

pub(crate) use crossing::Crossing;
pub(crate) use uart::{Console, Uart};
