//! The tables, as Markdown.

use std::{env, fmt::Write, fs, thread};

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use axdevice_benches::{
    Bus, Pattern,
    scenario::{
        self, DEVICES, HOT_ADD, INDEXED, INDEXES, MEMCPY, RUST_VMM, RUST_VMM_PATTERNS, SIZES,
        Sharing,
    },
};

use crate::results::{CELLS, Contestant, Percentiles, Results};

/// All tables.
pub(crate) fn all(results: &Results, ceilings: &str) -> String {
    let mut text = machine() + "\n\n";
    section(&mut text, "Targets", &targets(results));
    for pattern in Pattern::ALL {
        let columns = SIZES.map(|n| (n.to_string(), scenario::sweep(pattern, n)));
        let title = format!("Reads, {}, by number of devices", pattern.name());
        section(
            &mut text,
            &title,
            &times(results, &results.contestants, &columns),
        );
    }
    for sharing in Sharing::ALL {
        let title = format!(
            "Reads, by number of vCPUs, on {} of {DEVICES}",
            sharing.name()
        );
        let counts = scenario::vcpu_counts();
        let columns: Vec<_> = counts
            .iter()
            .map(|&n| (n.to_string(), scenario::vcpus(n, sharing)))
            .collect();
        section(
            &mut text,
            &title,
            &times(results, &results.contestants, &columns),
        );
    }
    let buses = [
        GuestPhysAddrRange::NAME,
        SysRegAddrRange::NAME,
        PortRange::NAME,
    ];
    let columns = buses.map(|bus| (bus.to_string(), scenario::on_bus(bus)));
    let title = format!("Reads, random, by bus, of {DEVICES} devices");
    section(
        &mut text,
        &title,
        &times(results, &results.contestants, &columns),
    );
    for pattern in RUST_VMM_PATTERNS {
        let columns = RUST_VMM.map(|n| (n.to_string(), scenario::rust_vmm(pattern, n)));
        let title = format!(
            "Reads of rust-vmm's devices, {}, by number of devices",
            pattern.name()
        );
        section(
            &mut text,
            &title,
            &times(results, &results.rust_vmm, &columns),
        );
    }
    section(&mut text, "Where rivals win", &lost(results));
    section(
        &mut text,
        "Hot-add, by number of devices",
        &hot_adds(results),
    );
    section(
        &mut text,
        "A single read, in a quiet time and while 1,000 devices a second are added",
        &storms(results),
    );
    section(
        &mut text,
        "Candidates for the index: a lookup, random, by number of devices",
        &indexes(results),
    );
    section(
        &mut text,
        "Instructions of an access",
        &instructions(ceilings),
    );
    text
}

/// What all of this was measured on, as Linux tells it.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find(|line| line.starts_with("model name"));
    let model = model
        .and_then(|line| line.split_once(": "))
        .map_or("a processor", |(_, model)| model);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores of {model}, {}, Linux {}.",
        env::consts::ARCH,
        kernel.trim()
    )
}

fn section(text: &mut String, title: &str, body: &str) {
    writeln!(text, "### {title}\n\n{body}").expect("a string takes it");
}

/// A table.
fn table(head: &[String], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = vec!["---".to_string(); head.len()];
    let rows = rows.into_iter().map(|row| line(&row));
    [line(head), line(&rule)].into_iter().chain(rows).collect()
}

fn head(first: &str, columns: &[(String, String)]) -> Vec<String> {
    let names = columns.iter().map(|(name, _)| name.clone());
    [first.into()].into_iter().chain(names).collect()
}

/// Nanoseconds, with as many digits as mean something.
fn ns(time: f64) -> String {
    match time {
        ..100.0 => format!("{time:.1}"),
        ..10_000.0 => format!("{time:.0}"),
        _ => format!("{:.0} k", time / 1e3),
    }
}

/// Times, and what they are in units of the same run's floor, if that has any.
fn times(results: &Results, of: &[Contestant], columns: &[(String, String)]) -> String {
    let cell = |scenario: &String, of: &Contestant| {
        let time = results.time(scenario, of)?;
        let floor = results.time(scenario, &of.floor());
        let ratio = floor.map_or(String::new(), |floor| format!(" ({:.1} ×)", time / floor));
        Some(ns(time) + &ratio)
    };
    rows(of, columns, cell)
}

/// A table of the contestants that have a cell in it.
fn rows(
    of: &[Contestant],
    columns: &[(String, String)],
    cell: impl Fn(&String, &Contestant) -> Option<String>,
) -> String {
    let rows = of.iter().filter_map(|contestant| {
        let cells: Vec<_> = columns
            .iter()
            .map(|(_, scenario)| cell(scenario, contestant))
            .collect();
        let measured = cells.iter().any(Option::is_some);
        let cells = cells.into_iter().map(Option::unwrap_or_default);
        measured.then(|| [contestant.label()].into_iter().chain(cells).collect())
    });
    table(&head("ns", columns), rows)
}

fn hot_adds(results: &Results) -> String {
    let columns = HOT_ADD.map(|n| (n.to_string(), scenario::hot_add(n)));
    let copied = |scenario: &String, of: &Contestant| {
        let time = results.time(scenario, of)?;
        let copy = results.time(scenario, &of.beside(MEMCPY))?;
        Some(format!("{} ({:.1} ×)", ns(time), time / copy))
    };
    rows(&results.contestants, &columns, copied)
}

fn indexes(results: &Results) -> String {
    let columns = INDEXED.map(|n| (n.to_string(), scenario::index(n)));
    let rows = INDEXES.map(|name| {
        let index = Contestant::rival(name, CELLS[0]);
        let times = columns.iter().map(|(_, scenario)| {
            let time = results.time(scenario, &index);
            time.map_or(String::new(), ns)
        });
        [name.to_string()].into_iter().chain(times).collect()
    });
    table(&head("ns", &columns), rows)
}

fn storms(results: &Results) -> String {
    let names = [
        "ns",
        "quiet p50",
        "p99",
        "p99.9",
        "max",
        "stormy p50",
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
        Some(
            [contestant.label()]
                .into_iter()
                .chain(numbers.map(ns))
                .collect(),
        )
    };
    let clock = results.contestants[0].beside("clock");
    let step = results.storm(&clock, "step").map_or(0.0, |step| step.p50);
    let table = table(
        &names.map(String::from),
        results.contestants.iter().filter_map(row),
    );
    format!(
        "{table}\n(Where two successive readings of the clock differ, they do by {step} ns: times are that coarse.)\n"
    )
}

/// Where someone else is faster than the fastest of this crate.
fn lost(results: &Results) -> String {
    let sweep = Pattern::ALL
        .into_iter()
        .flat_map(|pattern| SIZES.map(|n| scenario::sweep(pattern, n)));
    let shared = Sharing::ALL.into_iter().flat_map(|sharing| {
        let counts = scenario::vcpu_counts().into_iter();
        counts.map(move |n| scenario::vcpus(n, sharing))
    });
    let hot_adds = HOT_ADD.map(scenario::hot_add);
    let rows = sweep.chain(shared).chain(hot_adds).filter_map(|scenario| {
        let best = |ours: bool| {
            let rivals = results.contestants.iter().filter(|one| one.ours == ours);
            let times = rivals
                .filter(|one| one.registry != one.floor().registry)
                .filter_map(|one| Some((one, results.time(&scenario, one)?)));
            times.min_by(|one, other| one.1.total_cmp(&other.1))
        };
        let (ours, theirs) = (best(true)?, best(false)?);
        let cell = |(one, time): (&Contestant, f64)| format!("{} {}", one.label(), ns(time));
        (theirs.1 < ours.1).then(|| vec![scenario, cell(theirs), cell(ours)])
    });
    let head = [
        "scenario",
        "the fastest rival, ns",
        "the fastest of this crate, ns",
    ];
    table(&head.map(String::from), rows)
}

fn instructions(ceilings: &str) -> String {
    let lines = ceilings.lines().filter(|line| !line.starts_with('#'));
    let row = |line: &str| line.split_whitespace().map(String::from).collect();
    let head = ["cell", "access", "instructions, at most"];
    table(&head.map(String::from), lines.map(row))
}

/// What a contestant is held to.
struct Target {
    what: String,
    ratio: Option<f64>,
    at_most: f64,
}

fn targets(results: &Results) -> String {
    let ours = results.contestants.iter().filter(|one| one.ours);
    let rows = ours.flat_map(|one| {
        let targets = match one.registry {
            "Dispatcher" => dispatcher(results, one),
            _ => by_shared_reference(results, one),
        };
        targets.into_iter().map(|target| {
            let (ratio, met) = target
                .ratio
                .map_or((String::new(), "not measured"), |ratio| {
                    let met = if ratio <= target.at_most {
                        "met"
                    } else {
                        "**missed**"
                    };
                    (format!("{ratio:.3}"), met)
                });
            let at_most = format!("{:.3}", target.at_most);
            vec![one.label(), target.what, ratio, at_most, met.into()]
        })
    });
    let head = ["", "ratio", "measured", "at most", ""];
    table(&head.map(String::from), rows)
}

fn dispatcher(results: &Results, one: &Contestant) -> Vec<Target> {
    let over_floor = |pattern: Pattern, n, at_most| {
        let scenario = scenario::sweep(pattern, n);
        Target {
            what: format!("{scenario}, over the direct call"),
            ratio: ratio(results, &scenario, one, &one.floor()),
            at_most,
        }
    };
    let hot = [8, 64, 256, 1024, 4096].map(|n| over_floor(Pattern::Hot, n, 1.5));
    let limits = [(8, 2.0), (64, 2.5), (1024, 4.0)];
    let random = limits.map(|(n, at_most)| over_floor(Pattern::Random, n, at_most));
    let shared = Target {
        what: "2 vCPUs on one device over 1, over what the direct call loses".into(),
        ratio: loss(results, one)
            .zip(loss(results, &one.floor()))
            .map(|(ours, floors)| ours / floors),
        at_most: 1.15,
    };
    let mut all: Vec<_> = hot.into_iter().chain(random).collect();
    all.extend([shared, storm(results, one)]);
    all
}

fn by_shared_reference(results: &Results, one: &Contestant) -> Vec<Target> {
    let published = one.beside("0.4.10");
    let over_published = |pattern: Pattern, n, at_most| {
        let scenario = scenario::sweep(pattern, n);
        Target {
            what: format!("{scenario}, over 0.4.10 without a lock"),
            ratio: ratio(results, &scenario, one, &published),
            at_most,
        }
    };
    let scenario = scenario::hot_add(1024);
    let hot_add = Target {
        what: format!("{scenario}, over a memcpy of its table"),
        ratio: ratio(results, &scenario, one, &one.beside(MEMCPY)),
        at_most: 20.0,
    };
    vec![
        over_published(Pattern::Hot, 8, 1.0),
        over_published(Pattern::Random, 64, 1.0 / 3.0),
        over_published(Pattern::Random, 1024, 1.0 / 25.0),
        storm(results, one),
        hot_add,
    ]
}

fn ratio(results: &Results, scenario: &str, of: &Contestant, to: &Contestant) -> Option<f64> {
    Some(results.time(scenario, of)? / results.time(scenario, to)?)
}

/// What two vCPUs on one device lose to each other.
fn loss(results: &Results, of: &Contestant) -> Option<f64> {
    let time = |vcpus| results.time(&scenario::vcpus(vcpus, Sharing::One), of);
    Some(time(2)? / time(1)?)
}

fn storm(results: &Results, of: &Contestant) -> Target {
    let p99 = |weather| Some(results.storm(of, weather)?.p99);
    Target {
        what: "p99 of a read while 1,000 devices a second are added, over a quiet time's".into(),
        ratio: p99("storm")
            .zip(p99("quiet"))
            .map(|(storm, quiet)| storm / quiet),
        at_most: 3.0,
    }
}
