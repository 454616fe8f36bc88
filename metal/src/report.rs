//! The report of a run: a table, figures, and the verdict.

use crate::{changer::Changer, console::line, cpu::Cpu, vm::Vm};

/// In a run with at least this number of changes, an interrupt must arrive during one of them.
const MANY: u64 = 3000;

/// Prints the table and the figures.
///
/// # Errors
///
/// The first check that fails.
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
            changer.adder().seen(vcpu),
            cpu.ticks.get(),
            cpu.ticks_in_dispatch.get(),
            cpu.ticks_in_change.get(),
            cpu.checks.get(),
            cpu.wrong.count()
        );
    }
}

fn figures(vm: &Vm, changer: &Changer) {
    let own = [
        ("exits", sum(vm, |_, cpu| cpu.exits())),
        ("hot-adds", changer.adder().count().into()),
        ("removed devices still in use", changer.pending() as u64),
        ("accesses that failed", sum(vm, |_, cpu| cpu.failed.get())),
        ("timer interrupts", sum(vm, |_, cpu| cpu.ticks.get())),
        (
            "in a dispatch",
            sum(vm, |_, cpu| cpu.ticks_in_dispatch.get()),
        ),
        ("in a change", sum(vm, |_, cpu| cpu.ticks_in_change.get())),
        ("wrong values", wrong(vm)),
    ];
    let changes = changer.changes().figures();
    for (name, count) in changes.into_iter().chain(vm.figures()).chain(own) {
        line!("{name}: {count}");
    }
}

fn findings(vm: &Vm) {
    for (vcpu, cpu) in cpus(vm) {
        if let Some(first) = vm.mailbox.first_wrong(vcpu as usize) {
            line!("first wrong value, vCPU {vcpu}: {first}");
        }
        if cpu.wrong.count() > 0 {
            line!(
                "first wrong value, interrupt handler of CPU {vcpu}: {}",
                cpu.wrong.first()
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
            vm.noticed.late() == 0,
            "vCPUs were inside quiescent devices",
        ),
        (
            vm.noticed.astray() == 0,
            "accesses reached the wrong device",
        ),
        (changer.pending() == 0, "removed devices are still in use"),
        (
            changer.adder().all_seen(),
            "a vCPU did not see all hot-added devices",
        ),
        (changer.changes().total() > 0, "nothing was changed"),
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
            sum(vm, |_, cpu| cpu.ticks_in_change.get()) > 0 || changer.changes().total() < MANY,
            "no change was interrupted",
        ),
    ];
    let failed = checks.iter().find(|(holds, _)| !holds);
    failed.map_or(Ok(()), |(_, why)| Err(*why))
}
