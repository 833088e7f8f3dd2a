//! Tables that differ by a number: a chart for all of them, with a curve for everybody who is in them.
//!
//! Both axes are in equal factors. Whoever is at the end of a curve is named beside it; a thin line through a point goes from
//! the best round to the worst.

use crate::figure::{
    Canvas, Drawn, FAINT, GREY, HEAD, INK, LIMIT, OURS, WIDTH, colour, foot, foot_height, heading, line,
    tick, write, write_foot,
};
use crate::scale::Scale;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use polyproc_benches::results::{Row, Run};
use std::path::Path;

/// Where charts begin and end, and where the names beside them begin.
const ACROSS: (i32, i32) = (80, 680);
const NAMES: i32 = 710;
/// Heights: of a chart's head and foot, the least of a chart, and that of a name.
const CHART_HEAD: i32 = 34;
const CHART_FOOT: i32 = 52;
const LEAST: i32 = 300;
const NAME: i32 = 16;

/// Colours of those who are not ours, easy to tell from each other.
const OTHERS: [RGBColor; 12] = [
    RGBColor(31, 119, 180),
    RGBColor(44, 140, 44),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(201, 78, 160),
    RGBColor(23, 160, 175),
    RGBColor(150, 150, 30),
    RGBColor(110, 120, 130),
    RGBColor(60, 80, 170),
    RGBColor(0, 110, 90),
    RGBColor(180, 60, 70),
    RGBColor(120, 150, 200),
];
/// Ours in one chart: the first, the second, and so on.
const OWN: [RGBColor; 3] = [OURS, RGBColor(240, 150, 60), RGBColor(160, 60, 20)];

/// A point of a curve: the number, the figure, and that of the slowest and of the fastest round.
type Point = (f64, f64, [f64; 2]);

struct Curve<'a> {
    who: &'a str,
    points: Vec<Point>,
}

/// What the figures of a chart are: a name, and how they come from nanoseconds.
fn figure_of(axis: &str) -> (&'static str, fn(f64, f64) -> f64) {
    match axis {
        "bytes" => ("GB/s", |bytes, nanos| bytes / nanos),
        "pairs" => ("million messages a second", |_, nanos| 1e3 / nanos),
        _ => ("ns an operation", |_, nanos| nanos),
    }
}

/// A number on the axis below.
fn number(axis: &str, at: f64) -> String {
    match (axis, at) {
        ("bytes", n) if n >= 1048576.0 => format!("{} MiB", tick(n / 1048576.0)),
        ("bytes", n) if n >= 1024.0 => format!("{} KiB", tick(n / 1024.0)),
        ("bytes", n) => format!("{} B", tick(n)),
        ("pairs", n) => format!("{n} to {n}"),
        (_, n) => tick(n),
    }
}

fn curves<'a>(axis: &str, runs: &'a [Run]) -> Vec<Curve<'a>> {
    let (_, figure) = figure_of(axis);
    let mut curves: Vec<Curve<'a>> = Vec::new();
    for run in runs {
        let at = run.series.as_ref().map_or(0, |series| series.at) as f64;
        for Row { who, median_ns, rounds_ns, least_ns, .. } in &run.rows {
            let most_ns = rounds_ns.iter().copied().fold(0.0, f64::max);
            let point = (at, figure(at, *median_ns), [most_ns, *least_ns].map(|nanos| figure(at, nanos)));
            match curves.iter_mut().find(|curve| curve.who == who) {
                Some(curve) => curve.points.push(point),
                None => curves.push(Curve { who, points: vec![point] }),
            }
        }
    }
    for curve in &mut curves {
        curve.points.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    curves
}

/// Draws the charts of an area, of one axis, into a file: what each measures, and its runs.
pub(crate) fn draw(path: &Path, area: &str, axis: &str, charts: &[(String, Vec<Run>)]) -> Drawn {
    let all: Vec<Run> = charts.iter().flat_map(|(_, runs)| runs).cloned().collect();
    let foot = foot(&all);
    let heights: Vec<i32> =
        charts.iter().map(|(_, runs)| LEAST.max(NAME * curves(axis, runs).len() as i32 + 60)).collect();
    let charts_height = heights.iter().map(|height| height + CHART_HEAD + CHART_FOOT).sum::<i32>();
    let height = HEAD + charts_height + foot_height(&foot);
    let canvas = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    canvas.fill(&WHITE)?;
    write(&canvas, &format!("{}, by {axis}", heading(area)), (20, 24), 24, INK, HPos::Left)?;
    let legend = "points: median of the rounds; thin lines: best to worst round; both axes in equal factors";
    write(&canvas, legend, (20, 50), 12, GREY, HPos::Left)?;
    let mut top = HEAD;
    for ((name, runs), height) in charts.iter().zip(heights) {
        let title = format!("{name}: {}", figure_of(axis).0);
        write(&canvas, &title, (20, top + 16), 16, INK, HPos::Left)?;
        chart(&canvas, (top + CHART_HEAD, top + CHART_HEAD + height), axis, &curves(axis, runs))?;
        top += height + CHART_HEAD + CHART_FOOT;
    }
    write_foot(&canvas, top, &foot)?;
    canvas.present()?;
    Ok(())
}

fn chart(canvas: &Canvas<'_>, (top, bottom): (i32, i32), axis: &str, curves: &[Curve<'_>]) -> Drawn {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let Some(up) = Scale::factors(points().map(|point| point.1)) else { return Ok(()) };
    let Some(across) = Scale::factors(points().map(|point| point.0)) else { return Ok(()) };
    let x = |at: f64| ACROSS.0 + (f64::from(ACROSS.1 - ACROSS.0) * across.place(at)).round() as i32;
    let y = |figure: f64| bottom - (f64::from(bottom - top) * up.place(figure)).round() as i32;
    for figure in up.ticks() {
        line(canvas, (ACROSS.0, y(figure)), (ACROSS.1, y(figure)), FAINT, 1)?;
        write(canvas, &tick(figure), (ACROSS.0 - 8, y(figure)), 12, GREY, HPos::Right)?;
    }
    let mut numbers: Vec<f64> = points().map(|point| point.0).collect();
    numbers.sort_by(f64::total_cmp);
    numbers.dedup();
    for at in numbers {
        line(canvas, (x(at), top), (x(at), bottom), FAINT, 1)?;
        write(canvas, &number(axis, at), (x(at), bottom + 13), 12, GREY, HPos::Center)?;
    }
    let what = if axis == "processes" { "processes, or threads" } else { axis };
    write(canvas, what, ((ACROSS.0 + ACROSS.1) / 2, bottom + 32), 12, GREY, HPos::Center)?;
    let colours = colours(curves);
    // From above to below, each as near to the end of its curve as those before it leave room.
    let mut order: Vec<usize> = (0..curves.len()).collect();
    let end = |index: usize| curves[index].points.last().copied().unwrap_or_default();
    order.sort_by_key(|index| y(end(*index).1));
    let wanted: Vec<i32> = order.iter().map(|index| y(end(*index).1)).collect();
    let places = spread_out(&wanted, NAME, (top, bottom));
    // Ours last, over the others.
    let mut drawn: Vec<(usize, i32)> = order.into_iter().zip(places).collect();
    drawn.sort_by_key(|(index, _)| curves[*index].who.starts_with("polyproc"));
    for (index, name_at) in drawn {
        let (curve, colour) = (&curves[index], colours[index]);
        let width = if curve.who.starts_with("polyproc") { 3 } else { 1 };
        let at = |point: &Point| (x(point.0), y(point.1));
        for pair in curve.points.windows(2) {
            line(canvas, at(&pair[0]), at(&pair[1]), colour, width)?;
        }
        for point in &curve.points {
            let [low, high] = point.2;
            line(canvas, (x(point.0), y(low)), (x(point.0), y(high)), colour, 1)?;
            canvas.draw(&Circle::new(at(point), if width > 1 { 4 } else { 3 }, colour.filled()))?;
        }
        let last = end(index);
        line(canvas, (x(last.0) + 4, y(last.1)), (NAMES - 4, name_at), FAINT, 1)?;
        write(canvas, curve.who, (NAMES, name_at), 13, colour, HPos::Left)?;
    }
    Ok(())
}

fn colours(curves: &[Curve<'_>]) -> Vec<RGBColor> {
    let (mut own, mut others) = (OWN.iter().cycle(), OTHERS.iter().cycle());
    let of = |curve: &Curve<'_>| match colour(curve.who) {
        OURS => *own.next().expect("a cycle"),
        LIMIT => LIMIT,
        _ => *others.next().expect("a cycle"),
    };
    curves.iter().map(of).collect()
}

/// Places near those that are wanted, which rise, at least so far apart, and between two ends if there is room.
fn spread_out(wanted: &[i32], apart: i32, (first, last): (i32, i32)) -> Vec<i32> {
    let mut places: Vec<i32> = Vec::new();
    for place in wanted {
        places.push(places.last().map_or(first.max(*place), |before| (before + apart).max(*place)));
    }
    let mut limit = last;
    for place in places.iter_mut().rev() {
        *place = limit.min(*place);
        limit = *place - apart;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_touch() {
        assert_eq!(spread_out(&[10, 12, 50], 16, (0, 100)), [10, 26, 50]);
        assert_eq!(spread_out(&[80, 95, 99], 16, (0, 100)), [68, 84, 100]);
        assert_eq!(spread_out(&[-5], 16, (0, 100)), [0]);
    }

    #[test]
    fn numbers_have_units() {
        assert_eq!([number("bytes", 8.0), number("bytes", 65536.0)], ["8 B", "64 KiB"]);
        assert_eq!([number("pairs", 4.0), number("processes", 16.0)], ["4 to 4", "16"]);
    }
}
