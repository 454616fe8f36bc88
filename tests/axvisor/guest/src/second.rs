//! The second vCPU: does what the first one asks for, at the same time.

use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::arch;

/// The task of both vCPUs, which gets the vCPU's number and returns the number of wrong values.
pub(crate) type Task = fn(vcpu: usize) -> usize;

/// No task's address.
const STOP: usize = 1;

/// The task of the second vCPU, a [`Task`], or [`STOP`], or zero.
static TASK: AtomicUsize = AtomicUsize::new(0);

/// How many tasks it has begun.
static BEGUN: AtomicUsize = AtomicUsize::new(0);

/// The result of its last task.
static RESULT: AtomicUsize = AtomicUsize::new(0);

/// Does `task` on both vCPUs at once. Gives how many values were wrong on either.
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

/// The second vCPU, for ever.
pub(crate) extern "C" fn run() -> ! {
    loop {
        let task = TASK.load(SeqCst);
        match task {
            0 => continue,
            // Axvisor looks whether the VM has ended whenever a vCPU has called it. One that is off may not be woken
            // for that, if it has gone off just then.
            STOP => loop {
                arch::call_for_nothing();
            },
            _ => {}
        }
        // SAFETY: `together` alone stores anything else, and that is a task.
        let task: Task = unsafe { core::mem::transmute(task) };
        BEGUN.store(BEGUN.load(SeqCst) + 1, SeqCst);
        RESULT.store(task(1), SeqCst);
        TASK.store(0, SeqCst);
    }
}

/// Starts it.
pub(crate) fn start() {
    arch::start_second();
}

/// Lets it end with the VM.
pub(crate) fn stop() {
    TASK.store(STOP, SeqCst);
}
