//! Tables of times: a row for each contestant, a column for each scenario.

use benches::{
    Bus, Layout, Pattern,
    scenario::{self, HOT_ADD, MEMCPY, RUST_VMM, RUST_VMM_PATTERNS, SIZES, Sharing},
};

use crate::{
    markdown::{folded, ns, table},
    results::{Contestant, Results},
};

/// The layouts of a bus, each folded.
pub(crate) fn layouts<R: Bus>(results: &Results) -> String {
    let table = |layout: &Layout| {
        let rows = Pattern::ALL.into_iter().flat_map(|pattern| {
            let columns = SIZES.map(|n| scenario::sweep::<R>(layout, pattern, n));
            rows(
                &results.contestants,
                pattern.name(),
                &columns,
                |scenario, one| over_floor(results, scenario, one),
            )
        });
        let title = format!("{}, {}", R::NAME, layout.name);
        folded(&title, &timetable(SIZES, rows.collect()))
    };
    R::layouts(0).iter().map(table).collect()
}

/// Reads of several vCPUs at once.
pub(crate) fn vcpus(results: &Results) -> String {
    let counts = scenario::vcpu_counts();
    let rows = Sharing::ALL.into_iter().flat_map(|sharing| {
        let columns = counts.iter().map(|&n| scenario::vcpus(n, sharing));
        let columns: Vec<_> = columns.collect();
        rows(
            &results.contestants,
            sharing.name(),
            &columns,
            |scenario, one| over_floor(results, scenario, one),
        )
    });
    timetable(counts.iter().copied(), rows.collect())
}

/// Reads of rust-vmm's devices.
pub(crate) fn rust_vmm(results: &Results) -> String {
    let rows = RUST_VMM_PATTERNS.into_iter().flat_map(|pattern| {
        let columns = RUST_VMM.map(|n| scenario::rust_vmm(pattern, n));
        rows(
            &results.rust_vmm,
            pattern.name(),
            &columns,
            |scenario, one| Some(ns(results.time(scenario, one)?)),
        )
    });
    timetable(RUST_VMM, rows.collect())
}

/// Hot-adds, also as multiples of a copy of as much memory.
pub(crate) fn hot_adds(results: &Results) -> String {
    let columns = HOT_ADD.map(scenario::hot_add);
    let rows = rows(&results.contestants, "", &columns, |scenario, one| {
        let time = results.time(scenario, one)?;
        let copy = results.time(scenario, &one.beside(MEMCPY))?;
        Some(format!("{} ({:.1} ×)", ns(time), time / copy))
    });
    timetable(HOT_ADD, rows)
}

fn timetable(columns: impl IntoIterator<Item = usize>, rows: Vec<Vec<String>>) -> String {
    let columns = columns.into_iter().map(|n| n.to_string());
    let names = ["", "ns"].map(String::from);
    table(names.into_iter().chain(columns), rows)
}

/// A time, also as a multiple of the same run's floor if that was measured.
fn over_floor(results: &Results, scenario: &str, one: &Contestant) -> Option<String> {
    let time = results.time(scenario, one)?;
    let floor = results.time(scenario, &one.floor());
    let ratio = floor.map_or(String::new(), |floor| format!(" ({:.1} ×)", time / floor));
    Some(ns(time) + &ratio)
}

/// The rows of the contestants with at least one measured cell.
fn rows(
    of: &[Contestant],
    pattern: &str,
    columns: &[String],
    cell: impl Fn(&str, &Contestant) -> Option<String>,
) -> Vec<Vec<String>> {
    let row = |one: &Contestant| {
        let cells: Vec<_> = columns.iter().map(|scenario| cell(scenario, one)).collect();
        let measured = cells.iter().any(Option::is_some);
        let cells = cells.into_iter().map(Option::unwrap_or_default);
        let names = [pattern.into(), one.label()];
        measured.then(|| names.into_iter().chain(cells).collect())
    };
    of.iter().filter_map(row).collect()
}
