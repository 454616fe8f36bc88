//! A run as a table and as figures, and whether it showed all that it is to show.

use core::sync::atomic::Ordering;

use crate::{changer::Changer, console::line, contract::BAYS, cpu::Cpu, vm::Vm};

/// Of so many changes some are interrupted.
const MANY: u64 = 3000;

/// Prints the table and the figures.
///
/// # Errors
///
/// What is wrong, if anything is.
pub(crate) fn print(vm: &Vm, changer: &Changer) -> Result<(), &'static str> {
    table(vm, changer);
    figures(vm, changer);
    findings(vm);
    verdict(vm, changer)
}

fn cpus(vm: &Vm) -> impl Iterator<Item = (u32, &'static Cpu)> {
    (0..vm.vcpus).map(|vcpu| (vcpu, Cpu::at(vcpu as usize)))
}

fn sum(vm: &Vm, of: impl Fn(u32, &Cpu) -> u64) -> u64 {
    cpus(vm).map(|(vcpu, cpu)| of(vcpu, cpu)).sum()
}

fn table(vm: &Vm, changer: &Changer) {
    line!(
        "| {:>4} | {:>9} | {:>9} | {:>9} | {:>8} | {:>9} | {:>5} | {:>4} | {:>6} | {:>11} | {:>9} | {:>6} | {:>5} |",
        "vCPU",
        "MMIO",
        "ports",
        "sys. regs",
        "misses",
        "checks",
        "wrong",
        "seen",
        "ticks",
        "in dispatch",
        "in change",
        "checked",
        "wrong"
    );
    line!(
        "|------|-----------|-----------|-----------|----------|-----------|-------|------|--------|-------------|-----------|--------|-------|"
    );
    for (vcpu, cpu) in cpus(vm) {
        line!(
            "| {:>4} | {:>9} | {:>9} | {:>9} | {:>8} | {:>9} | {:>5} | {:>4} | {:>6} | {:>11} | {:>9} | {:>6} | {:>5} |",
            vcpu,
            cpu.mmio.get(),
            cpu.port.get(),
            cpu.sys_reg.get(),
            vm.mailbox.misses(vcpu as usize),
            vm.mailbox.checks(vcpu as usize),
            vm.mailbox.wrong(vcpu as usize),
            changer.seen_by(vcpu),
            cpu.ticks.get(),
            cpu.ticks_in_dispatch.get(),
            cpu.ticks_in_change.get(),
            cpu.checks.get(),
            cpu.wrong.count()
        );
    }
}

fn figures(vm: &Vm, changer: &Changer) {
    let made = changer.made();
    line!("exits: {}", sum(vm, |_, cpu| cpu.exits()));
    line!("hot-adds: {}", changer.added());
    line!("changes: {}", made.total());
    line!("shifts, of {BAYS} devices each: {}", made.shifts);
    line!("single moves: {}", made.moved);
    line!("single removals: {}", made.removed);
    line!("single additions: {}", made.added);
    let moves: u64 = vm.bars.iter().map(|bar| bar.moves()).sum();
    line!("moves by a device's own handler: {moves}");
    let caught = vm.noticed.caught.load(Ordering::Relaxed);
    line!("removals with a vCPU inside: {caught}");
    line!("removed devices still in use: {}", changer.pending());
    line!("late accesses: {}", vm.late.load(Ordering::Relaxed));
    line!(
        "accesses astray: {}",
        vm.noticed.astray.load(Ordering::Relaxed)
    );
    line!(
        "accesses that failed: {}",
        sum(vm, |_, cpu| cpu.failed.get())
    );
    line!("timer interrupts: {}", sum(vm, |_, cpu| cpu.ticks.get()));
    line!(
        "in a dispatch: {}",
        sum(vm, |_, cpu| cpu.ticks_in_dispatch.get())
    );
    line!(
        "in a change: {}",
        sum(vm, |_, cpu| cpu.ticks_in_change.get())
    );
    line!("wrong values: {}", wrong(vm));
}

fn findings(vm: &Vm) {
    for (vcpu, cpu) in cpus(vm) {
        if let Some(first) = vm.mailbox.first_wrong(vcpu as usize) {
            line!("first wrong value, vCPU {vcpu}: {first}");
        }
        if cpu.wrong.count() > 0 {
            line!(
                "first wrong value, interrupt handler of CPU {vcpu}: {}",
                cpu.wrong
            );
        }
    }
}

fn wrong(vm: &Vm) -> u64 {
    sum(vm, |vcpu, cpu| {
        vm.mailbox.wrong(vcpu as usize) + cpu.wrong.count()
    })
}

fn verdict(vm: &Vm, changer: &Changer) -> Result<(), &'static str> {
    let everywhere = |of: &dyn Fn(u32, &Cpu) -> u64| cpus(vm).all(|(vcpu, cpu)| of(vcpu, cpu) > 0);
    let checks = [
        (sum(vm, |_, cpu| cpu.failed.get()) == 0, "devices failed"),
        (wrong(vm) == 0, "wrong values were read"),
        (
            vm.late.load(Ordering::Relaxed) == 0,
            "vCPUs were inside devices that should have been out of use",
        ),
        (
            vm.noticed.astray.load(Ordering::Relaxed) == 0,
            "accesses came to devices that they were not for",
        ),
        (changer.pending() == 0, "removed devices are still in use"),
        (
            changer.all_seen(),
            "a vCPU did not see all hot-added devices",
        ),
        (changer.made().total() > 0, "nothing was changed"),
        (
            everywhere(&|vcpu, _| vm.mailbox.checks(vcpu as usize)),
            "a guest checked nothing",
        ),
        (
            everywhere(&|_, cpu| cpu.ticks.get()),
            "a CPU has had no timer interrupts",
        ),
        (
            sum(vm, |_, cpu| cpu.ticks_in_dispatch.get()) > 0,
            "no dispatch was interrupted",
        ),
        (
            sum(vm, |_, cpu| cpu.ticks_in_change.get()) > 0 || changer.made().total() < MANY,
            "no change was interrupted",
        ),
    ];
    let failed = checks.iter().find(|(holds, _)| !holds);
    failed.map_or(Ok(()), |(_, why)| Err(*why))
}
