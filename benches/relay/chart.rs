//! Draws measured values as pictures: horizontal bars, written as SVG by hand.
//!
//! A chart library would add a dozen crates for one rectangle and one text per line.

use crate::{
    goals::Goal,
    machine::Machine,
    measure::{Measure, float},
    number::{number, number_of},
    report::Row,
    table::goal,
};

const WIDTH: f64 = 1040.0;
/// Horizontal position at which all bars begin, in pixels. Their names stand left of it.
const LEFT: f64 = 350.0;
/// Length of the longest bar, in pixels. The numbers stand right of it.
const LENGTH: f64 = 420.0;
const HEAD: f64 = 96.0;
/// Largest number of characters in a line of small print.
const COLUMNS: usize = 160;
const LINE: f64 = 26.0;
const BAR: f64 = 16.0;

const REACHED: &str = "#2e8b57";
const MISSED: &str = "#c8553d";
const CEILING: &str = "#c9d3dc";
const DRAINED: &str = "#2f6690";

/// Longest bar, as a multiple of the goal. Longer bars are cut there.
const GOALS_MAX: f64 = 2.0;

/// Draws a bar for each measure that has a goal: its median as a share of the goal.
pub(crate) fn goals(machine: &Machine, measures: &[Measure]) -> String {
    let judged: Vec<(&Measure, Goal, f64)> = measures
        .iter()
        .filter_map(|measure| {
            let goal = measure.goal?;
            let (Goal::AtLeast(bound) | Goal::AtMost(bound)) = goal;
            // Measures whose goal is zero are left out, because no share of zero exists.
            (bound > 0.0).then(|| (measure, goal, measure.median() / bound))
        })
        .collect();
    let title = "Medians as shares of their targets";
    let mut svg = Svg::new(title, machine, judged.len());
    for (number_of_line, (measure, bound, share)) in judged.iter().enumerate() {
        let top = svg.line(number_of_line, &measure.name);
        let colour = if measure.verdict() == Some(true) { REACHED } else { MISSED };
        let length = share.clamp(0.0, GOALS_MAX) / GOALS_MAX * LENGTH;
        svg.bar(top, BAR, length, colour);
        let text = format!("{} {}", number(measure.median()), measure.unit);
        svg.text(LEFT + LENGTH + 8.0, top, &format!("{} ({})", text.trim_end(), goal(*bound)));
    }
    svg.rule(LEFT + LENGTH / GOALS_MAX, "target", judged.len());
    svg.end()
}

/// Draws a pair of bars for each drain: events drained per second over the rate of bare publishing.
pub(crate) fn drains(machine: &Machine, rows: &[Row]) -> String {
    let title = "Events a second: drained (dark) over bare publishing (light)";
    let mut svg = Svg::new(title, machine, rows.len());
    let rates = rows.iter().flat_map(|row| [row.rate, row.ceiling_rate]);
    let most = rates.fold(1.0, f64::max);
    for (number_of_line, row) in rows.iter().enumerate() {
        let name = format!("{} · {}", row.name, number_of(row.events));
        let top = svg.line(number_of_line, &name);
        svg.bar(top, BAR, row.ceiling_rate / most * LENGTH, CEILING);
        svg.bar(top + BAR / 4.0, BAR / 2.0, row.rate / most * LENGTH, DRAINED);
        let text = format!("{} of {}", number(row.rate), number(row.ceiling_rate));
        svg.text(LEFT + LENGTH + 8.0, top, &text);
    }
    svg.end()
}

/// SVG text of a picture that grows line by line.
struct Svg(String);

impl Svg {
    fn new(title: &str, machine: &Machine, lines: usize) -> Self {
        let height = HEAD + LINE * float(lines as u64) + 16.0;
        let mut svg = Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        ));
        svg.push(&format!(
            "<text x=\"16\" y=\"28\" font-size=\"17\" font-weight=\"600\">{}</text>",
            escaped(title)
        ));
        for (number, line) in (0_u64..).zip(wrapped(&machine.to_string())) {
            let (y, line) = (46.0 + 14.0 * float(number), escaped(&line));
            svg.push(&format!(
                "<text x=\"16\" y=\"{y}\" font-size=\"11\" fill=\"#5c6670\">{line}</text>"
            ));
        }
        svg
    }

    fn push(&mut self, element: &str) {
        self.0.push_str(element);
        self.0.push('\n');
    }

    /// Adds the name of a line. Returns the vertical position of the line's bar.
    fn line(&mut self, number: usize, name: &str) -> f64 {
        let top = HEAD + LINE * float(number as u64);
        let (x, y) = (LEFT - 10.0, top + BAR - 3.0);
        let name = escaped(name);
        self.push(&format!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{name}</text>"));
        top
    }

    fn bar(&mut self, top: f64, height: f64, length: f64, colour: &str) {
        self.push(&format!(
            "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{length:.1}\" height=\"{height}\" fill=\"{colour}\"/>"
        ));
    }

    fn text(&mut self, left: f64, top: f64, text: &str) {
        let y = top + BAR - 3.0;
        self.push(&format!("<text x=\"{left}\" y=\"{y}\">{}</text>", escaped(text)));
    }

    /// Adds a dashed vertical line across all lines of the picture.
    fn rule(&mut self, left: f64, name: &str, lines: usize) {
        let (top, bottom) = (HEAD - 6.0, HEAD + LINE * float(lines as u64));
        self.push(&format!(
            "<line x1=\"{left}\" y1=\"{top}\" x2=\"{left}\" y2=\"{bottom}\" stroke=\"#20262c\" \
             stroke-dasharray=\"3 3\"/>"
        ));
        let y = top - 4.0;
        self.push(&format!(
            "<text x=\"{left}\" y=\"{y}\" font-size=\"11\" text-anchor=\"middle\">{name}</text>"
        ));
    }

    fn end(mut self) -> String {
        self.push("</svg>");
        self.0
    }
}

/// Breaks a text with commas into lines of at most [`COLUMNS`] bytes.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for part in text.split_inclusive(", ") {
        if let Some(line) = lines.last_mut().filter(|line| line.len() + part.len() <= COLUMNS) {
            line.push_str(part);
        } else {
            lines.push(part.to_owned());
        }
    }
    lines
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
