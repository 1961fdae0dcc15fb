//! Bar charts as SVG, written by hand: throughput, CPU per GiB, latency, memory.
//!
//! One panel for each number of peers, one bar for each server: the bar is the median, the whisker
//! the lowest and the highest run. The picture brings its own background and follows the reader's
//! colour scheme, so it can be read in light and dark, whatever page it is on. No plotting library,
//! no fonts.

use std::fmt::Write as _;

use super::report::{Comparison, Row, ServerPart};
use super::run::Kind;
use super::statistics::Spread;

const PANEL_WIDTH: f64 = 270.0;
const PANELS_PER_LINE: usize = 3;
const LABEL_WIDTH: f64 = 120.0;
/// Room right of the longest bar, for its number.
const NUMBER_WIDTH: f64 = 62.0;
const BAR_HEIGHT: f64 = 16.0;
const BAR_STEP: f64 = 24.0;
const TITLE_HEIGHT: f64 = 52.0;
const PANEL_TITLE_HEIGHT: f64 = 26.0;
const MARGIN: f64 = 16.0;
/// About the width of a letter of the labels.
const LETTER_WIDTH: f64 = 7.2;

/// A file's name and what is in it.
pub type Picture = (&'static str, String);

/// All pictures that the comparison has figures for.
pub fn pictures(comparison: &Comparison) -> Vec<Picture> {
    let closed = |row: &&Row| row.kind == Kind::Closed;
    let has_open = comparison.rows.iter().any(|row| row.kind != Kind::Closed);
    let latency = move |row: &&Row| !has_open || row.kind != Kind::Closed;
    let latency_title = match has_open {
        true => "Latency, 99th percentile, open loop (ms, less is better)",
        false => "Latency, 99th percentile, closed loop (ms, less is better)",
    };
    let mebi = 1.0 / f64::from(1 << 20);
    let charts = [
        (
            "throughput.svg",
            Chart {
                title: "Throughput of one pinned server (GB/s, more is better)",
                is_logarithmic: false,
                digits: 2,
                panels: panels(comparison, closed, |row| row.gigabytes_per_s, 1.0),
            },
        ),
        (
            "cpu.svg",
            Chart {
                title: "CPU per GiB served (s, less is better)",
                is_logarithmic: false,
                digits: 3,
                panels: panels(comparison, closed, |row| row.cpu_s_per_gib, 1.0),
            },
        ),
        (
            "latency.svg",
            Chart {
                title: latency_title,
                is_logarithmic: true,
                digits: 2,
                panels: panels(comparison, latency, |row| row.latency_p99_us, 1e-3),
            },
        ),
        (
            "memory.svg",
            Chart {
                title: "Memory, resident (MiB, less is better)",
                is_logarithmic: true,
                digits: 0,
                panels: panels(comparison, closed, |row| row.resident_bytes, mebi),
            },
        ),
    ];
    let drawn = charts
        .into_iter()
        .filter(|(_, chart)| chart.panels.iter().any(|panel| panel.has_values()));
    drawn.map(|(name, chart)| (name, chart.draw())).collect()
}

fn panels(
    comparison: &Comparison,
    wanted: impl Fn(&&Row) -> bool,
    value: fn(&Row) -> Option<Spread>,
    factor: f64,
) -> Vec<Panel> {
    let mut panels: Vec<Panel> = Vec::new();
    for row in comparison.rows.iter().filter(wanted) {
        let title = match row.peers {
            1 => "1 peer".to_owned(),
            peers => format!("{peers} peers"),
        };
        let server = comparison
            .head
            .servers
            .iter()
            .find(|one| one.name == row.server);
        let bar = Bar {
            label: row.server.clone(),
            spread: value(row).map(|spread| spread.scaled(factor)),
            class: class(server),
            is_verdict: row.is_verdict,
        };
        match panels.last_mut().filter(|panel| panel.title == title) {
            Some(panel) => panel.bars.push(bar),
            None => panels.push(Panel {
                title,
                bars: vec![bar],
            }),
        }
    }
    panels
}

fn class(server: Option<&ServerPart>) -> &'static str {
    match server {
        Some(server) if server.is_ours => "ours",
        Some(server) if server.is_floor() => "floor",
        _ => "rival",
    }
}

struct Chart {
    title: &'static str,
    is_logarithmic: bool,
    digits: usize,
    panels: Vec<Panel>,
}

struct Panel {
    title: String,
    bars: Vec<Bar>,
}

impl Panel {
    fn has_values(&self) -> bool {
        self.bars.iter().any(|bar| bar.spread.is_some())
    }
}

struct Bar {
    label: String,
    spread: Option<Spread>,
    class: &'static str,
    is_verdict: bool,
}

/// Where a value lies, from 0 to 1; the same for all panels of a chart.
struct Scale {
    low: f64,
    high: f64,
    is_logarithmic: bool,
}

impl Scale {
    fn of(chart: &Chart) -> Self {
        let bars = chart.panels.iter().flat_map(|panel| &panel.bars);
        let spreads: Vec<Spread> = bars.filter_map(|bar| bar.spread).collect();
        let high = spreads.iter().map(|spread| spread.max).fold(0.0, f64::max);
        let above_0 = spreads
            .iter()
            .map(|spread| spread.min)
            .filter(|&min| min > 0.0);
        let low = above_0.fold(f64::INFINITY, f64::min);
        if chart.is_logarithmic && low.is_finite() {
            // The shortest bar still has a length.
            Self {
                low: low / 2.0,
                high: high.max(low),
                is_logarithmic: true,
            }
        } else {
            Self {
                low: 0.0,
                high: if high > 0.0 { high } else { 1.0 },
                is_logarithmic: false,
            }
        }
    }

    fn place(&self, value: f64) -> f64 {
        let place = if self.is_logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            value / self.high
        };
        place.clamp(0.0, 1.0)
    }
}

impl Chart {
    fn draw(&self) -> String {
        let lines = self.panels.len().div_ceil(PANELS_PER_LINE);
        let bars = self.panels.iter().map(|panel| panel.bars.len()).max();
        let panel_height = PANEL_TITLE_HEIGHT + bars.unwrap_or(0) as f64 * BAR_STEP + MARGIN;
        let label_width = self.label_width();
        let columns = self.panels.len().clamp(1, PANELS_PER_LINE) as f64;
        let title_width = self.title.len() as f64 * 9.6 + 2.0 * MARGIN;
        let width = (label_width + columns * PANEL_WIDTH + 2.0 * MARGIN).max(title_width);
        let height = TITLE_HEIGHT + lines as f64 * panel_height;
        let scale = Scale::of(self);
        let mut out = head(self.title, width, height);
        let note = match scale.is_logarithmic {
            true => {
                "logarithmic scale; median of the runs, whiskers from the lowest to the highest"
            }
            false => "median of the runs, whiskers from the lowest to the highest",
        };
        text(&mut out, MARGIN, 42.0, "note", note);
        for (at, panel) in self.panels.iter().enumerate() {
            let (line, column) = (at / PANELS_PER_LINE, at % PANELS_PER_LINE);
            let x = MARGIN + label_width + column as f64 * PANEL_WIDTH;
            let y = TITLE_HEIGHT + line as f64 * panel_height;
            text(&mut out, x, y + 16.0, "panel", &panel.title);
            for (place, bar) in panel.bars.iter().enumerate() {
                let y = y + PANEL_TITLE_HEIGHT + place as f64 * BAR_STEP;
                if column == 0 {
                    let middle = y + BAR_HEIGHT - 4.0;
                    text(&mut out, MARGIN, middle, "label", &bar.label);
                }
                self.draw_bar(&mut out, &scale, bar, x, y);
            }
        }
        out.push_str("</svg>\n");
        out
    }

    fn label_width(&self) -> f64 {
        let labels = self.panels.iter().flat_map(|panel| &panel.bars);
        let longest = labels.map(|bar| bar.label.chars().count()).max();
        (longest.unwrap_or(0) as f64 * LETTER_WIDTH + 8.0).max(LABEL_WIDTH)
    }

    fn draw_bar(&self, out: &mut String, scale: &Scale, bar: &Bar, x: f64, y: f64) {
        let room = PANEL_WIDTH - NUMBER_WIDTH - MARGIN;
        let Some(spread) = bar.spread else {
            text(out, x + 4.0, y + BAR_HEIGHT - 4.0, "number", "–");
            return;
        };
        let length = |value: f64| scale.place(value) * room;
        let (median, min, max) = (
            length(spread.median),
            length(spread.min),
            length(spread.max),
        );
        let class = match bar.is_verdict {
            true => bar.class.to_owned(),
            false => format!("{} limited", bar.class),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{median:.1}\" \
             height=\"{BAR_HEIGHT:.1}\" rx=\"2\"/>"
        );
        if max > min {
            let (middle, top, bottom) = (y + BAR_HEIGHT / 2.0, y + 4.0, y + BAR_HEIGHT - 4.0);
            let (left, right) = (x + min, x + max);
            let _ = writeln!(
                out,
                "<path class=\"whisker\" d=\"M{left:.1} {middle:.1}H{right:.1}M{left:.1} \
                 {top:.1}V{bottom:.1}M{right:.1} {top:.1}V{bottom:.1}\"/>"
            );
        }
        let digits = self.digits;
        let mark = if bar.is_verdict { "" } else { " †" };
        let number = format!("{:.digits$}{mark}", spread.median);
        let end = x + median.max(max) + 5.0;
        text(out, end, y + BAR_HEIGHT - 4.0, "number", &number);
    }
}

fn head(title: &str, width: f64, height: f64) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">\n<title>{}</title>\n",
        escaped(title)
    );
    out.push_str(
        "<style>
text { font: 12px ui-sans-serif, system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 15px; font-weight: 600; }
.panel { font-size: 13px; font-weight: 600; }
.note { font-size: 11px; fill: #59636e; }
.background { fill: #ffffff; }
.ours { fill: #0969da; }
.rival { fill: #9aa4af; }
.floor { fill: none; stroke: #9aa4af; stroke-dasharray: 4 2; }
.limited { fill-opacity: 0.45; }
.whisker { stroke: #1f2328; stroke-width: 1.3; fill: none; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.note { fill: #9198a1; }
.background { fill: #0d1117; }
.ours { fill: #4493f8; }
.rival { fill: #656d76; }
.floor { stroke: #858d96; }
.whisker { stroke: #e6edf3; }
}
</style>\n",
    );
    out.push_str("<rect class=\"background\" width=\"100%\" height=\"100%\"/>\n");
    text(&mut out, MARGIN, 24.0, "title", title);
    out
}

fn text(out: &mut String, x: f64, y: f64, class: &str, content: &str) {
    let content = escaped(content);
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{content}</text>"
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rivals::report::tests::comparison;

    #[test]
    fn every_server_has_its_bar_in_every_picture() {
        let comparison = comparison();
        let pictures = pictures(&comparison);
        let names: Vec<&str> = pictures.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            ["throughput.svg", "cpu.svg", "latency.svg", "memory.svg"]
        );
        for (name, picture) in &pictures {
            assert!(
                picture.starts_with("<svg ") && picture.ends_with("</svg>\n"),
                "{name}"
            );
            assert!(picture.contains("prefers-color-scheme: dark"), "{name}");
            assert!(picture.contains("a&lt;b"), "{name}: a label is escaped");
            for bad in ["NaN", "inf", "a<b"] {
                assert!(!picture.contains(bad), "{name}: {bad}");
            }
        }
        let throughput = &pictures[0].1;
        assert_eq!(
            throughput.matches("class=\"ours\"").count(),
            2,
            "16 and 200 peers"
        );
        assert_eq!(throughput.matches("class=\"rival limited\"").count(), 1);
        assert_eq!(throughput.matches("class=\"floor\"").count(), 1);
        assert!(throughput.contains("16 peers") && throughput.contains("200 peers"));
        assert!(throughput.contains(">–<"), "a server without figures");
    }

    #[test]
    fn the_longest_bar_fits_and_lengths_are_in_proportion() {
        let linear = Scale {
            low: 0.0,
            high: 8.0,
            is_logarithmic: false,
        };
        assert_eq!((linear.place(8.0), linear.place(2.0)), (1.0, 0.25));
        let decades = Scale {
            low: 1.0,
            high: 100.0,
            is_logarithmic: true,
        };
        assert_eq!((decades.place(100.0), decades.place(10.0)), (1.0, 0.5));
        assert_eq!(decades.place(0.0), 0.0);
    }
}
