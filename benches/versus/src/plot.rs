//! Series as SVG: a logarithmic x axis, a y axis from zero, one line for each name.

use std::fmt::Write;

use crate::report::{Series, figure};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 140.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;
const COLOURS: [&str; 4] = ["#1664c0", "#2b8a3e", "#8a8f98", "#c2410c"];
const Y_STEPS: u32 = 5;

/// The picture of a series.
pub(crate) fn svg(series: &Series) -> String {
    let points = || series.lines.iter().flat_map(|line| line.points.iter().copied());
    let least_x = points().map(|(x, _)| x).fold(f64::INFINITY, f64::min).max(1.0);
    let most_x = points().map(|(x, _)| x).fold(least_x * 10.0, f64::max);
    let most_y = round_up(points().map(|(_, y)| y).fold(0.0, f64::max));
    let x_at = |x: f64| LEFT + (x.max(least_x) / least_x).ln() / (most_x / least_x).ln() * (WIDTH - LEFT - RIGHT);
    let y_at = |y: f64| HEIGHT - BOTTOM - y / most_y * (HEIGHT - TOP - BOTTOM);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#333\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let title = format!("{} ({})", series.title, series.unit);
    text(&mut svg, (LEFT, TOP - 24.0), "start\" font-size=\"15", &title);
    text(&mut svg, (f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 16.0), "middle", series.x);
    for step in 0..=Y_STEPS {
        let value = most_y * f64::from(step) / f64::from(Y_STEPS);
        let y = y_at(value);
        rule(&mut svg, (LEFT, y), (WIDTH - RIGHT, y));
        text(&mut svg, (LEFT - 8.0, y + 4.0), "end", &figure(value));
    }
    let mut xs: Vec<f64> = points().map(|(x, _)| x).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    for x in xs {
        rule(&mut svg, (x_at(x), HEIGHT - BOTTOM), (x_at(x), HEIGHT - BOTTOM + 5.0));
        let label = if x >= 1e6 {
            format!("{} M", x / 1e6)
        } else if x >= 1e3 {
            format!("{} k", x / 1e3)
        } else {
            x.to_string()
        };
        text(&mut svg, (x_at(x), HEIGHT - BOTTOM + 20.0), "middle", &label);
    }
    let mut free_y = f64::INFINITY;
    let mut lines: Vec<_> = series.lines.iter().zip(COLOURS.iter().cycle()).collect();
    // From the lowest up, so that names that would cover each other can be moved upwards.
    let end = |line: &crate::report::Line| line.points.last().map_or(0.0, |point| point.1);
    lines.sort_by(|(one, _), (other, _)| end(one).total_cmp(&end(other)));
    for (line, colour) in lines {
        let way: Vec<String> = line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", x_at(*x), y_at(*y))).collect();
        writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", way.join(" "))
            .ok();
        for (x, y) in &line.points {
            writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x_at(*x), y_at(*y)).ok();
        }
        if let Some((x, y)) = line.points.last() {
            free_y = (y_at(*y) + 4.0).min(free_y - 15.0);
            text(&mut svg, (x_at(*x) + 8.0, free_y), &format!("start\" fill=\"{colour}"), &line.name);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// The next figure up that begins with 1, 2, or 5.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(f64::MIN_POSITIVE).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(1.0)
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>").ok();
}

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    writeln!(svg, "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"#ddd\"/>").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_on_round_figures() {
        let rounded = [3.0, 11.0, 501.0, 1_000.0].map(|value| figure(round_up(value)));
        assert_eq!(rounded, ["5.000", "20.0", "1000", "1000"]);
    }

    #[test]
    fn a_plot_names_its_lines() {
        let mut series = Series { name: "name", title: "a < b", x: "subscribers", unit: "bytes", lines: Vec::new() };
        series.add("hub", 1.0, 2.0);
        series.add("hub", 10.0, 3.0);
        let svg = svg(&series);
        assert!(svg.contains(">hub</text>") && svg.contains("a &lt; b") && !svg.contains("NaN"));
    }
}
