//! Curves over sizes, or over time, as SVG written by hand.

use std::fmt::Write;

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 170.0;
const GAP: f64 = 70.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 74.0;
/// Sizes that are named below an axis; of more only every so many.
const NAMED: usize = 10;
const COLOURS: [&str; 3] = ["#0b7285", "#e8590c", "#9aa5b1"];

/// One panel: curves over the same sizes.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    /// Name and values, one for each size.
    pub(crate) curves: Vec<(String, Vec<f64>)>,
    /// What must not be exceeded at the last size.
    pub(crate) bound: Option<f64>,
}

/// Panels side by side over `sizes`, whose unit is `unit`.
pub(crate) fn svg(title: &str, unit: &str, sizes: &[f64], panels: &[Panel]) -> String {
    let width = LEFT + (WIDTH + GAP) * panels.len() as f64;
    let height = TOP + HEIGHT + 60.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"16\" font-weight=\"bold\" fill=\"#212529\">{title}</text>\n"
    );
    for (at, panel) in panels.iter().enumerate() {
        draw(
            &mut svg,
            panel,
            sizes,
            unit,
            LEFT + (WIDTH + GAP) * at as f64,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, panel: &Panel, sizes: &[f64], unit: &str, left: f64) {
    let values = panel.curves.iter().flat_map(|(_, values)| values).copied();
    let most = values.chain(panel.bound).fold(f64::MIN_POSITIVE, f64::max) * 1.05;
    let widest = sizes.iter().copied().fold(1.0, f64::max);
    let x = |size: f64| left + WIDTH * size / widest;
    let y = |value: f64| TOP + HEIGHT * (1.0 - value / most);
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"48\" fill=\"#212529\">{}</text><path d=\"M{left} {TOP} V{:.1} H{:.1}\" fill=\"none\" stroke=\"#adb5bd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#495057\">{unit}</text>",
        panel.title,
        TOP + HEIGHT,
        left + WIDTH,
        left + WIDTH,
        TOP + HEIGHT + 34.0
    );
    for size in sizes.iter().step_by(sizes.len().div_ceil(NAMED).max(1)) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#495057\">{size}</text>",
            x(*size),
            TOP + HEIGHT + 16.0
        );
    }
    if let Some(bound) = panel.bound {
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {0:.1} H{1:.1}\" stroke=\"#c92a2a\" stroke-dasharray=\"5 4\"/><text x=\"{2:.1}\" y=\"{3:.1}\" fill=\"#c92a2a\">must {bound}</text>",
            y(bound),
            left + WIDTH,
            left + 4.0,
            y(bound) - 4.0
        );
    }
    for (at, ((name, values), colour)) in panel.curves.iter().zip(COLOURS).enumerate() {
        let points: Vec<String> = sizes
            .iter()
            .zip(values)
            .map(|(size, value)| format!("{:.1},{:.1}", x(*size), y(*value)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"{:.1}\" y=\"64\" fill=\"{colour}\">{name}</text>",
            points.join(" "),
            left + 110.0 * at as f64
        );
        if let (Some(size), Some(value)) = (sizes.last(), values.last()) {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
                x(*size) + 4.0,
                y(*value) + 4.0,
                short(*value)
            );
        }
    }
}

/// A value with two or three digits that count.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        0.0..1.0 => format!("{value:.2}"),
        1.0..20.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Panel, svg};

    #[test]
    fn half_of_largest_size_is_plotted_in_middle() {
        let panel = Panel {
            title: "memory".to_owned(),
            curves: vec![("peak".to_owned(), vec![0.0, 100.0])],
            bound: Some(100.0),
        };
        let svg = svg("cost", "pods", &[500.0, 1000.0], &[panel]);
        assert!(svg.contains("points=\"214.0,244.0 364.0,82.1\""), "{svg}");
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
    }

    #[test]
    fn of_many_sizes_only_some_are_named() {
        let sizes: Vec<f64> = (0..60).map(f64::from).collect();
        let curves = vec![("p99".to_owned(), sizes.clone())];
        let panel = Panel {
            title: "latency".to_owned(),
            curves,
            bound: None,
        };
        let svg = svg("failure", "s", &sizes, &[panel]);
        assert_eq!(svg.matches("text-anchor=\"middle\"").count(), super::NAMED);
    }
}
