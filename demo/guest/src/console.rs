//! A guest prints through the UART, and polls it.

use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    At, Guest, Machine,
    contract::{LSR_READY, UART, UART_LSR, Width},
};

/// The guest that prints holds it, so no two lines mix.
static CONSOLE: AtomicBool = AtomicBool::new(false);

impl<M: Machine> Guest<M> {
    /// Prints a line, unless another guest is printing one.
    pub(crate) fn print(&mut self) {
        if CONSOLE.swap(true, Ordering::Acquire) {
            return;
        }
        let (vcpu, rounds, next) = (self.vcpu, self.rounds, self.next);
        // The UART does not fail.
        let _ = writeln!(
            Console(self),
            "vCPU {vcpu}: rounds: {rounds}, devices seen: {next}"
        );
        CONSOLE.store(false, Ordering::Release);
    }
}

struct Console<'guest, M>(&'guest mut Guest<M>);

impl<M: Machine> Write for Console<'_, M> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while self.0.read(At::Port(UART_LSR), Width::Byte) & u32::from(LSR_READY) == 0 {}
            self.0.write(At::Port(UART), Width::Byte, byte.into());
        }
        Ok(())
    }
}
