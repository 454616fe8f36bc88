//! The report of a run, as text: a table, figures as `name: value` lines, and the memory map.
//!
//! Exits are counted where they are handled; misses, checks and wrong values are counted by the guests. The devices
//! record when a vCPU first sees them: that latency includes the time until the guest next reads the address, and the
//! time until the host runs the vCPU.

use std::fmt::Write as _;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use hdrhistogram::Histogram;

use crate::{
    counts::{failed, overlooked, wrong},
    session::Record,
    traffic::Traffic,
    units::{counted, per_second, time},
    vm::Vm,
};

/// The number of shown devices, and of shown missed addresses.
const BUSIEST: usize = 5;
/// The number of lines shown at each end of a long memory map.
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

/// The whole report.
pub(crate) fn text(vm: &Vm, record: &Record) -> Result<String> {
    let mut out = format!("{}\n\n", table(vm, record));
    let exits = vm.exits.iter().map(|exits| exits.total()).sum::<u64>();
    writeln!(out, "seconds: {:.2}", record.ran.as_secs_f64())?;
    writeln!(out, "exits: {exits}")?;
    writeln!(out, "exits/s: {}", per_second(exits, record.ran))?;
    writeln!(out, "hot-adds: {}", record.added.len())?;
    if record.left_out > 0 {
        let left_out = record.left_out;
        writeln!(out, "hot-adds skipped for lack of time: {left_out}")?;
    }
    let calls = quantiles(calls(record))?;
    writeln!(out, "duration of a hot-add call: {calls}")?;
    let sights = quantiles(sights(vm, record))?;
    writeln!(
        out,
        "from a hot-add call until a vCPU sees the device: {sights}"
    )?;
    let overlooked = overlooked(vm);
    writeln!(out, "reads that missed a hot-added device: {overlooked}")?;
    write_changes(&mut out, vm, record)?;
    write_traffic(&mut out, vm)?;
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

/// Writes the devices with the most exits, and the addresses that no device owns.
fn write_traffic(out: &mut String, vm: &Vm) -> Result<()> {
    let traffic = Traffic::of(vm, &vm.profiles.all());
    for of in traffic.devices.iter().take(BUSIEST) {
        let [name, range] = [&of.name, &of.range];
        let between = if range.is_empty() { "" } else { ", " };
        let (reads, writes) = (of.accesses.reads, of.accesses.writes);
        let accesses = format!("{}, {}", counted(reads, "read"), counted(writes, "write"));
        writeln!(out, "accessed most: {name}{between}{range}: {accesses}")?;
    }
    for of in traffic.missed.iter().take(BUSIEST) {
        writeln!(out, "missed most: {of}: {}", counted(of.count, "time"))?;
    }
    Ok(())
}

fn write_changes(out: &mut String, vm: &Vm, record: &Record) -> Result<()> {
    let changes = &record.changes;
    for (name, count) in changes.counts.figures().into_iter().chain(vm.figures()) {
        writeln!(out, "{name}: {count}")?;
    }
    writeln!(out, "changes/s: {}", changes_per_second(record))?;
    let calls = changes.calls.iter().copied();
    writeln!(out, "duration of a change call: {}", quantiles(calls)?)?;
    let quiescent = changes.quiescent.iter().copied();
    writeln!(out, "from removal to quiescence: {}", quantiles(quiescent)?)?;
    let pending = changes.pending.len();
    writeln!(out, "removed devices still in use: {pending}")?;
    write_doorbells(out, vm)
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

/// Changes in a second, without hot-adds and the moves that guests make.
pub(crate) fn changes_per_second(record: &Record) -> u64 {
    per_second(record.changes.counts.total(), record.ran)
}

/// The number of devices that `vcpu` saw.
pub(crate) fn seen(record: &Record, vcpu: u32) -> usize {
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

/// The length of each call that hot-added, in nanoseconds.
fn calls(record: &Record) -> impl Iterator<Item = u64> {
    let added = record.added.iter();
    added.map(|added| added.returned - added.called)
}

/// The time from each such call until each vCPU saw the device, in nanoseconds.
fn sights(vm: &Vm, record: &Record) -> impl Iterator<Item = u64> {
    let vcpus = vm.vcpus;
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
    if histogram.is_empty() {
        return Ok("none".into());
    }
    let [p50, p99] = [0.5, 0.99].map(|quantile| time(histogram.value_at_quantile(quantile)));
    let (max, count) = (time(histogram.max()), histogram.len());
    Ok(format!("p50 {p50}, p99 {p99}, max {max} (of {count})"))
}

/// Writes a memory map; of a long one the two ends.
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
    fn quantiles_have_the_units_that_suit_them() {
        let text = quantiles([500, 1_500, 2_000_000].into_iter()).unwrap();
        assert_eq!(text, "p50 1.50 µs, p99 2.00 ms, max 2.00 ms (of 3)");
        assert_eq!(quantiles([].into_iter()).unwrap(), "none");
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
