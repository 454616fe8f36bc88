//! All tables.

use std::{env, fs, thread};

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use benches::scenario::DEVICES;

use crate::{
    lost,
    markdown::{ns, section, table},
    others, ratios,
    results::{Contestant, Percentiles, Results},
    times,
};

/// Returns all tables as Markdown.
pub(crate) fn all(results: &Results, ceilings: &str) -> String {
    let layouts = [
        times::layouts::<GuestPhysAddrRange>(results),
        times::layouts::<SysRegAddrRange>(results),
        times::layouts::<PortRange>(results),
    ];
    [
        machine(results),
        section("Limits on every layout", &ratios::all(results)),
        section("Other limits", &others::all(results)),
        section("Where rivals win", &lost::all(results)),
        section("Reads, by number of devices", &layouts.concat()),
        section(
            &format!("Reads, hot, by number of vCPUs, of {DEVICES} devices"),
            &times::vcpus(results),
        ),
        section(
            "Reads of rust-vmm's devices, by number of devices",
            &times::rust_vmm(results),
        ),
        section("Hot-add, by number of devices", &times::hot_adds(results)),
        section(
            "A single read, without changes and while 1,000 devices a second are added",
            &storms(results),
        ),
        section("Instructions of an access", &instructions(ceilings)),
    ]
    .concat()
}

/// The machine of all measurements, according to Linux.
fn machine(results: &Results) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find(|line| line.starts_with("model name"));
    let model = model
        .and_then(|line| line.split_once(": "))
        .map_or("a processor", |(_, model)| model);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores of {model}, {}, Linux {}. The seed of the random ranges: {}.\n\n",
        env::consts::ARCH,
        kernel.trim(),
        results.seeds
    )
}

fn storms(results: &Results) -> String {
    let names = [
        "ns",
        "without: p50",
        "p99",
        "p99.9",
        "max",
        "with: p50",
        "p99",
        "p99.9",
        "max",
        "hot-add p50",
        "p99",
    ];
    let row = |contestant: &Contestant| {
        let all = |at: Percentiles| [at.p50, at.p99, at.p999, at.max];
        let quiet = all(results.storm(contestant, "quiet")?);
        let storm = all(results.storm(contestant, "storm")?);
        let adds = results.storm(contestant, "adds")?;
        let numbers = quiet.into_iter().chain(storm).chain([adds.p50, adds.p99]);
        let label = [contestant.label()].into_iter();
        Some(label.chain(numbers.map(ns)).collect())
    };
    let clock = results.contestants[0].beside("clock");
    let step = results.storm(&clock, "step").map_or(0.0, |step| step.p50);
    let table = table(names, results.contestants.iter().filter_map(row));
    format!("{table}\n(The resolution of the clock is {step} ns.)\n")
}

fn instructions(ceilings: &str) -> String {
    let lines = ceilings.lines().filter(|line| !line.starts_with('#'));
    let row = |line: &str| line.split_whitespace().map(String::from).collect();
    table(["cell", "access", "instructions, at most"], lines.map(row))
}
