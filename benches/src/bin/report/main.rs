//! Makes tables and plots of the benches' results: `report TARGET_FOLDER BENCHES_FOLDER` replaces the
//! text between the markers in `BENCHES_FOLDER/README.md`, and the plots beside it.

mod lines;
mod lost;
mod markdown;
mod others;
mod plots;
mod ratios;
mod results;
mod tables;
mod times;

use std::{env, fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::results::Results;

/// The markers around the tables in the README.
const MARKERS: [&str; 2] = ["<!-- The report begins. -->", "<!-- The report ends. -->"];

fn main() -> Result<()> {
    let args: Vec<_> = env::args().skip(1).collect();
    let [target, benches] = &args[..] else {
        bail!("usage: report TARGET_FOLDER BENCHES_FOLDER");
    };
    let benches = Path::new(benches);
    let results = Results::read(Path::new(target))?;
    let plots = plots::draw(&results, &benches.join("plots"))?;
    let tables = tables::all(&results, &fs::read_to_string(benches.join("ceilings.txt"))?);
    rewrite(&benches.join("README.md"), &format!("{tables}\n{plots}"))
}

/// Replaces the text between the markers.
fn rewrite(path: &Path, report: &str) -> Result<()> {
    let old = fs::read_to_string(path)?;
    let (before, rest) = old.split_once(MARKERS[0]).context("no first marker")?;
    let (_, after) = rest.split_once(MARKERS[1]).context("no second marker")?;
    let [begins, ends] = MARKERS;
    let new = format!("{before}{begins}\n\n{report}\n{ends}{after}");
    fs::write(path, new).with_context(|| path.display().to_string())
}
