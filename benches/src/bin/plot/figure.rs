//! One area's figure: a panel a table, a line a subject.
//!
//! A bar is the median ratio to the table's first subject; less is faster. The thin line over it goes from the best round
//! to the worst. Where the ratios span decades, bars begin at 1, so that their length is a factor; else at nought. A table with
//! many lines is drawn in their order of speed.

use crate::scale::Scale;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use polyproc_benches::results::{Machine, Row, Run, Share, Spread};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

pub(crate) const WIDTH: i32 = 1000;
/// Where names end, where bars begin and end, and where the two columns of figures end.
const NAMES: i32 = 330;
const BARS: (i32, i32) = (340, 800);
const COLUMNS: [i32; 2] = [875, 980];
/// The same for single events.
const DISCS: (i32, i32) = (340, 640);
const EVENTS: [i32; 4] = [725, 810, 895, 980];
/// The same for parts.
const SHARES: (i32, i32) = (340, 710);
const PARTS: [i32; 3] = [810, 885, 980];
/// Heights of the figure's head, of a panel's head and foot, of a line, and of a line of the foot.
pub(crate) const HEAD: i32 = 64;
const PANEL_HEAD: i32 = 34;
const PANEL_FOOT: i32 = 44;
const LINE: i32 = 24;
const FOOT_LINE: i32 = 18;
/// As many characters as a line of the foot holds.
const FOOT_WIDTH: usize = 140;

pub(crate) const OURS: RGBColor = RGBColor(214, 90, 24);
pub(crate) const LIMIT: RGBColor = RGBColor(72, 84, 99);
const OTHER: RGBColor = RGBColor(142, 160, 182);
const THREADS: RGBColor = RGBColor(196, 178, 120);
pub(crate) const INK: RGBColor = RGBColor(28, 34, 42);
pub(crate) const FAINT: RGBColor = RGBColor(226, 230, 235);
pub(crate) const GREY: RGBColor = RGBColor(100, 110, 122);

pub(crate) type Canvas<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
pub(crate) type Drawn = Result<(), Box<dyn Error>>;

/// The figure of a few tables of several areas.
pub(crate) const OVERVIEW: &str = "overview";

/// As many lines as can be looked through in any order.
const MANY: usize = 6;

/// The colour in which somebody is drawn.
pub(crate) fn colour(who: &str) -> RGBColor {
    if who.contains("polyproc") {
        OURS
    } else if who.starts_with("limit") {
        LIMIT
    } else if ["threads", "std::", "parking_lot"].iter().any(|sign| who.contains(sign)) {
        THREADS
    } else {
        OTHER
    }
}

/// Nanoseconds in the unit that suits them.
fn time(nanos: f64) -> String {
    let (figure, unit) = match nanos {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    format!("{} {unit}", short(figure))
}

/// Three digits that count.
pub(crate) fn short(figure: f64) -> String {
    match figure {
        f if f >= 999.5 => {
            let last = 10f64.powf(f.log10().floor() - 2.0);
            thousands((f / last).round() * last)
        }
        f if f >= 99.5 => format!("{f:.0}"),
        f if f >= 9.95 => format!("{f:.1}"),
        f if f >= 0.0995 => format!("{f:.2}"),
        f => format!("{f:.4}"),
    }
}

/// With a comma between thousands.
fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let comma = |(index, digit)| match (digits.len() - index) % 3 {
        0 if index > 0 => format!(",{digit}"),
        _ => String::from(digit),
    };
    digits.chars().enumerate().map(comma).collect()
}

/// As [`short`], without zeros at its end: for an axis.
pub(crate) fn tick(figure: f64) -> String {
    let text = if figure >= 99.5 { thousands(figure) } else { format!("{figure:.4}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

pub(crate) fn write(
    canvas: &Canvas<'_>,
    text: &str,
    at: (i32, i32),
    size: i32,
    colour: RGBColor,
    side: HPos,
) -> Drawn {
    let style =
        TextStyle::from(("sans-serif", size).into_font()).color(&colour).pos(Pos::new(side, VPos::Center));
    canvas.draw_text(text, &style, at)?;
    Ok(())
}

pub(crate) fn line(
    canvas: &Canvas<'_>,
    from: (i32, i32),
    to: (i32, i32),
    colour: RGBColor,
    width: u32,
) -> Drawn {
    canvas.draw(&PathElement::new([from, to], colour.stroke_width(width)))?;
    Ok(())
}

fn lines(run: &Run) -> i32 {
    (run.rows.len() + run.spreads.len() + run.shares.len()) as i32
}

/// What a figure is headed with.
pub(crate) fn heading(area: &str) -> String {
    match area.strip_prefix("rivals-") {
        Some(subject) => format!("{} beside the rivals", subject.replace('_', " ")),
        None if area == OVERVIEW => "polyproc beside its rivals".to_owned(),
        None => area.replace('_', " "),
    }
}

/// Draws the figure of an area into a file.
pub(crate) fn draw(path: &Path, area: &str, runs: &[Run]) -> Drawn {
    let panel = |run: &Run| PANEL_HEAD + PANEL_FOOT + LINE * lines(run);
    let foot = foot(runs);
    let height = HEAD + runs.iter().map(panel).sum::<i32>() + foot_height(&foot);
    let canvas = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    canvas.fill(&WHITE)?;
    write(&canvas, &heading(area), (20, 24), 24, INK, HPos::Left)?;
    let has_rows = runs.iter().any(|run| !run.rows.is_empty());
    let has_spreads = runs.iter().any(|run| !run.spreads.is_empty());
    let bars = "bars: median time as a ratio to the line that has 1.00, less is faster; thin lines: best to worst round";
    let discs = "discs: median; strokes: 99 %, 99.9 %, longest";
    let has_shares = runs.iter().any(|run| !run.shares.is_empty());
    let parts = "bars: from what the unluckiest got to what the luckiest got, 1 being a fair part; median of the rounds";
    let legend =
        [(has_rows, bars), (has_spreads, discs), (has_shares, parts)].into_iter().filter(|(has, _)| *has);
    let legend = legend.map(|(_, text)| text).collect::<Vec<_>>().join("; ");
    write(&canvas, &legend, (20, 50), 12, GREY, HPos::Left)?;
    let mut x = 530;
    let kinds = [
        ("polyproc", 100, OURS),
        ("limit", 75, LIMIT),
        ("between processes", 160, OTHER),
        ("between threads", 0, THREADS),
    ];
    for (name, width, colour) in kinds {
        canvas.draw(&Rectangle::new([(x, 18), (x + 12, 30)], colour.filled()))?;
        write(&canvas, name, (x + 18, 25), 13, GREY, HPos::Left)?;
        x += width;
    }
    let mut top = HEAD;
    for run in runs {
        write(&canvas, &run.title, (20, top + 16), 16, INK, HPos::Left)?;
        if !run.rows.is_empty() {
            rows(&canvas, top + PANEL_HEAD, &run.rows)?;
        }
        if !run.spreads.is_empty() {
            spreads(&canvas, top + PANEL_HEAD + LINE * run.rows.len() as i32, &run.spreads)?;
        }
        if !run.shares.is_empty() {
            shares(&canvas, top + PANEL_HEAD, &run.shares)?;
        }
        top += panel(run);
    }
    write_foot(&canvas, top, &foot)?;
    canvas.present()?;
    Ok(())
}

/// What a figure ends with: a line for each machine, day and commit that the runs are of, how busy it was otherwise, at the
/// most, and the versions of whoever is measured beside ours.
pub(crate) fn foot(runs: &[Run]) -> Vec<String> {
    let mut lines = Vec::new();
    for run in runs {
        let Machine { cpu, cpus, kernel, rustc, libc, commit, time, .. } = &run.machine;
        let day = time.split(' ').next().unwrap_or_default();
        let rustc = rustc.split(" (").next().unwrap_or_default();
        let libc = if libc.is_empty() { String::new() } else { format!("{libc}, ") };
        let rounds = run.rows.first().map_or(run.how.rounds, |row| row.rounds_ns.len());
        let quick = if run.how.is_quick { " of a third of the repetitions" } else { "" };
        let text = format!(
            "{day}: {cpus} CPUs ({cpu}), Linux {kernel}, {libc}{rustc}, commit {commit}, {rounds} rounds{quick}"
        );
        if !lines.contains(&text) {
            lines.push(text);
        }
    }
    let loads = runs.iter().filter_map(|run| run.machine.load.parse().ok());
    let load: f64 = loads.fold(0.0, f64::max);
    lines.push(format!("load of the machine, the bench itself included: up to {load:.1}"));
    let versions: BTreeMap<_, _> = runs.iter().flat_map(|run| &run.versions).collect();
    let mut line = String::new();
    for (name, version) in versions {
        let entry = format!("{name} {version}");
        if line.len() + entry.len() > FOOT_WIDTH {
            lines.push(std::mem::take(&mut line) + ",");
        }
        line += if line.is_empty() { "" } else { ", " };
        line += &entry;
    }
    lines.extend((!line.is_empty()).then_some(line));
    lines
}

pub(crate) fn foot_height(foot: &[String]) -> i32 {
    FOOT_LINE * foot.len() as i32 + 16
}

pub(crate) fn write_foot(canvas: &Canvas<'_>, top: i32, foot: &[String]) -> Drawn {
    for (index, text) in foot.iter().enumerate() {
        write(canvas, text, (20, top + 8 + FOOT_LINE * index as i32), 12, GREY, HPos::Left)?;
    }
    Ok(())
}

/// A scale from one place to another.
#[derive(Clone, Copy)]
struct Across {
    scale: Scale,
    ends: (i32, i32),
}

impl Across {
    fn at(self, figure: f64) -> i32 {
        self.ends.0 + (f64::from(self.ends.1 - self.ends.0) * self.scale.place(figure)).round() as i32
    }
}

/// The axis below so many lines, and its grid. A name that would touch the one before it is left out.
fn axis(canvas: &Canvas<'_>, top: i32, count: usize, across: Across, name: impl Fn(f64) -> String) -> Drawn {
    let bottom = top + LINE * count as i32;
    let mut free_from = 0;
    for figure in across.scale.ticks() {
        let (x, name) = (across.at(figure), name(figure));
        line(canvas, (x, top), (x, bottom), FAINT, 1)?;
        let half = 4 * name.chars().count() as i32;
        if x - half >= free_from {
            write(canvas, &name, (x, bottom + 11), 12, GREY, HPos::Center)?;
            free_from = x + half + 4;
        }
    }
    Ok(())
}

/// The best and the worst round of somebody, as ratios to the first.
fn extremes(row: &Row, first: &Row) -> (f64, f64) {
    let ratios = row.rounds_ns.iter().zip(&first.rounds_ns).map(|(own, first)| own / first);
    ratios.fold((f64::INFINITY, 0.0), |(low, high), ratio| (low.min(ratio), high.max(ratio)))
}

fn rows(canvas: &Canvas<'_>, top: i32, rows: &[Row]) -> Drawn {
    let most = rows.iter().map(|row| row.ratio).fold(1.0, f64::max);
    // One bad round is not to make all bars short: its line ends with the axis.
    let shown = |row: &Row| [row.ratio, extremes(row, &rows[0]).1.min(1.5 * most)];
    let Some(scale) = Scale::of(rows.iter().flat_map(shown)) else { return Ok(()) };
    let across = Across { scale, ends: BARS };
    axis(canvas, top, rows.len(), across, tick)?;
    for (name, column) in ["ratio", "median"].into_iter().zip(COLUMNS) {
        write(canvas, name, (column, top - 8), 12, GREY, HPos::Right)?;
    }
    let zero = across.at(if scale.is_log() { 1.0 } else { 0.0 });
    let mut order: Vec<&Row> = rows.iter().collect();
    if order.len() > MANY {
        order.sort_by(|one, other| one.ratio.total_cmp(&other.ratio));
    }
    for (index, row) in order.into_iter().enumerate() {
        let y = top + LINE * index as i32 + LINE / 2;
        let colour = colour(&row.who);
        write(canvas, &row.who, (NAMES, y), 13, if colour == OURS { OURS } else { INK }, HPos::Right)?;
        let end = across.at(row.ratio);
        canvas.draw(&Rectangle::new([(zero.min(end), y - 7), (zero.max(end), y + 7)], colour.filled()))?;
        if (end - zero).abs() < 3 {
            // A bar without length is still to be seen.
            canvas.draw(&Circle::new((end, y), 5, colour.filled()))?;
        }
        let (best, worst) = extremes(row, &rows[0]);
        if !std::ptr::eq(row, &rows[0]) && best < worst {
            line(canvas, (across.at(best), y), (across.at(worst), y), INK, 1)?;
        }
        write(canvas, &short(row.ratio), (COLUMNS[0], y), 13, INK, HPos::Right)?;
        write(canvas, &time(row.median_ns), (COLUMNS[1], y), 13, GREY, HPos::Right)?;
    }
    let one = across.at(1.0);
    line(canvas, (one, top), (one, top + LINE * rows.len() as i32), GREY, 1)
}

/// Single events: a disc at the median, strokes at 99 %, 99.9 % and the longest.
fn spreads(canvas: &Canvas<'_>, top: i32, spreads: &[Spread]) -> Drawn {
    let figures = spreads.iter().flat_map(|spread| [spread.p50_ns, spread.max_ns]);
    let Some(scale) = Scale::of(figures) else { return Ok(()) };
    let across = Across { scale, ends: DISCS };
    axis(canvas, top, spreads.len(), across, |figure| format!("{} µs", tick(figure / 1e3)))?;
    for (name, column) in ["median", "99 %", "99.9 %", "longest"].into_iter().zip(EVENTS) {
        write(canvas, name, (column, top - 8), 12, GREY, HPos::Right)?;
    }
    let mut order: Vec<&Spread> = spreads.iter().collect();
    if order.len() > MANY {
        order.sort_by(|one, other| one.p50_ns.total_cmp(&other.p50_ns));
    }
    for (index, spread) in order.into_iter().enumerate() {
        let y = top + LINE * index as i32 + LINE / 2;
        let colour = colour(&spread.who);
        write(canvas, &spread.who, (NAMES, y), 13, if colour == OURS { OURS } else { INK }, HPos::Right)?;
        let Spread { p50_ns, p99_ns, p999_ns, max_ns, .. } = *spread;
        line(canvas, (across.at(p50_ns), y), (across.at(max_ns), y), colour, 2)?;
        canvas.draw(&Circle::new((across.at(p50_ns), y), 5, colour.filled()))?;
        for (figure, half) in [(p99_ns, 7), (p999_ns, 5), (max_ns, 3)] {
            let x = across.at(figure);
            line(canvas, (x, y - half), (x, y + half), colour, 2)?;
        }
        for (figure, column) in [p50_ns, p99_ns, p999_ns, max_ns].into_iter().zip(EVENTS) {
            let ink = if column == EVENTS[0] { INK } else { GREY };
            write(canvas, &time(figure), (column, y), 13, ink, HPos::Right)?;
        }
    }
    Ok(())
}

/// What the unluckiest and the luckiest got: a bar between them, and the longest wait beside it.
fn shares(canvas: &Canvas<'_>, top: i32, shares: &[Share]) -> Drawn {
    let figures = shares.iter().flat_map(|share| [share.luckiest, share.unluckiest, 1.0]);
    // In equal steps, whatever they are: parts of one whole.
    let Some(scale) = Scale::from_nought(figures) else { return Ok(()) };
    let across = Across { scale, ends: SHARES };
    axis(canvas, top, shares.len(), across, tick)?;
    for (name, column) in ["got", "a turn", "longest wait"].into_iter().zip(PARTS) {
        write(canvas, name, (column, top - 8), 12, GREY, HPos::Right)?;
    }
    for (index, share) in shares.iter().enumerate() {
        let y = top + LINE * index as i32 + LINE / 2;
        let colour = colour(&share.who);
        write(canvas, &share.who, (NAMES, y), 13, if colour == OURS { OURS } else { INK }, HPos::Right)?;
        let (from, to) = (across.at(share.unluckiest), across.at(share.luckiest));
        canvas.draw(&Rectangle::new([(from, y - 7), (to.max(from + 2), y + 7)], colour.filled()))?;
        let parts = format!("{} to {}", short(share.unluckiest), short(share.luckiest));
        write(canvas, &parts, (PARTS[0], y), 13, INK, HPos::Right)?;
        write(canvas, &time(share.turn_ns), (PARTS[1], y), 13, GREY, HPos::Right)?;
        write(canvas, &time(share.longest_ns), (PARTS[2], y), 13, GREY, HPos::Right)?;
    }
    let one = across.at(1.0);
    line(canvas, (one, top), (one, top + LINE * shares.len() as i32), GREY, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_that_count() {
        for (figure, expected) in [
            (0.05, "0.0500"),
            (0.994, "0.99"),
            (12.34, "12.3"),
            (876.5, "876"),
            (88_329.0, "88,300"),
            (1e6, "1,000,000"),
        ] {
            assert_eq!(short(figure), expected);
        }
        assert_eq!((tick(0.5).as_str(), tick(100_000.0).as_str()), ("0.5", "100,000"));
    }
}
