//! Where Weft's proxies spend their time: the pair is started once, each chosen
//! load is put on it, and `perf` looks at both proxies 999 times in a second of
//! their CPU time. Each proxy under each load becomes a picture,
//! `flame-LOAD-outbound.svg` or `flame-LOAD-inbound.svg`, and a short list.
//!
//! The clock of the CPU is the event, because virtual machines seldom pass the
//! processor's own counters on. Stacks are followed by frame pointers: the proxy
//! has to be built with them, with its symbols and with debug information, as
//! `bench/run flame` does.
//!
//! `inferno` is not used: it could draw the picture and nothing else of this, as merged
//! functions are put back between reading and drawing, and its licence, CDDL-1.0,
//! is none of those in `.ci/deny.toml`.

mod inlined;
mod picture;
mod stacks;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::files::Shared;
use crate::flame::inlined::Inlined;
use crate::flame::stacks::{Node, Origin};
use crate::load;
use crate::loads::{COUNTED, HTTP};
use crate::namespaces;
use crate::namespaces::{Process, Who};
use crate::resources::Pod;
use crate::system::{Port, System};

/// How long one load is looked at.
const RECORDED: Duration = Duration::from_secs(10);
/// The load runs before and after that, so that `perf` sees it at full speed.
const LEAD: Duration = Duration::from_secs(1);
const TAIL: Duration = Duration::from_secs(1);
/// For `perf` to begin and to write its file, on a machine under load.
const SLACK: Duration = Duration::from_secs(20);
/// Not 1000, which would beat in time with the kernel's timer.
const PER_SECOND: &str = "999";
/// Fewer samples are an idle proxy, and no picture of a load.
const FEWEST_SAMPLES: u64 = 100;
/// More of the proxy's own time without a name is a proxy without symbols.
const MOST_NAMELESS: f64 = 0.5;
/// Functions in the list of the heaviest.
const LISTED: usize = 10;
/// Loads when none are named: what the goals of the proxy are about.
const DEFAULT: &str = "cpu-c32,tcp-cpu";
type Make = fn(&System, Duration) -> Result<()>;
/// Loads besides those of [`HTTP`], named as the rows of the report are.
const OTHER_LOADS: &[(&str, Make)] = &[
    ("cpu-h2", |system, time| {
        load::h2load(system, Port::Http2, "/bench", time).map(drop)
    }),
    ("cpu-both", |system, time| {
        load::both_ways(system, time).map(drop)
    }),
    ("cpu-r1000", |system, time| {
        load::fixed(system, 1000, time).map(drop)
    }),
    ("cpu-r4000", |system, time| {
        load::fixed(system, 4000, time).map(drop)
    }),
    ("cpu-conn-tcp", |system, time| {
        load::wrk(system, Port::Bytes, "/bench", 16, time, false).map(drop)
    }),
    ("cpu-conn-http", |system, time| {
        load::wrk(system, Port::Http1, "/bench", 16, time, false).map(drop)
    }),
    ("tcp-cpu", |system, time| {
        load::iperf(system, 1, time).map(drop)
    }),
    ("tcp8-cpu", |system, time| {
        load::iperf(system, 8, time).map(drop)
    }),
];

/// The command line behind `flame`.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    proxy: PathBuf,
    nginx: PathBuf,
    /// Folder for the pictures.
    out: PathBuf,
    loads: Vec<String>,
}

impl Arguments {
    /// # Errors
    /// An argument or a load that is unknown, or an argument that is missing.
    pub(crate) fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let (mut proxy, mut nginx, mut out) = (None, None, None);
        let mut loads = DEFAULT.to_owned();
        for argument in arguments {
            match argument.split_once('=') {
                Some(("--proxy", path)) => proxy = Some(PathBuf::from(path)),
                Some(("--nginx", path)) => nginx = Some(PathBuf::from(path)),
                Some(("--out", path)) => out = Some(PathBuf::from(path)),
                Some(("--measures", names)) => names.clone_into(&mut loads),
                _ => bail!("{argument:?} is not understood"),
            }
        }
        let loads: Vec<String> = loads.split(',').map(str::to_owned).collect();
        for load in &loads {
            ensure!(
                known().any(|known| known == load),
                "--measures={load}: no such load; there are {}",
                known().collect::<Vec<_>>().join(", ")
            );
        }
        Ok(Self {
            proxy: proxy.context("--proxy= is missing")?,
            nginx: nginx.context("--nginx= is missing")?,
            out: out.context("--out= is missing")?,
            loads,
        })
    }
}

fn known() -> impl Iterator<Item = &'static str> {
    HTTP.iter()
        .map(|load| load.cpu)
        .chain(COUNTED.iter().map(|load| load.cpu))
        .chain(OTHER_LOADS.iter().map(|(name, _)| *name))
}

/// Draws every load that was asked for.
///
/// # Errors
/// When the pair does not start, a load or `perf` fails, or a picture would show
/// nothing: too few samples, or a proxy without symbols.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    namespaces::remove_what_dead_runs_left();
    fs::create_dir_all(&arguments.out)
        .with_context(|| format!("--out={}", arguments.out.display()))?;
    let shared = Shared::new()?;
    let mut system = System::weft(&arguments.proxy, &arguments.nginx, &shared.0)?;
    system.start_pair()?;
    // As the kernel, and so `perf`, names it.
    let program = fs::canonicalize(&arguments.proxy)
        .with_context(|| format!("--proxy={}", arguments.proxy.display()))?;
    for load in &arguments.loads {
        eprintln!("{load}: {} s", (LEAD + RECORDED + TAIL).as_secs());
        let recordings =
            record(&system, load, &shared.0).with_context(|| format!("load {load}"))?;
        system.pair_alive()?;
        for (side, recording) in ["outbound", "inbound"].into_iter().zip(recordings) {
            let root =
                read(&recording, &program).with_context(|| format!("load {load}, {side}"))?;
            let file = arguments.out.join(format!("flame-{load}-{side}.svg"));
            let title = title(load, side, &root);
            fs::write(&file, picture::svg(&title, &root))
                .with_context(|| file.display().to_string())?;
            println!("{title}\n{}  {}\n", list(&root), file.display());
        }
    }
    Ok(())
}

/// Puts one load on the pair and gives what `perf` wrote of both proxies.
fn record(system: &System, load: &str, folder: &Path) -> Result<[PathBuf; 2]> {
    let pair = system.pair.as_ref().context("no pair was started")?;
    let files = ["outbound", "inbound"].map(|side| folder.join(format!("perf-{load}-{side}")));
    std::thread::scope(|scope| {
        let working = scope.spawn(|| make(system, load, LEAD + RECORDED + TAIL));
        std::thread::sleep(LEAD);
        // Started by this thread, because they end with the one that starts them.
        let client = perf(system, Pod::Client, &pair.client, &files[0]);
        let server = perf(system, Pod::Server, &pair.server, &files[1]);
        for (recording, file) in [client, server].into_iter().zip(&files) {
            recording?
                .finish(RECORDED + SLACK)
                .with_context(|| format!("perf: {}", stderr_of(file)))?;
        }
        working
            .join()
            .unwrap_or_else(|_| bail!("the thread of the load panicked"))
    })?;
    Ok(files)
}

fn make(system: &System, load: &str, time: Duration) -> Result<()> {
    if let Some(http) = HTTP.iter().find(|http| http.cpu == load) {
        return http.make(system, time).map(drop);
    }
    if let Some(counted) = COUNTED.iter().find(|counted| counted.cpu == load) {
        let calls = counted.calls;
        let count = calls.in_time(system, time)?;
        return calls.make(system, count, time).map(drop);
    }
    let other = OTHER_LOADS.iter().find(|(name, _)| *name == load);
    let (_, make) = other.context("no such load")?;
    make(system, time)
}

/// Looks at one proxy for [`RECORDED`] and ends.
fn perf(system: &System, pod: Pod, proxy: &Process, file: &Path) -> Result<Process> {
    let (pid, seconds) = (proxy.pid().to_string(), RECORDED.as_secs().to_string());
    let output = file.to_string_lossy();
    let line = [
        "perf",
        "record",
        "-q",
        // Does not copy the proxy into a cache in the user's home.
        "--no-buildid-cache",
        "-e",
        "cpu-clock",
        "-F",
        PER_SECOND,
        "--call-graph",
        "fp",
        "-p",
        &pid,
        "-o",
        &output,
        "--",
        "sleep",
        &seconds,
    ];
    let log = file.with_extension("log");
    system
        .namespace(pod)
        .start(Who::Root, &log, &line, &[])
        .with_context(|| format!("perf: {}", stderr_of(file)))
}

/// What `perf record` wrote about itself.
fn stderr_of(file: &Path) -> String {
    fs::read_to_string(file.with_extension("log")).unwrap_or_default()
}

fn read(recording: &Path, program: &Path) -> Result<Node> {
    let path = recording.to_string_lossy();
    let line = [
        "perf",
        "script",
        // Debian's cannot, and another's takes minutes.
        "--no-inline",
        "-F",
        "comm,ip,sym,dso",
        "-i",
        &path,
    ];
    let script = namespaces::run(&line)?.stdout;
    let script = String::from_utf8_lossy(&script);
    let samples = stacks::read(&script);
    let file_offsets = stacks::file_offsets(&samples, program);
    let inlined = Inlined::ask(program, &file_offsets, &recording.with_extension("list"))?;
    let root = stacks::fold(&samples, program, &inlined);
    worth_drawing(&root)?;
    Ok(root)
}

fn worth_drawing(root: &Node) -> Result<()> {
    ensure!(
        root.samples >= FEWEST_SAMPLES,
        "only {} samples: the load did not reach the proxy; {FEWEST_SAMPLES} are needed",
        root.samples
    );
    ensure!(
        stacks::nameless(root) <= MOST_NAMELESS,
        "{:.0} % of the proxy's own time has no function's name: build it with its symbols (bench/run flame without PROXY= does)",
        stacks::nameless(root) * 100.0
    );
    Ok(())
}

fn title(load: &str, side: &str, root: &Node) -> String {
    let rate: f64 = PER_SECOND.parse().unwrap_or(f64::NAN);
    format!(
        "{load}, {side} proxy: {} samples, {:.0} % of one core in {} s, {:.0} % of it in the kernel",
        root.samples,
        root.samples as f64 * 100.0 / rate / RECORDED.as_secs_f64(),
        RECORDED.as_secs(),
        picture::share(picture::kernel_samples(root), root.samples),
    )
}

/// Functions by the time in themselves, one per line.
fn list(root: &Node) -> String {
    let lines = root.heaviest().into_iter().take(LISTED);
    lines
        .map(|(function, samples)| {
            format!(
                "  {:5.1} %  {}  {}\n",
                picture::share(samples, root.samples),
                if function.origin == Origin::Kernel {
                    "kernel "
                } else {
                    "program"
                },
                function.name
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Arguments, DEFAULT, known, list, worth_drawing};
    use crate::flame::inlined::Inlined;
    use crate::flame::stacks::{self, Node};
    use crate::measures::SECTIONS;

    fn fold(script: &str) -> Node {
        let program = std::path::Path::new("/bin/weft-proxy");
        stacks::fold(&stacks::read(script), program, &Inlined::default())
    }

    fn parse_arguments(measures: &str) -> anyhow::Result<Arguments> {
        let line = format!("--proxy=p --nginx=n --out=o {measures}");
        Arguments::read(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn every_load_is_a_row_of_the_report() {
        for load in known() {
            let mut rows = SECTIONS.iter().flat_map(|(_, rows)| *rows);
            assert!(rows.any(|row| row.id == load), "{load}");
        }
    }

    #[test]
    fn unknown_load_is_refused_with_known_names() {
        assert_eq!(parse_arguments("").unwrap().loads.join(","), DEFAULT);
        assert_eq!(
            parse_arguments("--measures=cpu-h2").unwrap().loads,
            ["cpu-h2"]
        );
        let refusal = parse_arguments("--measures=cpu-h2,cpu")
            .unwrap_err()
            .to_string();
        assert!(
            refusal.contains("--measures=cpu:") && refusal.contains("tcp8-cpu"),
            "{refusal}"
        );
    }

    #[test]
    fn function_list_starts_with_heaviest_and_has_ten() {
        let mut script = String::new();
        for n in 1..=20 {
            let sample = format!("w \n\t 40{n:04} f{n} (/bin/weft-proxy)\n\n");
            script += &sample.repeat(n);
        }
        let list = list(&fold(&script));
        let lines: Vec<_> = list.lines().collect();
        assert_eq!(lines.len(), 10);
        assert_eq!(lines[0], "    9.5 %  program  f20");
        assert!(lines[9].ends_with("f11"), "{list}");
    }

    #[test]
    fn idle_or_stripped_proxy_profile_is_not_drawn() {
        let named = "w \n\t 401000 f (/bin/weft-proxy)\n\n";
        let nameless = "w \n\t 401000 [unknown] (/bin/weft-proxy)\n\n";
        let few = worth_drawing(&fold(&named.repeat(99))).unwrap_err();
        assert!(few.to_string().contains("only 99 samples"), "{few}");
        assert!(worth_drawing(&fold(&named.repeat(100))).is_ok());
        let stripped = named.repeat(49) + &nameless.repeat(51);
        let stripped = worth_drawing(&fold(&stripped)).unwrap_err();
        assert!(stripped.to_string().contains("51 %"), "{stripped}");
    }
}
