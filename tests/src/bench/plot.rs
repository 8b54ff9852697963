//! Plots as SVG, to be put into a page: no script, nothing from the network.

use super::run::{Round, Run};
use super::spread::{Spread, short};
use super::wire::throughput;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 24.0;
const TOP: f64 = 14.0;

/// Readable beside each other for those who do not see red and green.
pub(super) const COLOURS: [&str; 8] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999"];

/// What each round has sent, in bars, and what was written again meanwhile: how they converge.
pub(super) fn rounds(rounds: &[Round]) -> String {
    let sent: Vec<f64> = rounds.iter().map(|round| super::cost::mib(round.bytes)).collect();
    let dirty: Vec<f64> =
        rounds.iter().map(|round| super::cost::mib(round.dirty_pages * 4096)).collect();
    let most = most(sent.iter().chain(&dirty).copied());
    let place = |number: usize| place_of(number, rounds.len());
    let width = (WIDTH - LEFT) / float(rounds.len().max(1)) * 0.6;
    let bars = sent.iter().enumerate().map(|(number, mib)| {
        let (x, y) = (place(number) - width / 2.0, height(*mib, most));
        let base = HEIGHT - BOTTOM - y;
        let title = format!("round {}: {} MiB sent", number + 1, short(*mib));
        rectangle(x, y, width, base, COLOURS[0], &title)
    });
    let points = dirty.iter().enumerate().map(|(number, mib)| (place(number), height(*mib, most)));
    let marks = dirty.iter().enumerate().map(|(number, mib)| {
        let (x, y) = (place(number), height(*mib, most));
        let title = format!("round {}: {} MiB written again", number + 1, short(*mib));
        format!(
            "<circle cx='{x:.1}' cy='{y:.1}' r='3.5' fill='{}'><title>{title}</title></circle>",
            COLOURS[5]
        )
    });
    let body: String = bars.chain([line(points, COLOURS[5])]).chain(marks).collect();
    let legend = legend(&[(COLOURS[0], "sent"), (COLOURS[5], "written again meanwhile")]);
    let ends = (1.0, float(rounds.len()));
    framed(&body, &legend, &format!("{} MiB", short(most)), ends, "round")
}

/// What the source's link has carried, with when the program was frozen.
pub(super) fn wire(runs: &[(&str, &Run)]) -> String {
    let end = most(runs.iter().flat_map(|(_, run)| &run.wire).map(|sample| sample.at_ms));
    let rates: Vec<Vec<(f64, f64)>> = runs.iter().map(|(_, run)| throughput(&run.wire)).collect();
    let most = most(rates.iter().flatten().map(|(_, rate)| *rate));
    let x = |ms: f64| LEFT + ms / end * (WIDTH - LEFT);
    let mut body = String::new();
    for ((number, (who, run)), rates) in runs.iter().enumerate().zip(&rates) {
        let colour = COLOURS[number * 5 % COLOURS.len()];
        let frozen = run.steps.iter().map(|step| step.ms).sum::<f64>();
        let width = (x(run.frozen_at_ms + frozen) - x(run.frozen_at_ms)).max(1.0);
        let title = format!("{who}: frozen for {} ms", short(frozen));
        let band =
            rectangle(x(run.frozen_at_ms), TOP, width, HEIGHT - BOTTOM - TOP, colour, &title);
        body += &format!("<g opacity='0.25'>{band}</g>");
        body += &line(rates.iter().map(|(ms, rate)| (x(*ms), height(*rate, most))), colour);
    }
    let names: Vec<(&str, &str)> = runs
        .iter()
        .enumerate()
        .map(|(number, (who, _))| (COLOURS[number * 5 % COLOURS.len()], *who))
        .collect();
    framed(&body, &legend(&names), &format!("{} MiB/s", short(most)), (0.0, end), "ms")
}

/// One bar for each, of the medians of its steps.
pub(super) fn freezes(bars: &[(&str, Vec<(String, Spread)>)]) -> String {
    const BAR: f64 = 26.0;
    let sum =
        |steps: &[(String, Spread)]| steps.iter().map(|(_, spread)| spread.median).sum::<f64>();
    let most = most(bars.iter().map(|(_, steps)| sum(steps)));
    let mut body = String::new();
    let mut y = 4.0;
    for (who, steps) in bars {
        body += &format!("<text x='0' y='{:.1}'>{who}</text>", y + 16.0);
        let mut x = LEFT;
        for (number, (name, spread)) in steps.iter().enumerate() {
            let width = spread.median / most * (WIDTH - LEFT - 70.0);
            let title = format!("{}: {} ms", escaped(name), spread.shown());
            body += &rectangle(x, y, width, BAR - 4.0, COLOURS[number % COLOURS.len()], &title);
            x += width;
        }
        body += &format!(
            "<text x='{:.1}' y='{:.1}'>{} ms</text>",
            x + 4.0,
            y + 16.0,
            short(sum(steps))
        );
        y += BAR;
    }
    let legends: String = bars.iter().map(|(who, steps)| step_legend(who, steps)).collect();
    format!(
        "<svg viewBox='0 0 {WIDTH} {y:.0}' width='{WIDTH}' height='{y:.0}'>{body}</svg>{legends}"
    )
}

/// Steps too short to be seen have no place in it.
fn step_legend(who: &str, steps: &[(String, Spread)]) -> String {
    let all: f64 = steps.iter().map(|(_, spread)| spread.median).sum();
    let seen = steps.iter().enumerate().filter(|(_, (_, spread))| spread.median > all / 50.0);
    let names: Vec<(&str, String)> = seen
        .map(|(number, (name, spread))| {
            (COLOURS[number % COLOURS.len()], format!("{} {}", escaped(name), short(spread.median)))
        })
        .collect();
    let names: Vec<(&str, &str)> =
        names.iter().map(|(colour, name)| (*colour, name.as_str())).collect();
    format!("<p class='legend'>{who}: {}</p>", squares(&names))
}

fn legend(names: &[(&str, &str)]) -> String {
    format!("<p class='legend'>{}</p>", squares(names))
}

fn squares(names: &[(&str, &str)]) -> String {
    let square = |(colour, name): &(&str, &str)| {
        format!("<span><i style='background:{colour}'></i>{name}</span> ")
    };
    names.iter().map(square).collect()
}

/// With the largest value at its axis, and both ends of the other one.
fn framed(body: &str, legend: &str, most: &str, ends: (f64, f64), unit: &str) -> String {
    let base = HEIGHT - BOTTOM;
    let axes = format!("<path class='axis' d='M{LEFT} {TOP} V{base} H{WIDTH}'/>");
    let labels = format!(
        "<text x='{:.0}' y='{:.0}' text-anchor='end'>{most}</text>\
         <text x='{LEFT}' y='{y}'>{}</text><text x='{WIDTH}' y='{y}' text-anchor='end'>{} {unit}</text>",
        LEFT - 4.0,
        TOP + 8.0,
        tick(ends.0),
        tick(ends.1),
        y = HEIGHT - 6.0
    );
    format!(
        "<svg viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}'>{body}{axes}{labels}</svg>{legend}"
    )
}

fn tick(value: f64) -> String {
    format!("{value:.0}")
}

fn line(points: impl Iterator<Item = (f64, f64)>, colour: &str) -> String {
    let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    format!(
        "<polyline fill='none' stroke='{colour}' stroke-width='1.5' points='{}'/>",
        points.join(" ")
    )
}

fn rectangle(x: f64, y: f64, width: f64, height: f64, colour: &str, title: &str) -> String {
    format!(
        "<rect x='{x:.1}' y='{y:.1}' width='{width:.1}' height='{height:.1}' fill='{colour}'>\
         <title>{title}</title></rect>"
    )
}

fn height(value: f64, most: f64) -> f64 {
    HEIGHT - BOTTOM - value / most * (HEIGHT - BOTTOM - TOP)
}

/// The middle of the place of one among many.
fn place_of(number: usize, count: usize) -> f64 {
    LEFT + (WIDTH - LEFT) * (float(number) + 0.5) / float(count.max(1))
}

/// Never 0, so that it can be divided by.
fn most(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::MIN_POSITIVE, f64::max)
}

#[expect(clippy::cast_precision_loss, reason = "a number of rounds")]
fn float(count: usize) -> f64 {
    count as f64
}

/// As text in HTML.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::run;

    #[test]
    fn the_largest_round_reaches_the_top_and_the_smallest_the_base() {
        let round = |mib: u64, dirty_pages| Round {
            bytes: mib << 20,
            duration_ms: 1.0,
            dirty_pages,
            predicted_ms: 1.0,
        };
        let svg = rounds(&[round(64, 0), round(0, 0)]);
        let full = HEIGHT - BOTTOM - TOP;
        assert!(svg.contains(&format!("height='{full:.1}'")), "{svg}");
        assert!(svg.contains("height='0.0'") && svg.contains("round 1: 64.0 MiB sent"), "{svg}");
    }

    #[test]
    fn nothing_at_all_is_still_a_plot() {
        for svg in [rounds(&[]), wire(&[]), freezes(&[])] {
            assert!(
                svg.starts_with("<svg") && !svg.contains("NaN") && !svg.contains("inf"),
                "{svg}"
            );
        }
    }

    #[test]
    fn throughput_is_drawn_with_its_freeze() {
        let svg = wire(&[("migrate", &run(8.0))]);
        assert!(svg.contains("frozen for 8.00 ms") && svg.contains("512 MiB/s"), "{svg}");
    }
}
