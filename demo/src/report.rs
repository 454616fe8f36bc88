//! What the run came to, as text: a table, figures as `name: value` lines, and the memory map.
//!
//! Exits are counted where they are handled; misses, checks and wrong values by the guests. First
//! sights are noted by the devices: their latency includes what a guest takes to come round to the
//! address, and what the host takes to run the vCPU at all.

use std::{fmt::Write as _, sync::atomic::Ordering, time::Duration};

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use hdrhistogram::Histogram;

use crate::{contract::BAYS, session::Record, vm::Vm};

/// How many lines of the memory map are shown at each end, if not all of them.
const MAP_ENDS: usize = 5;

const HEADER: [&str; 8] = [
    "vCPU",
    "MMIO exits",
    "port exits",
    "exits/s",
    "misses",
    "checks",
    "wrong values",
    "devices seen",
];

/// All of it.
pub(crate) fn text(vm: &Vm, record: &Record) -> Result<String> {
    let mut out = format!("{}\n\n", table(vm, record));
    let exits = vm.exits.iter().map(|exits| exits.total()).sum::<u64>();
    writeln!(out, "seconds: {:.2}", record.ran.as_secs_f64())?;
    writeln!(out, "exits: {exits}")?;
    writeln!(out, "exits/s: {}", per_second(exits, record.ran))?;
    writeln!(out, "hot-adds: {}", record.added.len())?;
    writeln!(out, "call that hot-adds, µs: {}", quantiles(calls(record))?)?;
    writeln!(
        out,
        "from the call to a vCPU's first sight, µs: {}",
        quantiles(sights(vm, record))?
    )?;
    write_changes(&mut out, vm, record)?;
    let (lines, last) = vm.console.printed();
    writeln!(out, "UART lines: {lines}")?;
    writeln!(out, "UART, last line: {last}")?;
    writeln!(out, "accesses that failed: {}", failed(vm))?;
    writeln!(out, "wrong values: {}", wrong(vm))?;
    for vcpu in 0..vm.exits.len() {
        if let Some(first) = vm.mailbox.first_wrong(vcpu) {
            writeln!(out, "first wrong value, vCPU {vcpu}: {first}")?;
        }
    }
    writeln!(out, "\nMemory map:")?;
    write_map(&mut out, &vm.devices.snapshot().to_string())?;
    Ok(out)
}

fn write_changes(out: &mut String, vm: &Vm, record: &Record) -> Result<()> {
    let changes = &record.changes;
    writeln!(out, "changes: {}", changes.total())?;
    writeln!(out, "changes/s: {}", changes_per_second(record))?;
    writeln!(out, "shifts, of {BAYS} devices each: {}", changes.shifts)?;
    writeln!(out, "single moves: {}", changes.moved)?;
    writeln!(out, "single removals: {}", changes.removed)?;
    writeln!(out, "single additions: {}", changes.added)?;
    let calls = changes.calls.iter().copied();
    writeln!(out, "call that changes, µs: {}", quantiles(calls)?)?;
    let moves: u64 = vm.bars.iter().map(|bar| bar.moves()).sum();
    writeln!(out, "moves by a device's own handler: {moves}")?;
    write_doorbells(out, vm)?;
    let quiescent = changes.quiescent.iter().copied();
    let quiescent = quantiles(quiescent)?;
    writeln!(out, "from removal to quiescence, µs: {quiescent}")?;
    let caught = vm.noticed.caught.load(Ordering::Relaxed);
    writeln!(out, "removals with a vCPU inside: {caught}")?;
    writeln!(out, "removed devices still in use: {}", changes.pending)?;
    writeln!(out, "late accesses: {}", late(vm))?;
    writeln!(out, "accesses astray: {}", astray(vm))?;
    Ok(())
}

fn write_doorbells(out: &mut String, vm: &Vm) -> Result<()> {
    let doorbells = &vm.doorbells;
    for (name, count) in [
        ("doorbells moved", doorbells.sum(|of| &of.moved)),
        ("doorbell writes", doorbells.sum(|of| &of.written)),
        (
            "doorbell writes that exited",
            doorbells.sum(|of| &of.exited),
        ),
        ("late doorbell rings", doorbells.sum(|of| &of.late)),
        ("lost doorbell rings", doorbells.sum(|of| &of.lost)),
    ] {
        writeln!(out, "{name}: {count}")?;
    }
    Ok(())
}

/// How many changes were made in a second, besides hot-adds and what guests moved.
pub(crate) fn changes_per_second(record: &Record) -> u64 {
    per_second(record.changes.total().into(), record.ran)
}

/// How many accesses came to devices that should have been out of use.
pub(crate) fn late(vm: &Vm) -> u64 {
    vm.late.load(Ordering::Relaxed)
}

/// How many accesses came to devices that they were not for.
pub(crate) fn astray(vm: &Vm) -> u64 {
    vm.noticed.astray.load(Ordering::Relaxed)
}

/// How many values were wrong.
pub(crate) fn wrong(vm: &Vm) -> u64 {
    (0..vm.exits.len()).map(|vcpu| vm.mailbox.wrong(vcpu)).sum()
}

/// How many accesses a device answered with an error.
pub(crate) fn failed(vm: &Vm) -> u64 {
    vm.exits.iter().map(|exits| exits.failed.get()).sum()
}

/// The first vCPU that did not see every device, and how many it saw.
pub(crate) fn blind(vm: &Vm, record: &Record) -> Option<(u32, usize)> {
    let seen = (0..vm.vcpus()).map(|vcpu| (vcpu, seen(record, vcpu)));
    seen.into_iter()
        .find(|(_, seen)| *seen < record.added.len())
}

/// How many devices `vcpu` saw.
fn seen(record: &Record, vcpu: u32) -> usize {
    let seen = record
        .added
        .iter()
        .filter_map(|added| added.first_seen(vcpu));
    seen.count()
}

fn table(vm: &Vm, record: &Record) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(HEADER);
    for (vcpu, exits) in vm.exits.iter().enumerate() {
        table.add_row([
            vcpu as u64,
            exits.mmio.get(),
            exits.port.get(),
            per_second(exits.total(), record.ran),
            vm.mailbox.misses(vcpu),
            vm.mailbox.checks(vcpu),
            vm.mailbox.wrong(vcpu),
            seen(record, vcpu as u32) as u64,
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn per_second(count: u64, time: Duration) -> u64 {
    (count as f64 / time.as_secs_f64()) as u64
}

/// How long each call that hot-added took, in nanoseconds.
fn calls(record: &Record) -> impl Iterator<Item = u64> {
    let added = record.added.iter();
    added.map(|added| added.returned - added.called)
}

/// From each such call until each vCPU saw the device, in nanoseconds.
fn sights(vm: &Vm, record: &Record) -> impl Iterator<Item = u64> {
    let vcpus = vm.vcpus();
    record.added.iter().flat_map(move |added| {
        let sights = (0..vcpus).filter_map(|vcpu| added.first_seen(vcpu));
        sights.map(|at| at.saturating_sub(added.called))
    })
}

fn quantiles(nanos: impl Iterator<Item = u64>) -> Result<String> {
    let mut histogram = Histogram::<u64>::new(3)?;
    for value in nanos {
        histogram.record(value)?;
    }
    let [p50, p99] = [0.5, 0.99].map(|quantile| micros(histogram.value_at_quantile(quantile)));
    let (max, count) = (micros(histogram.max()), histogram.len());
    Ok(format!(
        "p50 {p50:.1}, p99 {p99:.1}, max {max:.1} (of {count})"
    ))
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// Writes a memory map, of a long one only the ends.
fn write_map(out: &mut String, map: &str) -> Result<()> {
    let lines: Vec<&str> = map.lines().collect();
    let left_out = lines.len().saturating_sub(2 * MAP_ENDS);
    for (n, line) in lines.iter().enumerate() {
        match n {
            MAP_ENDS if left_out > 0 => writeln!(out, "  … {left_out} more")?,
            n if (MAP_ENDS..MAP_ENDS + left_out).contains(&n) => {}
            _ => writeln!(out, "  {line}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(lines: usize) -> Vec<String> {
        let map: String = (0..lines).map(|n| format!("{n}\n")).collect();
        let mut out = String::new();
        write_map(&mut out, &map).unwrap();
        out.lines().map(|line| line.trim().into()).collect()
    }

    #[test]
    fn a_short_memory_map_is_shown_whole() {
        assert_eq!(shown(10).len(), 10);
    }

    #[test]
    fn a_long_memory_map_loses_its_middle() {
        let shown = shown(100);
        assert_eq!(shown.len(), 11);
        assert_eq!(shown[4..7], ["4", "… 90 more", "95"]);
    }
}
