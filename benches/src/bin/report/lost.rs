//! The scenarios in which a rival is faster than the fastest of this crate's registries.

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use benches::{
    Bus, Pattern,
    scenario::{self, HOT_ADD, SIZES, Sharing},
};

use crate::{
    markdown::{ns, table},
    results::{Contestant, Results},
};

/// The name of a line of the table, and its scenarios with their numbers.
type Line = (String, Vec<(usize, String)>);

/// The table.
pub(crate) fn all(results: &Results) -> String {
    let lines = sweep::<GuestPhysAddrRange>()
        .into_iter()
        .chain(sweep::<SysRegAddrRange>())
        .chain(sweep::<PortRange>())
        .chain(Sharing::ALL.map(vcpus))
        .chain([hot_adds()]);
    let row = |(name, scenarios): Line| {
        let lost = scenarios.iter().filter_map(|(n, scenario)| {
            let cell = cell(results, scenario)?;
            Some(format!("{n}: {cell}"))
        });
        let lost: Vec<_> = lost.collect();
        (!lost.is_empty()).then(|| vec![name, lost.join("; ")])
    };
    table(
        [
            "scenario",
            "number: the fastest rival < the fastest of this crate, ns",
        ],
        lines.filter_map(row),
    )
}

fn sweep<R: Bus>() -> Vec<Line> {
    let layouts = R::layouts(0).into_iter();
    let line = |(layout, pattern): (_, Pattern)| {
        let scenarios = SIZES.map(|n| (n, scenario::sweep::<R>(&layout, pattern, n)));
        let name = format!("{} {}, {}", R::NAME, layout.name, pattern.name());
        (name, scenarios.to_vec())
    };
    layouts
        .flat_map(|layout| Pattern::ALL.map(|pattern| (layout, pattern)))
        .map(line)
        .collect()
}

fn vcpus(sharing: Sharing) -> Line {
    let counts = scenario::vcpu_counts().into_iter();
    let scenarios = counts.map(|n| (n, scenario::vcpus(n, sharing)));
    (format!("vCPUs on {}", sharing.name()), scenarios.collect())
}

fn hot_adds() -> Line {
    let scenarios = HOT_ADD.map(|n| (n, scenario::hot_add(n)));
    ("hot-add".into(), scenarios.to_vec())
}

fn cell(results: &Results, scenario: &str) -> Option<String> {
    let fastest = |ours: bool| {
        let some = results.contestants.iter().filter(|one| one.ours == ours);
        let times = some
            .filter(|one| one.registry != one.floor().registry)
            .filter_map(|one| Some((one, results.time(scenario, one)?)));
        times.min_by(|one, other| one.1.total_cmp(&other.1))
    };
    let (ours, theirs) = (fastest(true)?, fastest(false)?);
    let named = |(one, time): (&Contestant, f64)| format!("{} {}", one.label(), ns(time));
    (theirs.1 < ours.1).then(|| format!("{} < {}", named(theirs), named(ours)))
}
