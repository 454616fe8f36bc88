//! The console. The interrupt handler does not print, unless it panics.

use core::fmt::{Arguments, Write as _};

use spin::Mutex;

use crate::arch::Uart;

static CONSOLE: Mutex<Option<Uart>> = Mutex::new(None);

/// Prints a line.
pub(crate) fn print(line: Arguments<'_>) {
    let mut console = CONSOLE.lock();
    // The UART does not fail.
    let _ = writeln!(console.get_or_insert_with(Uart::new), "{line}");
}

/// Prints a line although another CPU, or the interrupted code on this one, may be printing.
pub(crate) fn print_at_last(line: Arguments<'_>) {
    let mut locked = CONSOLE.try_lock();
    let mut own = None;
    let console = locked.as_deref_mut().unwrap_or(&mut own);
    let _ = writeln!(console.get_or_insert_with(Uart::new), "\n{line}");
}

/// Prints a line.
macro_rules! line {
    ($($argument:tt)*) => { $crate::console::print(format_args!($($argument)*)) };
}
pub(crate) use line;
