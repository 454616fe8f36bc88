//! All plots.

use std::{fmt::Write, fs, path::Path};

use anyhow::Result;
use axaddrspace::GuestPhysAddrRange;
use benches::{
    Bus, Pattern,
    scenario::{self, HOT_ADD, SIZES, Sharing},
};

use crate::{
    lines::{Axes, Line},
    results::{Contestant, Results},
};

/// Draws all plots into a folder, and returns the Markdown that shows them.
pub(crate) fn draw(results: &Results, folder: &Path) -> Result<String> {
    fs::create_dir_all(folder)?;
    let mut markdown = String::from("### Plots\n\n");
    let mut draw = |name: &str, axes: Axes, lines: Vec<Line>| {
        writeln!(markdown, "![{}](plots/{name}.svg)\n", axes.title)?;
        axes.draw(&folder.join(name).with_extension("svg"), &lines)
    };
    let devices = |title: String| Axes {
        title,
        x: "devices",
        y: "ns",
    };

    let layout = GuestPhysAddrRange::plain();
    for pattern in Pattern::ALL {
        let title = format!("Time of a read, {}, one vCPU", pattern.name());
        let lines = timed(results, &SIZES, |n| {
            scenario::sweep::<GuestPhysAddrRange>(&layout, pattern, n)
        });
        let name = pattern.name().replace(' ', "-");
        draw(&name, devices(title), lines)?;
    }
    let lines = timed(results, &HOT_ADD, scenario::hot_add);
    draw("hot-add", devices("Time of a hot-add".into()), lines)?;
    for (sharing, name) in Sharing::ALL.into_iter().zip(["one-device", "own-devices"]) {
        let axes = Axes {
            title: format!("Time of a read on each vCPU, {}", sharing.name()),
            x: "vCPUs",
            y: "ns",
        };
        let counts = scenario::vcpu_counts();
        draw(
            name,
            axes,
            timed(results, &counts, |n| scenario::vcpus(n, sharing)),
        )?;
    }
    let axes = Axes {
        title: "The slowest of n single reads, during 1,000 hot-adds a second".into(),
        x: "n",
        y: "ns",
    };
    draw("storm", axes, stormy(results))?;
    Ok(markdown)
}

/// A line for each contestant that was measured.
fn timed(results: &Results, xs: &[usize], scenario: impl Fn(usize) -> String) -> Vec<Line> {
    let point = |one: &Contestant, x: usize| Some((x as f64, results.time(&scenario(x), one)?));
    let lines = results.contestants.iter().enumerate().map(|(i, one)| Line {
        points: xs.iter().filter_map(|&x| point(one, x)).collect(),
        ..named(i, one)
    });
    lines.filter(|line| !line.points.is_empty()).collect()
}

fn stormy(results: &Results) -> Vec<Line> {
    let line = |(i, one): (usize, &Contestant)| {
        let at = results.storm(one, "storm")?;
        Some(Line {
            points: vec![(2.0, at.p50), (100.0, at.p99), (1_000.0, at.p999)],
            ..named(i, one)
        })
    };
    results
        .contestants
        .iter()
        .enumerate()
        .filter_map(line)
        .collect()
}

/// A line without points yet, of the same colour in every plot.
fn named(color: usize, one: &Contestant) -> Line {
    Line {
        color,
        label: one.label().replace("**", ""),
        bold: one.ours,
        points: Vec::new(),
    }
}
