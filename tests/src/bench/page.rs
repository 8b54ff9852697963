//! The results as one page that needs nothing else.

use super::plot::{self, escaped};
use super::results::{Results, Row, steps, typical};
use super::run::Run;
use super::spread::Spread;
use super::table::{COLUMNS, failures, floor, measured_on, sides, spreads};

const STYLE: &str = "body{font:14px/1.4 sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;color:#222}\
    table{border-collapse:collapse;font-size:13px}td,th{border-bottom:1px solid #ddd;padding:3px 8px;text-align:left}\
    td small{color:#777}svg{font:11px sans-serif;max-width:100%}.axis{fill:none;stroke:#999}\
    .plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(340px,1fr));gap:1em}\
    .legend{margin:0;font-size:12px}.legend span{margin-right:1em;white-space:nowrap}\
    .legend i{display:inline-block;width:10px;height:10px;margin-right:4px}h3{font-size:13px;margin:.4em 0}";

pub fn page(results: &Results) -> String {
    let loads: String = results.rows.iter().map(plots).collect();
    let failed: String =
        failures(results).lines().map(|line| paragraph(line.trim_start_matches("- "))).collect();
    format!(
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>migrate: benchmark</title>\
         <style>{STYLE}</style></head><body><h1>migrate: benchmark</h1>{}{}{}{failed}{loads}</body></html>\n",
        paragraph(&measured_on(results)),
        table(results),
        paragraph(&floor(results)),
    )
}

fn paragraph(text: &str) -> String {
    format!("<p>{}</p>", escaped(text))
}

fn table(results: &Results) -> String {
    let head: String = COLUMNS.iter().map(|column| format!("<th>{column}</th>")).collect();
    let lines = results.rows.iter().flat_map(|row| sides(row).map(move |side| (row, side)));
    let lines: String = lines.map(|(row, (who, runs))| line(row, who, runs)).collect();
    format!("<table><tr><th>load</th><th>by</th>{head}</tr>{lines}</table>")
}

fn line(row: &Row, who: &str, runs: &[Run]) -> String {
    let cells: String = spreads(runs).iter().map(|spread| cell(*spread)).collect();
    format!("<tr><td>{}</td><td>{who}</td>{cells}</tr>", escaped(&row.title))
}

fn cell(spread: Option<Spread>) -> String {
    let Some(spread) = spread else { return "<td>–</td>".into() };
    let shown = spread.shown();
    let (median, range) = shown.split_once(' ').unwrap_or((&shown, ""));
    format!("<td><b>{median}</b> <small>{range}</small></td>")
}

fn plots(row: &Row) -> String {
    let bars: Vec<(&str, Vec<(String, Spread)>)> =
        sides(row).map(|(who, runs)| (who, steps(runs))).collect();
    let typical: Vec<(&str, &Run)> =
        sides(row).filter_map(|(who, runs)| Some((who, typical(runs)?))).collect();
    let copied = typical.iter().find(|(_, run)| !run.rounds.is_empty());
    let rounds = copied.map_or_else(String::new, |(_, run)| {
        figure("Rounds of copying", &plot::rounds(&run.rounds))
    });
    format!(
        "<h2>{}</h2><div class='plots'>{}{rounds}{}</div>",
        escaped(&row.title),
        figure("The freeze by step, medians", &plot::freezes(&bars)),
        figure("On the source's link; frozen where it is shaded", &plot::wire(&typical)),
    )
}

fn figure(title: &str, body: &str) -> String {
    format!("<div><h3>{title}</h3>{body}</div>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn it_has_three_plots_for_each_load_and_needs_nothing_from_elsewhere() {
        let page = page(&results());
        assert_eq!(page.matches("<svg").count(), 3);
        for foreign in ["http:", "https:", "<script", "<link", "@import", "src="] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn what_a_program_said_is_text_and_not_markup() {
        let page = page(&results());
        assert!(page.contains("it said &lt;no&gt;") && !page.contains("<no>"));
    }
}
