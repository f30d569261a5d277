//! The plots: throughput against latency, and the cost of a call against the depth of its key.

use std::path::{Path, PathBuf};

use plotters::{
    chart::{ChartBuilder, ChartContext, SeriesLabelPosition},
    coord::{
        Shift,
        cartesian::Cartesian2d,
        ranged1d::{Ranged, ValueFormatter},
    },
    prelude::{
        Circle, Color as _, DrawingArea, EmptyElement, IntoDrawingArea as _, IntoLogRange as _,
        PathElement, RGBColor, SVGBackend, Text,
    },
    series::{DashedLineSeries, LineSeries},
    style::{BLACK, ShapeStyle, TextStyle, WHITE},
};

use crate::{
    Outcome,
    bench::{CurvePoint, DepthPoint, Findings},
    markdown::grouped,
};

const SIZE: (u32, u32) = (900, 560);
const FONT: &str = "sans-serif";

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the plots that have data, and returns their files.
pub(crate) fn draw(dir: &Path, findings: &Findings) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !findings.curve.is_empty() {
        let file = dir.join("throughput-latency.svg");
        let svg = throughput_against_latency(&findings.curve)?;
        std::fs::write(&file, svg)?;
        files.push(file);
    }
    if !findings.depths.is_empty() {
        let file = dir.join("key-depth.svg");
        let svg = cost_by_depth(&findings.depths)?;
        std::fs::write(&file, svg)?;
        files.push(file);
    }
    Ok(files)
}

fn throughput_against_latency(points: &[CurvePoint]) -> Outcome<String> {
    let mut svg = String::new();
    {
        let canvas = canvas(&mut svg)?;
        let most = points.iter().map(|point| point.per_second.median()).fold(0.0, f64::max);
        let latencies = || points.iter().flat_map(|point| [&point.p50_us, &point.p99_us]);
        let ms = |us: f64| us / 1_000.0;
        let lowest = latencies().map(|us| ms(us.median())).fold(f64::INFINITY, f64::min);
        let highest = latencies().map(|us| ms(us.median())).fold(0.0, f64::max);
        let mut chart = ChartBuilder::on(&canvas)
            .caption("POST /anomalies from 1 to 256 connections", (FONT, 20))
            .margin(16)
            .margin_right(40)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..most * 1.1, (lowest * 0.8..highest * 3.0).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("requests a second")
            .y_desc("latency in ms: p50 solid, p99 dashed")
            .x_label_formatter(&|rate| grouped(*rate))
            .y_label_formatter(&|ms| grouped(*ms))
            .max_light_lines(0)
            .label_style((FONT, 14))
            .axis_desc_style((FONT, 15))
            .draw()?;
        for server in names(points.iter().map(|point| &point.server[..])) {
            let of_server: Vec<_> = points.iter().filter(|point| point.server == server).collect();
            let color = color_of(&server);
            let style = color.stroke_width(2);
            let p50_point =
                |point: &&CurvePoint| (point.per_second.median(), ms(point.p50_us.median()));
            let p99_point =
                |point: &&CurvePoint| (point.per_second.median(), ms(point.p99_us.median()));
            line(&mut chart, &server, of_server.iter().map(p50_point).collect(), style, None)?;
            let upper = of_server.iter().map(p99_point).collect();
            line(&mut chart, "", upper, color.stroke_width(1), Some(6))?;
            chart.draw_series(of_server.iter().map(|point| {
                let text = point.connections.to_string();
                let style = TextStyle::from((FONT, 13)).color(&color);
                EmptyElement::at(p50_point(point)) + Text::new(text, (6, 2), style)
            }))?;
        }
        finish(&mut chart, SeriesLabelPosition::UpperRight)?;
        canvas.present()?;
    }
    Ok(svg)
}

fn cost_by_depth(points: &[DepthPoint]) -> Outcome<String> {
    let mut svg = String::new();
    {
        let canvas = canvas(&mut svg)?;
        let deepest = points.iter().map(|point| point.events).max().unwrap_or(10) as f64;
        let costs = points.iter().flat_map(|point| [&point.record_us, &point.read_us]);
        let highest = costs.map(|us| us.median()).fold(0.0, f64::max);
        let mut chart = ChartBuilder::on(&canvas)
            .caption("One more call about a key that has so many events", (FONT, 20))
            .margin(16)
            .margin_right(40)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d((8.0..deepest * 1.2).log_scale(), 0.0..highest * 1.3)?;
        chart
            .configure_mesh()
            .x_desc("events of the key")
            .y_desc("median in µs: record solid, read dashed")
            .x_label_formatter(&|events| grouped(*events))
            .y_label_formatter(&|us| grouped(*us))
            .max_light_lines(0)
            .label_style((FONT, 14))
            .axis_desc_style((FONT, 15))
            .draw()?;
        for store in names(points.iter().map(|point| point.store)) {
            let of_store: Vec<_> = points.iter().filter(|point| point.store == store).collect();
            let record = |point: &&DepthPoint| (point.events as f64, point.record_us.median());
            let read = |point: &&DepthPoint| (point.events as f64, point.read_us.median());
            let style = color_of(&store).stroke_width(2);
            line(&mut chart, &store, of_store.iter().map(record).collect(), style, None)?;
            line(&mut chart, "", of_store.iter().map(read).collect(), style, Some(6))?;
        }
        finish(&mut chart, SeriesLabelPosition::LowerRight)?;
        canvas.present()?;
    }
    Ok(svg)
}

fn canvas(svg: &mut String) -> Outcome<Canvas<'_>> {
    let canvas = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    // A transparent background can't be read on a dark page.
    canvas.fill(&WHITE)?;
    Ok(canvas)
}

/// Draws a line with its points, which is in the legend if it has a name.
fn line<'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    name: &str,
    points: Vec<(f64, f64)>,
    style: ShapeStyle,
    dash: Option<u32>,
) -> Outcome<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, style.filled())))?;
    let drawn = match dash {
        Some(length) => chart.draw_series(DashedLineSeries::new(points, length, 4, style))?,
        None => chart.draw_series(LineSeries::new(points, style))?,
    };
    if !name.is_empty() {
        drawn.label(name).legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], style));
    }
    Ok(())
}

fn finish<'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    position: SeriesLabelPosition,
) -> Outcome<()>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart
        .configure_series_labels()
        .position(position)
        .margin(12)
        .background_style(WHITE)
        .border_style(BLACK)
        .label_font((FONT, 14))
        .draw()?;
    Ok(())
}

/// Each name once, in order.
fn names<'a>(all: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in all {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn color_of(server: &str) -> RGBColor {
    match server {
        "ceiling" => RGBColor(0x77, 0x77, 0x77),
        "redis" => RGBColor(0xc0, 0x39, 0x2b),
        _ => RGBColor(0x1f, 0x6f, 0xb4),
    }
}
