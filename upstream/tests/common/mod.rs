//! The spin lock of axdevice 0.8.5's devices on a host.

use std::{
    hint,
    panic::Location,
    sync::atomic::{AtomicBool, Ordering},
};

use ax_sync::interface::{AcquireResult, ContextState, LockMetadata, SpinOps};

/// No preemption and no interrupts need to be restored.
const CONTEXT: ContextState = ContextState::new(0, 0);

struct HostSpin;

fn try_lock(locked: &AtomicBool) -> bool {
    let result = locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
    result.is_ok()
}

#[ax_crate_interface::impl_interface]
impl SpinOps for HostSpin {
    fn acquire(
        locked: &AtomicBool,
        _metadata: &LockMetadata,
        _lock_addr: usize,
        _context: u8,
        _subclass: u32,
        _caller: &'static Location<'static>,
    ) -> ContextState {
        while !try_lock(locked) {
            hint::spin_loop();
        }
        CONTEXT
    }

    fn try_acquire(
        locked: &AtomicBool,
        _metadata: &LockMetadata,
        _lock_addr: usize,
        _context: u8,
        _subclass: u32,
        _caller: &'static Location<'static>,
    ) -> AcquireResult {
        AcquireResult::new(try_lock(locked), CONTEXT)
    }

    fn release(locked: &AtomicBool, _lock_addr: usize, _context: u8, _state: ContextState) {
        locked.store(false, Ordering::Release);
    }

    fn force_release(locked: &AtomicBool, _lock_addr: usize, _context: u8) {
        locked.store(false, Ordering::Release);
    }

    fn is_locked(locked: &AtomicBool) -> bool {
        locked.load(Ordering::Relaxed)
    }
}
