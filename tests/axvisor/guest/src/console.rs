//! [`say`](crate::say): prints a line.

use core::fmt;

pub(crate) struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(crate::arch::put);
        Ok(())
    }
}

#[macro_export]
macro_rules! say {
    ($($what:tt)*) => {{
        use core::fmt::Write as _;
        // The console does not fail.
        let _ = write!($crate::console::Console, "GUEST: {}\r\n", format_args!($($what)*));
    }};
}
