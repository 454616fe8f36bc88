//! The results that the benches have written: criterion's samples, and the storm's tables.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use axaddrspace::GuestPhysAddrRange;
use benches::{Registry, Visitor, all, rust_vmm};
use serde_json::Value;

/// The cells. The baselines of the runs have the same names.
pub(crate) const CELLS: [&str; 2] = ["arc-swap", SLOTS];
pub(crate) const SLOTS: &str = "slots";

/// Registries by name.
pub(crate) const DISPATCHER: &str = "Dispatcher";
pub(crate) const PLAIN_RIVAL: &str = "arc-swap Cache";
pub(crate) const PUBLISHED: &str = "0.4.10";

/// A row of a table, a line of a plot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Contestant {
    /// The registry's name.
    pub(crate) registry: &'static str,
    /// The cell of the run that measured it.
    pub(crate) cell: &'static str,
    pub(crate) ours: bool,
}

/// The floor.
pub(crate) const FLOOR: &str = "direct call";

impl Contestant {
    pub(crate) const fn rival(registry: &'static str, cell: &'static str) -> Self {
        Self {
            registry,
            cell,
            ours: false,
        }
    }

    /// The floor of the same run.
    pub(crate) const fn floor(&self) -> Self {
        Self::rival(FLOOR, self.cell)
    }

    /// Another registry of the same run.
    pub(crate) const fn beside(&self, registry: &'static str) -> Self {
        Self::rival(registry, self.cell)
    }

    pub(crate) fn label(&self) -> String {
        if self.ours {
            format!("**{}, {}**", self.registry, self.cell)
        } else {
            self.registry.into()
        }
    }
}

/// A distribution's percentiles, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// All results.
pub(crate) struct Results {
    criterion: PathBuf,
    /// By registry, cell and "weather", the second column of the storm's table.
    storms: HashMap<(String, &'static str, String), Percentiles>,
    pub(crate) contestants: Vec<Contestant>,
    /// The contestants that take rust-vmm's devices.
    pub(crate) rust_vmm: Vec<Contestant>,
    /// The seeds of the random layouts: one, unless the runs had different ones.
    pub(crate) seeds: String,
}

impl Results {
    pub(crate) fn read(target: &Path) -> Result<Self> {
        let mut storms = HashMap::new();
        let mut seeds = BTreeSet::new();
        for cell in CELLS {
            seeds.insert(read(&target.join(format!("tmp/seed-{cell}")))?);
            let csv = read(&target.join(format!("tmp/storm-{cell}.csv")))?;
            for line in csv.lines().skip(1) {
                let (registry, weather, percentiles) = storm(line).context("a row of a storm")?;
                storms.insert((registry, cell, weather), percentiles);
            }
        }
        let (mut names, mut of_rust_vmm) = (Names(Vec::new()), Names(Vec::new()));
        all(&mut names);
        rust_vmm(&mut of_rust_vmm);
        Ok(Self {
            criterion: target.join("criterion"),
            storms,
            contestants: names.0,
            rust_vmm: of_rust_vmm.0,
            seeds: Vec::from_iter(seeds).join(", "),
        })
    }

    /// The nanoseconds of one access or change, if it was measured. It is the lower quartile of the
    /// samples, because other users of the machine slow down some of them.
    pub(crate) fn time(&self, scenario: &str, contestant: &Contestant) -> Option<f64> {
        let (registry, cell) = (contestant.registry, contestant.cell);
        let folder = self.criterion.join(scenario).join(registry).join(cell);
        let sample = fs::read_to_string(folder.join("sample.json")).ok()?;
        let sample: Value = serde_json::from_str(&sample).ok()?;
        let (times, iters) = (sample["times"].as_array()?, sample["iters"].as_array()?);
        let each = times.iter().zip(iters);
        let mut each: Vec<_> = each
            .filter_map(|(time, n)| Some(time.as_f64()? / n.as_f64()?))
            .collect();
        each.sort_by(f64::total_cmp);
        each.get(each.len() / 4).copied()
    }

    /// The times of single dispatches or changes.
    pub(crate) fn storm(&self, contestant: &Contestant, weather: &str) -> Option<Percentiles> {
        let key = (contestant.registry.into(), contestant.cell, weather.into());
        self.storms.get(&key).copied()
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn storm(line: &str) -> Option<(String, String, Percentiles)> {
    let fields: Vec<_> = line.split(',').collect();
    let &[registry, weather, _, p50, p99, p999, max] = &fields[..] else {
        return None;
    };
    let percentiles = Percentiles {
        p50: p50.parse().ok()?,
        p99: p99.parse().ok()?,
        p999: p999.parse().ok()?,
        max: max.parse().ok()?,
    };
    Some((registry.into(), weather.into(), percentiles))
}

struct Names(Vec<Contestant>);

impl Visitor<GuestPhysAddrRange> for Names {
    fn visit<T: Registry<GuestPhysAddrRange>>(&mut self) {
        let cells = if T::OURS { &CELLS[..] } else { &CELLS[..1] };
        self.0.extend(cells.iter().map(|cell| Contestant {
            registry: T::NAME,
            cell,
            ours: T::OURS,
        }));
    }
}
