//! A plot: lines over two logarithmic axes.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::{coord::combinators::LogScalable, prelude::*};

const SIZE: (u32, u32) = (960, 540);

/// A line of a plot.
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) bold: bool,
    /// The index of its colour in the palette.
    pub(crate) color: usize,
    /// At least one point, and all coordinates above zero.
    pub(crate) points: Vec<(f64, f64)>,
}

/// The title of a plot, and the labels of its axes.
pub(crate) struct Axes {
    pub(crate) title: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
}

impl Axes {
    pub(crate) fn draw(&self, path: &Path, lines: &[Line]) -> Result<()> {
        let root = SVGBackend::new(path, SIZE).into_drawing_area();
        self.draw_on(&root, lines)
            .map_err(|error| anyhow!("{error}"))?;
        root.present().map_err(|error| anyhow!("{error}"))
    }

    fn draw_on(
        &self,
        root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
        lines: &[Line],
    ) -> Result<(), Box<dyn std::error::Error>> {
        let points = || lines.iter().flat_map(|line| &line.points);
        let (left, right) = ends(points().map(|point| point.0));
        let (bottom, top) = ends(points().map(|point| point.1));
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(root)
            .caption(&self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(60)
            // The legend is to the right of the lines' ends.
            .build_cartesian_2d(
                (left..right * (right / left).powf(0.35)).log_scale(),
                (bottom / 1.2..top * 1.2).log_scale(),
            )?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .light_line_style(TRANSPARENT)
            .x_label_formatter(&number)
            .y_label_formatter(&number)
            .draw()?;
        for line in lines {
            let color = Palette99::pick(line.color).stroke_width(if line.bold { 4 } else { 2 });
            let points = || line.points.iter().copied();
            chart
                .draw_series(LineSeries::new(points(), color))?
                .label(&line.label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
            chart.draw_series(points().map(|at| Circle::new(at, 3, color.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .draw()?;
        Ok(())
    }
}

/// The least and the greatest value. If they are equal, the second is a little greater.
fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, greatest) = values.fold((f64::INFINITY, 0.0), |(least, greatest), value| {
        (f64::min(least, value), f64::max(greatest, value))
    });
    (least, greatest.max(least * 1.01))
}

fn number(value: &f64) -> String {
    match *value {
        ..1_000.0 => format!("{value}"),
        _ => format!("{} k", value.as_f64() / 1e3),
    }
}
