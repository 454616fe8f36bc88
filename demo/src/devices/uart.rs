//! The console: a 16550 UART of crate `vm-superio` on the port bus.

use std::{
    cell::RefCell,
    convert::Infallible,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use ax_errno::{AxError, AxResult};
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;
use vm_superio::{Serial, Trigger, serial::NoEvents};

use crate::contract::UART;

/// The UART. `Send`, not `Sync`: the registry takes it as a `Serialized` device.
pub(crate) struct Uart(RefCell<Serial<NoInterrupt, NoEvents, Writer>>);

impl Uart {
    /// A UART whose output goes to `console`.
    pub(crate) fn new(console: Arc<Console>) -> Self {
        Self(RefCell::new(Serial::new(NoInterrupt, Writer(console))))
    }
}

impl BaseDeviceOps<PortRange> for Uart {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Console
    }

    fn address_range(&self) -> PortRange {
        PortRange::new(Port(UART), Port(UART + 7))
    }

    fn handle_read(&self, port: Port, _: AccessWidth) -> AxResult<usize> {
        let offset = (port.0 - UART) as u8;
        Ok(self.0.borrow_mut().read(offset).into())
    }

    fn handle_write(&self, port: Port, _: AccessWidth, val: usize) -> AxResult {
        let offset = (port.0 - UART) as u8;
        let written = self.0.borrow_mut().write(offset, val as u8);
        written.map_err(|_| AxError::Io)
    }
}

/// No interrupts: the guests poll.
struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// The output of the guests: the number of lines, and the last one.
#[derive(Debug, Default)]
pub(crate) struct Console(Mutex<Printed>);

#[derive(Clone, Debug, Default)]
struct Printed {
    lines: u64,
    last: String,
    current: String,
}

impl Console {
    /// The number of lines that were printed, and the last one.
    pub(crate) fn printed(&self) -> (u64, String) {
        let printed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (printed.lines, printed.last.clone())
    }

    fn put(&self, byte: u8) {
        let mut printed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match byte {
            b'\n' => {
                printed.lines += 1;
                printed.last = std::mem::take(&mut printed.current);
            }
            _ => printed.current.extend(char::from(byte).escape_default()),
        }
    }
}

struct Writer(Arc<Console>);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bytes.iter().for_each(|byte| self.0.put(*byte));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
