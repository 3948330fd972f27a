//! A bar chart of CPU per request, as SVG written by hand.

use std::fmt::Write;

use crate::book::Book;

const LABEL: f64 = 250.0;
const BARS: f64 = 420.0;
const BAR: f64 = 16.0;
const GROUP: f64 = 2.0 * BAR + 18.0;
const TOP: f64 = 58.0;

/// Rows that have bars, with what stands beside them.
const ROWS: [(&str, &str); 7] = [
    ("cpu-c1", "1 connection"),
    ("cpu-c32", "32 connections"),
    ("cpu-c128", "128 connections"),
    ("cpu-10k", "32 connections, 10 KB"),
    ("cpu-h2", "HTTP/2, 32 streams"),
    ("cpu-grpc", "gRPC, 32 streams"),
    ("cpu-r1000", "1000 requests/s"),
];
const SYSTEMS: [(&str, &str, &str); 2] =
    [("envoy", "Envoy", "#9aa5b1"), ("weft", "Weft", "#0b7285")];

/// The picture. Systems and rows without a figure are left out.
pub(crate) fn svg(book: &Book) -> String {
    let rows: Vec<_> = ROWS
        .iter()
        .filter(|(id, _)| book.spread(id, "weft").is_some())
        .collect();
    let figures = rows.iter().flat_map(|(id, _)| {
        SYSTEMS
            .iter()
            .filter_map(|(system, ..)| book.spread(id, system))
    });
    let longest = figures.map(|spread| spread.most).fold(1.0, f64::max);
    let (width, height) = (LABEL + BARS + 90.0, TOP + GROUP * rows.len() as f64 + 10.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"16\" font-weight=\"bold\" fill=\"#212529\">CPU per request, both proxies, microseconds</text>\n"
    );
    for (at, (_, name, colour)) in SYSTEMS.iter().enumerate() {
        let x = LABEL + 90.0 * at as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"34\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"45\" fill=\"#212529\">{name}</text>",
            x + 18.0
        );
    }
    for (at, (id, label)) in rows.into_iter().enumerate() {
        let y = TOP + GROUP * at as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#212529\">{label}</text>",
            LABEL - 10.0,
            y + BAR + 4.0
        );
        for (line, (system, _, colour)) in SYSTEMS.iter().enumerate() {
            let Some(spread) = book.spread(id, system) else {
                continue;
            };
            let scale = |figure: f64| LABEL + BARS * figure / longest;
            let (y, middle) = (y + BAR * line as f64, y + BAR * (line as f64 + 0.5));
            let _ = writeln!(
                svg,
                "<rect x=\"{LABEL}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/><line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"#212529\"/><text x=\"{:.1}\" y=\"{:.1}\" fill=\"#212529\">{:.0}</text>",
                scale(spread.median) - LABEL,
                BAR - 2.0,
                scale(spread.least),
                scale(spread.most),
                scale(spread.most) + 6.0,
                middle + 4.0,
                spread.median
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::svg;
    use crate::book::Book;

    #[test]
    fn the_dearest_bar_fills_the_width_and_half_the_cost_half_of_it() {
        let mut book = Book::default();
        book.note("cpu-c1", "envoy", 200.0);
        book.note("cpu-c1", "weft", 100.0);
        let svg = svg(&book);
        assert!(
            svg.contains("width=\"420.0\"") && svg.contains("width=\"210.0\""),
            "{svg}"
        );
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
    }
}
