//! The second vCPU: runs the tasks of the first one, at the same time.

use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::arch;

/// The task of both vCPUs, which gets the vCPU's number and returns the number of wrong values.
pub(crate) type Task = fn(vcpu: usize) -> usize;

/// A value that is not a task's address.
const STOP: usize = 1;

/// The task of the second vCPU, a [`Task`], or [`STOP`], or zero.
static TASK: AtomicUsize = AtomicUsize::new(0);

/// The number of tasks that it has begun.
static BEGUN: AtomicUsize = AtomicUsize::new(0);

/// The result of its last task.
static RESULT: AtomicUsize = AtomicUsize::new(0);

/// Runs `task` on both vCPUs at once. Returns the number of wrong values on both.
///
/// The vCPUs only load and store: without an MMU there are no exclusive accesses.
pub(crate) fn together(task: Task) -> usize {
    let begun = BEGUN.load(SeqCst);
    TASK.store(task as usize, SeqCst);
    while BEGUN.load(SeqCst) == begun {}
    let here = task(0);
    while TASK.load(SeqCst) != 0 {}
    here + RESULT.load(SeqCst)
}

/// The second vCPU's loop.
pub(crate) extern "C" fn run() -> ! {
    loop {
        let task = TASK.load(SeqCst);
        match task {
            0 => continue,
            // Axvisor checks whether the VM has ended after each call of a vCPU. A vCPU that has just gone off may
            // not be woken for this check.
            STOP => loop {
                arch::call_for_nothing();
            },
            _ => {}
        }
        // SAFETY: only `together` stores other values, and they are tasks.
        let task: Task = unsafe { core::mem::transmute(task) };
        BEGUN.store(BEGUN.load(SeqCst) + 1, SeqCst);
        RESULT.store(task(1), SeqCst);
        TASK.store(0, SeqCst);
    }
}

/// Starts the second vCPU.
pub(crate) fn start() {
    arch::start_second();
}

/// Ends its loop, so that it ends with the VM.
pub(crate) fn stop() {
    TASK.store(STOP, SeqCst);
}
