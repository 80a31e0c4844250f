//! The curve as a picture: throughput to the right, latency upwards, on a logarithmic scale.
//!
//! Data flow: [`Point`]s -> SVG.
//!
//! Not here: what the points are (`curve`).

use std::path::Path;

use plotters::prelude::*;

use super::curve::Point;

const SIZE: (u32, u32) = (900, 560);
/// Of a line of the title: what fits across in its size.
const TITLE_CHARS_MAX: usize = 110;
const LINES: [(&str, RGBColor); 3] = [
    ("p50", RGBColor(0x1b, 0x6c, 0xa8)),
    ("p99", RGBColor(0xc7, 0x6b, 0x00)),
    ("p99.9", RGBColor(0xb0, 0x1e, 0x3c)),
];

/// Draws the curve into a new file, and marks the point `knee`.
///
/// # Errors
/// One line.
pub(super) fn svg(
    path: &Path,
    title: &str,
    points: &[Point],
    knee: Option<usize>,
) -> Result<(), String> {
    draw(path, title, points, knee)
        .map_err(|error| format!("cannot draw {}: {error}", path.display()))
}

/// A command line in lines that fit into the picture.
fn lines(title: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in title.split(' ') {
        match lines.last_mut().filter(|line| line.len() + word.len() < TITLE_CHARS_MAX) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

fn draw(
    path: &Path,
    title: &str,
    points: &[Point],
    knee: Option<usize>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    for line in lines(title) {
        root = root.titled(&line, ("sans-serif", 14))?;
    }
    let most = points.iter().map(|point| point.iops.value).fold(1.0, f64::max);
    let latencies = points.iter().flat_map(|point| point.percentiles_ns).map(microseconds);
    let (low, high) = latencies.fold((f64::INFINITY, 1.0), |(low, high): (f64, f64), latency| {
        (low.min(latency), high.max(latency))
    });
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..most * 1.08, (low * 0.7..high * 1.4).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("thousand I/Os per second")
        .y_desc("latency, microseconds")
        .x_label_formatter(&|iops| format!("{:.0}", iops / 1e3))
        .y_label_formatter(&|us| if *us < 10.0 { format!("{us:.1}") } else { format!("{us:.0}") })
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    for (index, (name, color)) in LINES.into_iter().enumerate() {
        let at = |point: &Point| (point.iops.value, microseconds(point.percentiles_ns[index]));
        let line = LineSeries::new(points.iter().map(at), color.stroke_width(2)).point_size(3);
        chart
            .draw_series(line)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    let at = |point: &Point| (point.iops.value, microseconds(point.percentiles_ns[0]));
    let labels = points.iter().map(|point| {
        let text = (point.value.clone(), ("sans-serif", 12));
        EmptyElement::at(at(point)) + Text::new(text.0, (-4, 8), text.1)
    });
    chart.draw_series(labels)?;
    let mark = knee.and_then(|knee| points.get(knee)).map(|point| {
        EmptyElement::at(at(point))
            + Circle::new((0, 0), 8, BLACK.stroke_width(1))
            + Text::new("knee", (-14, -24), ("sans-serif", 13))
    });
    chart.draw_series(mark)?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .border_style(BLACK.mix(0.2))
        .background_style(WHITE)
        .draw()?;
    root.present()?;
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "a picture shows three digits")]
fn microseconds(ns: u64) -> f64 {
    (ns.max(1)) as f64 / 1e3
}
