//! The behaviour of the devices without their guards, each access in a child process. With the guard,
//! the same access returns and does no harm.
//!
//! The outcomes are compared with the table in `src/guards/mod.rs`: with the column of a debug build (debug
//! assertions and overflow checks) or of a release build, as this build is.

use std::{
    panic::{self, AssertUnwindSafe},
    ptr,
};

use axaddrspace::device::AccessWidth;
use axdevice::AxVmDevices;

/// Accesses that a guest should not make, on a separate host.
pub(crate) struct Case {
    pub(crate) devices: AxVmDevices,
    /// In this order. Without a value, the access is a read.
    pub(crate) accesses: Vec<(usize, AccessWidth, Option<usize>)>,
    /// Whether the host has changed in a way that no guest may cause.
    pub(crate) harm: Box<dyn Fn() -> bool>,
}

/// A case: the table's name for it, the table's words for the harm, and the function that sets it up.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) harm: &'static str,
    /// Whether a guard is in front of it. Otherwise only a guest that is trusted with an ITS can do it.
    pub(crate) guarded: bool,
    pub(crate) case: fn() -> Case,
}

/// The CPU time, in seconds, after which a child counts as hung.
const PATIENCE: libc::time_t = 3;

/// The exit status of a child that exits is this value, with two bits added.
const EXIT: i32 = 64;
const PANICKED: i32 = 1;
const HARMED: i32 = 2;

/// Compares the outcome of each row with the table, and checks that guarded accesses return without harm.
pub(crate) fn check(rows: &[Row]) {
    let documented = include_str!("../../src/guards/mod.rs");
    let column = if cfg!(debug_assertions) { 2 } else { 3 };
    let mut differs = false;
    for row in rows {
        let outcome = in_child(row, false);
        let line = documented
            .lines()
            .filter_map(|line| line.strip_prefix("//! |"))
            .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
            .find(|cells| cells[0] == row.name);
        let wanted = line.map_or("(no such line)", |cells| cells[column - 1]);
        differs |= outcome != wanted;
        println!("| {} | {outcome} |", row.name);
        if row.guarded {
            assert_eq!(in_child(row, true), "returns", "guarded: {}", row.name);
        }
    }
    assert!(!differs, "the table in src/guards/mod.rs differs");
}

/// The outcome of the accesses, on the guarded device or the bare one.
fn in_child(row: &Row, guarded: bool) -> String {
    // SAFETY: the child has only this thread. It allocates, which glibc allows after a fork. It takes no
    // lock that another thread could have held, and ends in `_exit` without running destructors.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = run(row, guarded);
        // SAFETY: always sound.
        unsafe { libc::_exit(code) };
    }
    assert!(child > 0, "no child");
    let mut status = 0;
    // SAFETY: `status` is valid for a write.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(waited, child);
    describe(status, row.harm)
}

fn run(row: &Row, guarded: bool) -> i32 {
    let patience = libc::timeval {
        tv_sec: PATIENCE,
        tv_usec: 0,
    };
    let timer = libc::itimerval {
        it_interval: patience,
        it_value: patience,
    };
    // SAFETY: `timer` is valid for a read. The default action of the signal ends the process.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, ptr::null_mut()) };
    panic::set_hook(Box::new(|_| {}));
    let case = (row.case)();
    let accesses = || {
        for &(addr, width, value) in &case.accesses {
            access(&case.devices, guarded, addr, width, value);
        }
    };
    let panicked = panic::catch_unwind(AssertUnwindSafe(accesses)).is_err();
    let harmed = (case.harm)();
    EXIT + if panicked { PANICKED } else { 0 } + if harmed { HARMED } else { 0 }
}

fn access(
    devices: &AxVmDevices,
    guarded: bool,
    addr: usize,
    width: AccessWidth,
    value: Option<usize>,
) {
    let addr = addr.into();
    let device = devices.find_mmio_dev(addr).expect("a device");
    let result = match (guarded, value) {
        (true, None) => devices.handle_mmio_read(addr, width).map(drop),
        (true, Some(value)) => devices.handle_mmio_write(addr, width, value),
        (false, None) => device.handle_read(addr, width).map(drop),
        (false, Some(value)) => device.handle_write(addr, width, value),
    };
    result.expect("no device gives an error");
}

fn describe(status: i32, harm: &str) -> String {
    if libc::WIFSIGNALED(status) {
        return match libc::WTERMSIG(status) {
            libc::SIGPROF => "never returns".into(),
            libc::SIGABRT => "aborts".into(),
            libc::SIGSEGV | libc::SIGBUS => "faults".into(),
            signal => format!("signal {signal}"),
        };
    }
    let bits = libc::WEXITSTATUS(status) - EXIT;
    let end = if bits & PANICKED != 0 {
        "panics"
    } else {
        "returns"
    };
    match bits & HARMED {
        0 => end.into(),
        _ => format!("{end}; {harm}"),
    }
}
