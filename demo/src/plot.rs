//! The plot of a run: each vCPU's exits per second over time, and the hot-adds.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::session::{Record, Sample};

const SIZE: (u32, u32) = (960, 480);
/// The fraction of the height for the hot-adds' marks.
const MARK: f64 = 0.03;
/// The number of marks that fit side by side.
const MARKS: f64 = 800.0;
/// The number of vCPUs that fit into the legend.
const LEGEND: usize = 16;

/// Writes the plot to `path`.
pub(crate) fn write(path: &Path, title: &str, record: &Record) -> Result<()> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    draw(&root, title, record).map_err(|error| anyhow!("{error}"))?;
    root.present().map_err(|error| anyhow!("{error}"))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(root: &Area<'_>, title: &str, record: &Record) -> Drawn {
    let lines = rates(&record.samples);
    let points = || lines.iter().flatten();
    let end = record
        .samples
        .last()
        .map_or(1.0, |last| last.at.as_secs_f64());
    let top = points().map(|point| point.1).fold(1.0, f64::max) * 1.1;

    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc("VM exits per second")
        .y_label_formatter(&|rate| format!("{:.0} k", rate / 1e3))
        .light_line_style(TRANSPARENT)
        .draw()?;

    for (vcpu, line) in lines.iter().enumerate() {
        let color = Palette99::pick(vcpu).stroke_width(2);
        let drawn = chart.draw_series(LineSeries::new(line.iter().copied(), color))?;
        if vcpu < LEGEND {
            drawn
                .label(format!("vCPU {vcpu}"))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
        }
    }
    let marks = marks(record, end);
    let marked =
        chart.draw_series(marks.map(|x| PathElement::new([(x, 0.0), (x, MARK * top)], BLACK)))?;
    if !record.added.is_empty() {
        marked
            .label("hot-add")
            .legend(|(x, y)| PathElement::new([(x + 8, y - 5), (x + 8, y + 5)], BLACK));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// For each vCPU the exits per second between samples, in the middle between the two.
fn rates(samples: &[Sample]) -> Vec<Vec<(f64, f64)>> {
    let vcpus = samples.first().map_or(0, |sample| sample.exits.len());
    let rate = |pair: &[Sample], vcpu: usize| {
        let [from, to] = [&pair[0], &pair[1]];
        let (from_at, to_at) = (from.at.as_secs_f64(), to.at.as_secs_f64());
        let exits = to.exits[vcpu] - from.exits[vcpu];
        ((from_at + to_at) / 2.0, exits as f64 / (to_at - from_at))
    };
    let line = |vcpu| samples.windows(2).map(|pair| rate(pair, vcpu)).collect();
    (0..vcpus).map(line).collect()
}

/// The times of hot-adds; of several that are too close for separate marks, one.
fn marks(record: &Record, end: f64) -> impl Iterator<Item = f64> {
    let times = record.added.iter().map(|added| added.called as f64 / 1e9);
    let mut last = f64::NEG_INFINITY;
    times.filter(move |at| {
        let apart = at - last > end / MARKS;
        if apart {
            last = *at;
        }
        apart
    })
}
