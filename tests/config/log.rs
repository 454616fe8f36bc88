//! The log of a test.

use std::{cell::RefCell, sync::Once};

/// Keeps what each thread logs.
struct Log;

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}", record.level(), record.args());
        LINES.with_borrow_mut(|lines| lines.push(line));
    }

    fn flush(&self) {}
}

/// The log of this thread during `work`.
pub(crate) fn logged(work: impl FnOnce()) -> Vec<String> {
    static LOGGER: Once = Once::new();
    LOGGER.call_once(|| {
        log::set_logger(&Log).expect("no other logger");
        log::set_max_level(log::LevelFilter::Warn);
    });
    LINES.take();
    work();
    LINES.take()
}
