//! The machine that a guest runs on.

use crate::{Guest, contract::Width};

/// A register on either bus.
#[derive(Clone, Copy, Debug)]
pub enum At {
    /// On MMIO, by its guest physical address.
    Mmio(u32),
    /// On port I/O, by its port.
    Port(u16),
}

impl At {
    /// The register `offset` bytes higher.
    pub fn plus(self, offset: u32) -> Self {
        match self {
            Self::Mmio(address) => Self::Mmio(address + offset),
            Self::Port(port) => Self::Port(port + offset as u16),
        }
    }

    /// The address or the port, as the guest reports it.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Mmio(address) => address,
            Self::Port(port) => port.into(),
        }
    }
}

/// Makes the accesses of a guest. Each access that reaches a device is a VM exit.
pub trait Machine: Sized {
    /// Whether an access may cross a page, and a UART prints the bytes written to it, as on a PC.
    const IS_PC: bool;

    /// Reads a register, or a part of it.
    fn read(&mut self, at: At, width: Width) -> u32;

    /// Writes a register, or a part of it.
    fn write(&mut self, at: At, width: Width, value: u32);

    /// Writes `bytes` to a port, in items of `width`.
    fn write_string(&mut self, port: u16, width: Width, bytes: &[u8]) {
        for item in bytes.chunks(width as usize) {
            let mut value = [0; 4];
            value[..item.len()].copy_from_slice(item);
            self.write(At::Port(port), width, u32::from_le_bytes(value));
        }
    }

    /// Reads `bytes` from a port, in items of `width`.
    fn read_string(&mut self, port: u16, width: Width, bytes: &mut [u8]) {
        for item in bytes.chunks_mut(width as usize) {
            let value = self.read(At::Port(port), width).to_le_bytes();
            item.copy_from_slice(&value[..item.len()]);
        }
    }

    /// Prepares the registers that only this machine has.
    fn begin(_: &mut Guest<Self>) {}

    /// Makes the part of a round that only this machine has.
    fn special(_: &mut Guest<Self>) {}
}
