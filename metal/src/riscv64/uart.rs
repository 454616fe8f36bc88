//! The console: a 16550.

use core::{
    fmt,
    ptr::{NonNull, with_exposed_provenance_mut},
};

use uart_16550::{Uart16550, backend::MmioBackend};

/// Its address.
const BASE: usize = 0x1000_0000;

/// The UART.
pub(crate) struct Uart(Uart16550<MmioBackend>);

impl Uart {
    /// The UART, as OpenSBI has set it up.
    pub(crate) fn new() -> Self {
        let base = NonNull::new(with_exposed_provenance_mut(BASE)).expect("an address");
        // SAFETY: the registers are there, and only the console uses them.
        let uart = unsafe { Uart16550::new_mmio(base, 1) };
        Self(uart.expect("an address that has room for the registers"))
    }
}

impl fmt::Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.send_bytes_exact(text.as_bytes());
        Ok(())
    }
}
