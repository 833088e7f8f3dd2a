//! Draws what the benches measured: `cargo run --release -p polyproc-benches --bin plot` makes one SVG an area in
//! `benches/figures`, of the latest run in each file of [results](polyproc_benches::results), and one of each series of tables
//! that differ by a number. A folder given as an argument takes them instead.

use polyproc_benches::results::{Run, folder, load};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

mod curves;
mod figure;
mod scale;

/// The latest runs, by area, each area's in the order in which they were made.
fn latest(folder: &Path) -> Result<BTreeMap<String, Vec<Run>>, Box<dyn Error>> {
    let mut areas: BTreeMap<String, Vec<Run>> = BTreeMap::new();
    let files = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for file in files {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let mut runs = load(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if let Some(run) = runs.pop() {
            areas.entry(run.area.clone()).or_default().push(run);
        }
    }
    for runs in areas.values_mut() {
        runs.sort_by(|one, other| one.machine.time.cmp(&other.machine.time));
    }
    Ok(areas)
}

/// The tables of the overview, which the project's README shows.
const CHOSEN: [&str; 4] = [
    "counter, 4 processes",
    "8 bytes there and back, awake, two CPUs",
    "messages of 64 bytes, one producer, one consumer, two CPUs",
    "messages of 1 MiB, one producer, one consumer, two CPUs",
];

/// Those of them that the rivals' benches have made.
fn overview(areas: &BTreeMap<String, Vec<Run>>) -> Vec<Run> {
    let rivals = || areas.iter().filter(|(area, _)| area.starts_with("rivals-")).flat_map(|(_, runs)| runs);
    CHOSEN.iter().filter_map(|title| rivals().find(|run| run.title == *title).cloned()).collect()
}

/// The runs that are part of a series, by area and axis, and then by what they measure, in the order in which they were made.
type Series = BTreeMap<(String, String), Vec<(String, Vec<Run>)>>;

fn series(areas: &BTreeMap<String, Vec<Run>>) -> Series {
    let mut all = Series::new();
    for (area, runs) in areas {
        for run in runs {
            let Some(series) = &run.series else { continue };
            let charts = all.entry((area.clone(), series.axis.clone())).or_default();
            match charts.iter_mut().find(|(name, _)| *name == series.name) {
                Some((_, runs)) => runs.push(run.clone()),
                None => charts.push((series.name.clone(), vec![run.clone()])),
            }
        }
    }
    for charts in all.values_mut() {
        // One point is no curve.
        charts.retain(|(_, runs)| runs.len() > 1);
    }
    all.retain(|_, charts| !charts.is_empty());
    all
}

fn main() -> Result<(), Box<dyn Error>> {
    let figures = std::env::args_os()
        .nth(1)
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("figures"), PathBuf::from);
    let mut areas = latest(&folder())?;
    if areas.is_empty() {
        return Err(format!("no results in {}: run `cargo bench` first", folder().display()).into());
    }
    std::fs::create_dir_all(&figures)?;
    for ((area, axis), charts) in &series(&areas) {
        let path = figures.join(format!("{area}-{axis}.svg"));
        curves::draw(&path, area, axis, charts)?;
        println!("{}: {} charts", path.display(), charts.len());
    }
    let overview = overview(&areas);
    if !overview.is_empty() {
        areas.insert(figure::OVERVIEW.to_owned(), overview);
    }
    for (area, runs) in &areas {
        let path = figures.join(format!("{area}.svg"));
        figure::draw(&path, area, runs)?;
        println!("{}: {} tables", path.display(), runs.len());
    }
    Ok(())
}
