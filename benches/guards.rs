//! The time of one access to a hot register, on one vCPU, with and without the guard.

use std::{env, hint::black_box};

use axaddrspace::device::AccessWidth;
use axdevice::SharedVmDevices;
use benches::{
    guarded::{Register, registers},
    in_turn,
};

/// The nanoseconds of an access, bare and guarded.
fn measure(register: &Register, batches: u32, access: impl Fn(&SharedVmDevices)) -> (f64, f64) {
    let [bare, guarded] = in_turn(batches, |i| {
        access(black_box([&register.bare, &register.guarded][i]));
    });
    (bare, guarded)
}

/// Prints a row of the table.
fn report(name: &str, direction: &str, (bare, guarded): (f64, f64)) {
    let (more, times) = (guarded - bare, guarded / bare);
    println!(
        "| {name} | {direction} | {bare:.1} ns | {guarded:.1} ns | {more:+.1} ns | {times:.2} × |"
    );
}

fn main() {
    let once = env::args().any(|arg| arg == "--test");
    let batches = if once { 1 } else { 20_000 };
    println!("| register | access | bare | guarded | more | times |");
    println!("|---|---|---|---|---|---|");
    for register in registers() {
        let (name, addr) = (register.name, register.addr);
        let read = measure(&register, batches, |devices| {
            let read = devices.handle_mmio_read(black_box(addr), AccessWidth::Dword);
            black_box(read.expect("the access succeeds"));
        });
        report(name, "read", read);
        let write = measure(&register, batches, |devices| {
            let written = devices.handle_mmio_write(black_box(addr), AccessWidth::Dword, 7);
            written.expect("the access succeeds");
        });
        report(name, "write", write);
    }
}
