//! The report as one page: a timeline of faults over throughput, latency and gaps, as SVG in the page itself.

use std::fmt::Write as _;
use std::time::Duration;

use crate::chaos::nemesis::{Fault, Status};
use crate::chaos::report::Report;

const WIDTH: f64 = 1400.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 30.0;
const PLOT: f64 = 150.0;
const ROW: f64 = 16.0;

const HELD: &str = "#c60";
const HEALING: &str = "#f3c98b";
const UNSEEN: &str = "#999";
const GAP: &str = "#edbfbf";
const MAIN: &str = "#2a7de1";
const BAD: &str = "#b00";
const SLOWEST: &str = "#c60";

const STYLE: &str = "body{font:14px/1.4 system-ui,sans-serif;margin:2em auto;max-width:1440px;color:#222;background:#fff}\
.legend span{margin-right:1.4em;white-space:nowrap}.legend i{display:inline-block;width:14px;height:10px;margin-right:.4em}\
.num{text-align:right}h1{font-size:20px}h2{font-size:16px;margin-top:1.6em}table{border-collapse:collapse}td,th{padding:2px 10px;text-align:left;border-bottom:1px solid #ddd}\
pre{background:#f4f4f4;padding:1em;overflow:auto}svg{width:100%;height:auto}text{font:11px system-ui,sans-serif;fill:#333}\
.passed{color:#060}.failed{color:#b00}.installed{fill:#c60}.indeterminate{fill:#999}.skipped{fill:#ccc}.healing{fill:#f3c98b}.gap{fill:#b00;opacity:.25}\
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}pre{background:#222}text{fill:#ccc}td,th{border-color:#444}.passed{color:#6c6}.failed{color:#f66}}";

/// The whole page.
pub fn page(report: &Report<'_>) -> String {
    let verdict = report.verdict();
    let class = if verdict.code() == 0 { "passed" } else { "failed" };
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>chaos: {name}</title>\
<style>{STYLE}</style><h1>Chaos with {nodes} nodes: <span class=\"{class}\">{name}</span></h1><pre>{text}</pre>",
        name = escape(verdict.name()),
        nodes = report.options.nodes,
        text = escape(&report.text()),
    );
    page += "<h2>Timeline</h2>";
    page += &legend();
    page += &timeline(report);
    page += "<h2>Faults</h2><table><tr><th>at</th><th>fault</th><th>status</th><th>whom</th><th>held</th><th>served after</th><th>longest gap</th><th>longest call</th><th>how that is known</th></tr>";
    for fault in report.faults {
        page += &row(fault, report);
    }
    page += "</table></html>\n";
    page
}

/// What each colour means.
fn legend() -> String {
    let key = |colour: &str, what: &str| format!("<span><i style=\"background:{colour}\"></i>{what}</span>");
    let keys = [
        key(HELD, "fault held"),
        key(HEALING, "until all nodes agreed and wrote again"),
        key(UNSEEN, "fault not shown to be there"),
        key(GAP, "more than 250 ms without an acknowledged write"),
        key(MAIN, "answers per second; median latency"),
        key(BAD, "refused or not known, per second"),
        key(SLOWEST, "slowest answer"),
    ];
    format!("<p class=\"legend\">{}</p>", keys.concat())
}

fn row(fault: &Fault, report: &Report<'_>) -> String {
    let (status, why) = fault.status.parts();
    let end = fault.healed + fault.served.unwrap_or_default();
    format!(
        "<tr><td class=\"num\">{:.1} s</td><td>{}</td><td>{status}</td><td>{}</td><td class=\"num\">{:.1} s</td>\
<td class=\"num\">{}</td><td class=\"num\">{:.2} s</td><td class=\"num\">{:.2} s</td><td>{}</td></tr>",
        fault.began.as_secs_f64(),
        fault.kind.name(),
        escape(&fault.target),
        (fault.healed - fault.began).as_secs_f64(),
        fault.served.map_or("never".to_owned(), |served| format!("{:.2} s", served.as_secs_f64())),
        report.figures.gap_within(fault.began, end).as_secs_f64(),
        report.figures.call_within(fault.began, end).as_secs_f64(),
        escape(why)
    )
}

/// From time to place.
struct Scale {
    seconds: f64,
}

impl Scale {
    fn x(&self, at: Duration) -> f64 {
        LEFT + (at.as_secs_f64() / self.seconds).min(1.0) * (WIDTH - LEFT - RIGHT)
    }
}

fn timeline(report: &Report<'_>) -> String {
    let scale = Scale { seconds: report.lasted.as_secs_f64().max(1.0) };
    let mut kinds: Vec<&str> = report.faults.iter().map(|fault| fault.kind.name()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let faults_height = kinds.len() as f64 * ROW;
    let height = faults_height + 2.0 * (PLOT + 30.0) + 40.0;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"timeline\">");
    for (from, to) in &report.figures.gaps {
        rectangle(&mut svg, "gap", (scale.x(*from), scale.x(*to)), (0.0, height - 30.0), "no acknowledged write");
    }
    for (at, kind) in kinds.iter().enumerate() {
        let _ = write!(svg, "<text x=\"4\" y=\"{:.1}\">{kind}</text>", at as f64 * ROW + 12.0);
    }
    for fault in report.faults {
        let at = kinds.iter().position(|kind| *kind == fault.kind.name()).unwrap_or(0);
        let y = at as f64 * ROW + 2.0;
        let (status, _) = fault.status.parts();
        let tip = fault.line();
        rectangle(&mut svg, status, (scale.x(fault.began), scale.x(fault.healed)), (y, y + ROW - 4.0), &tip);
        if let (Some(served), Status::Installed(_)) = (fault.served, &fault.status) {
            rectangle(&mut svg, "healing", (scale.x(fault.healed), scale.x(fault.healed + served)), (y, y + ROW - 4.0), &tip);
        }
    }
    let seconds = &report.figures.seconds;
    let answered: Vec<f64> = seconds.iter().map(|second| second.answered as f64).collect();
    let unanswered: Vec<f64> = seconds.iter().map(|second| (second.refused + second.ambiguous) as f64).collect();
    plot(&mut svg, &scale, faults_height + 20.0, "answers/s", &[(&answered, MAIN), (&unanswered, BAD)]);
    let median: Vec<f64> = seconds.iter().map(|second| second.median.as_secs_f64() * 1e3).collect();
    let slowest: Vec<f64> = seconds.iter().map(|second| second.slowest.as_secs_f64() * 1e3).collect();
    plot(&mut svg, &scale, faults_height + 50.0 + PLOT, "latency, ms", &[(&slowest, SLOWEST), (&median, MAIN)]);
    for second in (0..=scale.seconds as u64).step_by(step(scale.seconds)) {
        let x = scale.x(Duration::from_secs(second));
        let _ = write!(
            svg,
            "<path d=\"M{x:.1} {:.1}v5\" stroke=\"#999\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second} s</text>",
            height - 28.0,
            height - 10.0
        );
    }
    svg + "</svg>"
}

/// Seconds between two marks of the axis: a round number, and a dozen marks at most.
fn step(seconds: f64) -> usize {
    let round = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800];
    round.into_iter().find(|step| seconds / *step as f64 <= 12.0).unwrap_or(3600)
}

fn rectangle(svg: &mut String, class: &str, (from, to): (f64, f64), (top, bottom): (f64, f64), tip: &str) {
    let width = (to - from).max(1.5);
    let _ = write!(
        svg,
        "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
        bottom - top,
        escape(tip)
    );
}

/// One value a second.
fn plot(svg: &mut String, scale: &Scale, top: f64, label: &str, lines: &[(&[f64], &str)]) {
    let highest = lines.iter().flat_map(|(values, _)| values.iter().copied()).fold(1.0, f64::max);
    let bottom = top + PLOT;
    let _ = write!(
        svg,
        "<text x=\"4\" y=\"{:.1}\">{label}</text><text x=\"4\" y=\"{:.1}\">{highest:.0}</text><text x=\"4\" y=\"{bottom:.1}\">0</text>\
<path d=\"M{LEFT} {top:.1}V{bottom:.1}H{:.1}\" fill=\"none\" stroke=\"#999\"/>",
        top + PLOT / 2.0,
        top + 10.0,
        WIDTH - RIGHT
    );
    for (values, color) in lines {
        let point = |(second, value): (usize, &f64)| {
            format!("{:.1},{:.1}", scale.x(Duration::from_secs(second as u64)), bottom - value / highest * PLOT)
        };
        let points: Vec<String> = values.iter().enumerate().map(point).collect();
        let _ = write!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.2\"/>", points.join(" "));
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[test]
fn text_from_a_log_stays_text() {
    assert_eq!(escape("<script>\"&"), "&lt;script&gt;&quot;&amp;");
}

#[test]
fn the_axis_has_round_marks_and_not_too_many() {
    for (seconds, expected) in [(1.0, 1), (121.0, 15), (450.0, 60), (3600.0, 300), (36_000.0, 3600)] {
        assert_eq!(step(seconds), expected, "{seconds}");
    }
}
