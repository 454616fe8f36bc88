//! The console: a PL011.

use core::{
    fmt,
    ptr::{NonNull, with_exposed_provenance_mut},
};

use arm_pl011_uart::{PL011Registers, UniqueMmioPointer};

/// Its address.
const BASE: usize = 0x900_0000;

/// The UART.
pub(crate) struct Uart(arm_pl011_uart::Uart<'static>);

impl Uart {
    /// The UART, as QEMU starts it: enabled.
    pub(crate) fn new() -> Self {
        let registers: *mut PL011Registers = with_exposed_provenance_mut(BASE);
        let registers = NonNull::new(registers).expect("an address");
        // SAFETY: the registers are there, and only the console uses them.
        let registers = unsafe { UniqueMmioPointer::new(registers) };
        Self(arm_pl011_uart::Uart::new(registers))
    }
}

impl fmt::Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(text)
    }
}
