//! [`Sets`]: a flag that is set in every case.

use std::sync::atomic::{AtomicBool, Ordering::Release};

/// Sets a flag when it is dropped, so that a thread that waits for the flag ends even if the test fails.
#[derive(Debug)]
pub struct Sets<'a>(pub &'a AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Release);
    }
}
