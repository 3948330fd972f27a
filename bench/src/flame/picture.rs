//! A flame graph as SVG written by hand: one box per function, callers below
//! what they call, as wide as its share of the samples. It needs no script: a
//! browser shows the whole name, samples and share when the pointer rests.

use std::fmt::Write;

use crate::flame::stacks::{Function, Node, Origin};

const WIDTH: f64 = 1400.0;
const MARGIN: f64 = 10.0;
const ROW: f64 = 17.0;
const TOP: f64 = 64.0;
/// Pixels. Narrower boxes are skipped: they cannot be seen, and there are thousands.
const NARROWEST: f64 = 0.3;
/// Pixels of one letter of the names; the font is one of equal widths.
const LETTER: f64 = 6.3;
/// Shorter pieces of a name tell nothing.
const FEWEST_LETTERS: usize = 4;
/// Neighbours differ in shade, origins in colour.
const PROGRAM: [&str; 4] = ["#ffc078", "#ffb35c", "#ffa94d", "#ffcc8f"];
const INLINED: [&str; 4] = ["#ffec99", "#fff0b0", "#ffe680", "#fff3bf"];
const KERNEL: [&str; 4] = ["#74c0fc", "#8fccfd", "#66b6f5", "#a5d8ff"];

/// The picture, with a title above.
pub(crate) fn svg(title: &str, root: &Node) -> String {
    let height = TOP + ROW * (root.depth() + 1) as f64 + MARGIN;
    let kernel = kernel_samples(root);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"10.5\" fill=\"#212529\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"24\" font-family=\"sans-serif\" font-size=\"16\" font-weight=\"bold\">{}</text>\n\
         <rect x=\"{MARGIN}\" y=\"36\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"28\" y=\"46\" font-size=\"12\">program {:.1} %</text>\n\
         <rect x=\"160\" y=\"36\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"178\" y=\"46\" font-size=\"12\">merged into its caller</text>\n\
         <rect x=\"370\" y=\"36\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"388\" y=\"46\" font-size=\"12\">kernel {:.1} %</text>\n",
        escaped(title),
        PROGRAM[2],
        share(root.samples.saturating_sub(kernel), root.samples),
        INLINED[0],
        KERNEL[0],
        share(kernel, root.samples),
    );
    let all = Function {
        name: "all".to_owned(),
        origin: Origin::Program,
    };
    let mut picture = Picture {
        svg: &mut svg,
        all: root.samples,
        bottom: height - MARGIN - ROW,
    };
    picture.draw(&all, root, MARGIN, 0);
    svg.push_str("</svg>\n");
    svg
}

/// Samples that fell into the kernel, from any caller.
pub(crate) fn kernel_samples(root: &Node) -> u64 {
    let heaviest = root.heaviest();
    let kernel = heaviest
        .iter()
        .filter(|(function, _)| function.origin == Origin::Kernel);
    kernel.map(|(_, samples)| samples).sum()
}

/// Percent.
pub(crate) fn share(part: u64, all: u64) -> f64 {
    part as f64 * 100.0 / all.max(1) as f64
}

struct Picture<'a> {
    svg: &'a mut String,
    all: u64,
    /// Where the lowest box begins.
    bottom: f64,
}

impl Picture<'_> {
    fn draw(&mut self, function: &Function, node: &Node, x: f64, level: usize) {
        let width = self.width(node);
        if width < NARROWEST {
            return;
        }
        let y = self.bottom - ROW * level as f64;
        let colour = match function.origin {
            Origin::Program => PROGRAM,
            Origin::Inlined => INLINED,
            Origin::Kernel => KERNEL,
        };
        let shade = function.name.bytes().map(usize::from).sum::<usize>() + level;
        let _ = write!(
            self.svg,
            "<g><title>{}: {} samples, {:.2} %</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{}\" stroke=\"#ffffff\" stroke-width=\"0.4\"/>",
            escaped(&function.name),
            node.samples,
            share(node.samples, self.all),
            ROW - 1.0,
            colour[shade % colour.len()],
        );
        if let Some(label) = label(&function.name, width) {
            let _ = write!(
                self.svg,
                "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 3.0,
                y + 12.0,
                escaped(&label)
            );
        }
        self.svg.push_str("</g>\n");
        let mut x = x;
        for (function, call) in &node.calls {
            self.draw(function, call, x, level + 1);
            x += self.width(call);
        }
    }

    fn width(&self, node: &Node) -> f64 {
        (WIDTH - 2.0 * MARGIN) * node.samples as f64 / self.all.max(1) as f64
    }
}

/// What fits of a name into a box, without the modules when the whole does not.
fn label(name: &str, width: f64) -> Option<String> {
    let letters = ((width - 6.0) / LETTER).max(0.0) as usize;
    if name.chars().count() <= letters {
        return Some(name.to_owned());
    }
    let name = without_modules(name);
    if name.chars().count() <= letters {
        return Some(name);
    }
    let begin: String = name.chars().take(letters.checked_sub(2)?).collect();
    (letters >= FEWEST_LETTERS).then(|| begin + "..")
}

/// `<a::b::Type<c::D> as e::Trait>::call` becomes `<Type<D> as Trait>::call`, and
/// `a::b::c::call` becomes `c::call`.
fn without_modules(name: &str) -> String {
    let mut short = String::with_capacity(name.len());
    let mut rest = name;
    while !rest.is_empty() {
        let in_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':');
        let end = rest.find(|c| !in_path(c)).unwrap_or(rest.len());
        let (path, after) = rest.split_at(end);
        let last = path.rsplit("::").next().unwrap_or(path);
        let kept = if last.starts_with(char::is_uppercase) {
            1
        } else {
            2
        };
        match path.rmatch_indices("::").nth(kept - 1) {
            // What follows `>` belongs to it.
            Some((at, _)) if at > 0 => short.push_str(&path[at + 2..]),
            _ => short.push_str(path),
        }
        let next = after.chars().next().map_or(0, char::len_utf8);
        short.push_str(&after[..next]);
        rest = &after[next..];
    }
    short
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{kernel_samples, label, svg, without_modules};
    use crate::flame::inlined::Inlined;
    use crate::flame::stacks::{self, Node};

    fn fold(script: &str) -> Node {
        let program = std::path::Path::new("/bin/weft-proxy");
        stacks::fold(&stacks::read(script), program, &Inlined::default())
    }

    fn sample(thread: &str, frames: &[(&str, &str)]) -> String {
        let main = ("402f00", "main");
        let frames = frames.iter().chain([&main]).map(|(address, name)| {
            let file = if address.len() > 8 {
                "[kernel.kallsyms]"
            } else {
                "/bin/weft-proxy"
            };
            format!("\t {address} {name} ({file})\n")
        });
        format!("{thread} \n{}\n", frames.collect::<String>())
    }

    const READ: (&str, &str) = ("ffffffff81000130", "tcp_recvmsg");
    const POLL: (&str, &str) = ("401000", "<a::B<C> as d::E>::poll");

    #[test]
    fn flame_box_width_matches_samples_above_its_caller() {
        let script = sample("worker", &[READ, POLL]) + &sample("worker", &[POLL]);
        let svg = svg("cpu-c32, outbound", &fold(&script));
        let row = |name: &str| {
            svg.lines()
                .find(|line| line.contains(&format!("<title>{name}:")))
                .unwrap_or_else(|| unreachable!("no box of {name} in {svg}"))
        };
        let poll = row("&lt;a::B&lt;C&gt; as d::E&gt;::poll");
        let read = row("tcp_recvmsg");
        assert!(
            poll.contains("2 samples, 100.00 %") && poll.contains("width=\"1380.0\""),
            "{poll}"
        );
        assert!(
            read.contains("1 samples, 50.00 %") && read.contains("width=\"690.0\""),
            "{read}"
        );
        let y = |row: &str| -> f64 {
            row.split(" y=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next())
                .unwrap()
                .parse()
                .unwrap()
        };
        assert_eq!(y(poll) - y(read), super::ROW);
        assert!(
            row("all").contains(&format!("y=\"{:.1}\"", y(poll) + 3.0 * super::ROW)),
            "{svg}"
        );
        assert!(
            read.contains("fill=\"#74c0fc\"")
                || super::KERNEL.iter().any(|blue| read.contains(blue))
        );
        assert!(
            super::PROGRAM.iter().any(|warm| poll.contains(warm)),
            "{poll}"
        );
        assert!(svg.contains("kernel 50.0 %"), "{svg}");
        for (open, close) in [
            ("<g>", "</g>"),
            ("<text", "</text>"),
            ("<title", "</title>"),
            ("<svg", "</svg>"),
        ] {
            assert_eq!(svg.matches(open).count(), svg.matches(close).count());
        }
    }

    #[test]
    fn invisible_box_is_skipped_but_keeps_its_space() {
        let mut script = sample("worker", &[("401000", "a_speck")]);
        script += &sample("worker", &[("402000", "the_rest")]).repeat(9999);
        let svg = svg("", &fold(&script));
        assert!(
            !svg.contains("a_speck") && svg.contains("the_rest: 9999 samples"),
            "{svg}"
        );
        assert!(
            svg.contains("x=\"10.1\""),
            "the rest begins behind the speck: {svg}"
        );
    }

    #[test]
    fn a_stack_of_the_kernel_counts_once() {
        let twice = sample(
            "worker",
            &[READ, ("ffffffff81000100", "do_syscall_64"), POLL],
        );
        assert_eq!(kernel_samples(&fold(&twice)), 1);
    }

    #[test]
    fn overlong_label_drops_modules_before_truncating() {
        assert_eq!(
            without_modules("<a::b::Type<c::D> as e::Trait>::call"),
            "<Type<D> as Trait>::call"
        );
        assert_eq!(without_modules("hyper::proto::h1::io::flush"), "io::flush");
        assert_eq!(without_modules("tcp_sendmsg"), "tcp_sendmsg");
        assert_eq!(
            label("a::b::io::flush", 102.0).as_deref(),
            Some("a::b::io::flush")
        );
        assert_eq!(label("a::b::io::flush", 80.0).as_deref(), Some("io::flush"));
        assert_eq!(label("a::b::io::flush", 50.0).as_deref(), Some("io::.."));
        assert_eq!(label("a::b::io::flush", 12.0), None);
    }
}
