//! The tables of a report as bar charts, SVG written by hand. A picture is made of
//! the table's own text, so it cannot say anything else.

use std::fmt::Write;

const LABEL: f64 = 390.0;
const BARS: f64 = 420.0;
const BAR: f64 = 16.0;
const TOP: f64 = 58.0;

/// One comparison: the rows of one section that share a unit.
struct Comparison {
    file: &'static str,
    title: &'static str,
    /// How the title of its section begins.
    section: &'static str,
    unit: &'static str,
    systems: &'static [System],
}

#[derive(Clone, Copy)]
struct System {
    /// Its column, behind that of the measures.
    column: usize,
    name: &'static str,
    colour: &'static str,
}

const DIRECT: System = System {
    column: 0,
    name: "direct",
    colour: "#ced4da",
};
const ENVOY: System = System {
    column: 1,
    name: "Envoy",
    colour: "#9aa5b1",
};
const WEFT: System = System {
    column: 2,
    name: "Weft",
    colour: "#0b7285",
};

const fn comparison(
    file: &'static str,
    title: &'static str,
    section: &'static str,
    unit: &'static str,
    systems: &'static [System],
) -> Comparison {
    Comparison {
        file,
        title,
        section,
        unit,
        systems,
    }
}

const COMPARISONS: &[Comparison] = &[
    comparison(
        "cpu-per-request.svg",
        "CPU per request, both proxies, microseconds",
        "CPU per request",
        "µs",
        &[ENVOY, WEFT],
    ),
    comparison(
        "rates.svg",
        "Highest rates, per second",
        "Highest rates",
        "1/s",
        &[DIRECT, ENVOY, WEFT],
    ),
    comparison(
        "latency.svg",
        "Latency at a fixed rate, microseconds",
        "Latency",
        "µs",
        &[DIRECT, ENVOY, WEFT],
    ),
    comparison(
        "tcp-rate.svg",
        "Bytes over TCP, GiB per second",
        "Bytes over TCP",
        "GiB/s",
        &[DIRECT, ENVOY, WEFT],
    ),
    comparison(
        "tcp-cpu.svg",
        "Bytes over TCP, seconds of CPU per GiB, both proxies",
        "Bytes over TCP",
        "s/GiB",
        &[ENVOY, WEFT],
    ),
    comparison(
        "http-rate.svg",
        "Bytes over HTTP, GiB per second",
        "Bytes over HTTP",
        "GiB/s",
        &[DIRECT, ENVOY, WEFT],
    ),
    comparison(
        "http-cpu.svg",
        "Bytes over HTTP, seconds of CPU per GiB, both proxies",
        "Bytes over HTTP",
        "s/GiB",
        &[ENVOY, WEFT],
    ),
    comparison(
        "memory.svg",
        "Resident memory, MB",
        "Resident memory",
        "MB",
        &[ENVOY, WEFT],
    ),
    comparison(
        "memory-per-connection.svg",
        "Resident memory per idle connection, both proxies, KiB",
        "Resident memory",
        "KiB",
        &[ENVOY, WEFT],
    ),
    comparison(
        "start.svg",
        "Start, a scrape, a change of endpoints, milliseconds",
        "Start",
        "ms",
        &[ENVOY, WEFT],
    ),
];

/// Name and text of each picture for which `report` has figures of both proxies.
pub(crate) fn pictures(report: &str) -> Vec<(&'static str, String)> {
    COMPARISONS
        .iter()
        .filter_map(|comparison| {
            let rows = rows_of(report, comparison);
            let compared = rows.iter().any(|row| {
                let shown = |system: &System| row.figures[system.column].is_some();
                comparison
                    .systems
                    .iter()
                    .filter(|system| shown(system))
                    .count()
                    > 1
            });
            compared.then(|| (comparison.file, svg(comparison, &rows)))
        })
        .collect()
}

/// The lines that show the pictures of the section with this title.
pub(crate) fn links(section: &str) -> String {
    COMPARISONS
        .iter()
        .filter(|comparison| section.starts_with(comparison.section))
        .fold(String::new(), |mut links, comparison| {
            let _ = writeln!(links, "![{}]({})", comparison.title, comparison.file);
            links
        })
}

struct Row {
    label: String,
    /// Of direct, Envoy and Weft.
    figures: [Option<Figure>; 3],
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Figure {
    median: f64,
    least: f64,
    most: f64,
}

impl Figure {
    /// Reads `29.4 [29.2 to 30.1]`, or the median alone.
    fn read(cell: &str) -> Option<Self> {
        let (median, spread) = cell.split_once(" [").unwrap_or((cell, ""));
        let median = median.trim().parse().ok()?;
        let (least, most) = spread
            .trim_end_matches(']')
            .split_once(" to ")
            .and_then(|(least, most)| Some((least.parse().ok()?, most.parse().ok()?)))
            .unwrap_or((median, median));
        Some(Self {
            median,
            least,
            most,
        })
    }
}

fn rows_of(report: &str, comparison: &Comparison) -> Vec<Row> {
    report
        .lines()
        .skip_while(|line| {
            line.strip_prefix("## ")
                .is_none_or(|title| !title.starts_with(comparison.section))
        })
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| {
            let cells: Vec<_> = line.strip_prefix("| ")?.split(" | ").collect();
            let (label, unit) = cells.first()?.rsplit_once(", ")?;
            // What makes no claim would only make the other bars short.
            if unit != comparison.unit || label.contains("no claim") {
                return None;
            }
            let figure = |at: usize| cells.get(at + 1).and_then(|cell| Figure::read(cell));
            Some(Row {
                label: label.to_owned(),
                figures: [figure(0), figure(1), figure(2)],
            })
        })
        .filter(|row| row.figures[WEFT.column].is_some())
        .collect()
}

fn svg(comparison: &Comparison, rows: &[Row]) -> String {
    let systems = comparison.systems;
    let group = BAR * systems.len() as f64 + 18.0;
    let shown = rows.iter().flat_map(|row| {
        systems
            .iter()
            .filter_map(|system| row.figures[system.column])
    });
    let longest = shown.map(|figure| figure.most).fold(0.0, f64::max);
    let (width, height) = (LABEL + BARS + 90.0, TOP + group * rows.len() as f64 + 10.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"16\" font-weight=\"bold\" fill=\"#212529\">{}</text>\n",
        comparison.title
    );
    for (at, System { name, colour, .. }) in systems.iter().enumerate() {
        let x = LABEL + 90.0 * at as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"34\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"45\" fill=\"#212529\">{name}</text>",
            x + 18.0
        );
    }
    for (at, row) in rows.iter().enumerate() {
        let y = TOP + group * at as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#212529\">{}</text>",
            LABEL - 10.0,
            y + BAR + 4.0,
            row.label
        );
        for (line, System { column, colour, .. }) in systems.iter().enumerate() {
            let Some(figure) = row.figures[*column] else {
                continue;
            };
            let scale = |figure: f64| LABEL + BARS * figure / longest;
            let (y, middle) = (y + BAR * line as f64, y + BAR * (line as f64 + 0.5));
            let _ = writeln!(
                svg,
                "<rect x=\"{LABEL}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/><line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"#212529\"/><text x=\"{:.1}\" y=\"{:.1}\" fill=\"#212529\">{}</text>",
                scale(figure.median) - LABEL,
                BAR - 2.0,
                scale(figure.least),
                scale(figure.most),
                scale(figure.most) + 6.0,
                middle + 4.0,
                figure.median
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::{COMPARISONS, Figure, pictures};
    use crate::measures::SECTIONS;

    const REPORT: &str = "\
## CPU per request, both proxies together

| measure | direct | Envoy | Weft | Weft / Envoy | must | |
|---|---|---|---|---|---|---|
| HTTP/1.1, 1 connection, small answer, µs | 20.4 [19.5 to 20.9] | 200.0 [200.0 to 200.0] | 100.0 [90.0 to 110.0] | 0.50 | | |

## Latency at a fixed rate

| 1000/s, p50, µs | 49 [44 to 49] | - | 204 [190 to 205] | - | | |
| 1000/s, p99, µs | - | - | 1450 [873 to 1705] | - | | |
| 1000/s, p99.9 (no claim), µs | - | - | 9999 | - | | |
";

    #[test]
    fn chart_bars_scale_with_cost_of_costliest() {
        let pictures = pictures(REPORT);
        let names: Vec<_> = pictures.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["cpu-per-request.svg", "latency.svg"]);
        let svg = &pictures[0].1;
        assert!(
            svg.contains("width=\"420.0\"") && svg.contains("width=\"210.0\""),
            "{svg}"
        );
        assert!(!svg.contains(">20.4<"), "the server's own CPU is no rival");
        for (name, svg) in &pictures {
            assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}");
        }
        assert!(pictures[1].1.contains(">1450<"), "a row without rivals");
        assert!(!pictures[1].1.contains(">9999<"), "no claim, no bar");
    }

    #[test]
    fn figures_are_read_as_reports_write_them() {
        let (least, median, most) = (29.2, 29.4, 30.1);
        let spread = Figure {
            median,
            least,
            most,
        };
        assert_eq!(Figure::read("29.4 [29.2 to 30.1]"), Some(spread));
        assert_eq!(Figure::read("335").map(|figure| figure.most), Some(335.0));
        assert_eq!(Figure::read("-"), None);
    }

    #[test]
    fn comparison_unit_exists_in_its_section() {
        for comparison in COMPARISONS {
            let section = SECTIONS
                .iter()
                .find(|(title, _)| title.starts_with(comparison.section));
            let units = section.unwrap().1.iter().map(|row| row.unit);
            assert!(
                units.into_iter().any(|unit| unit == comparison.unit),
                "{}",
                comparison.file
            );
        }
    }
}
