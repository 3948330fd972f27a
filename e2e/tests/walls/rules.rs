//! Rules that hold inside every crate, and their exceptions.

use std::collections::{BTreeMap, BTreeSet};

use crate::allowance::Breach;
use crate::circles::in_circles;
use crate::modules::{Function, Module, Target, parent_of};
use crate::rooms::Rooms;

/// Words that a file opens with. Fewer can only repeat its name.
pub(crate) const HEADER_WORDS: usize = 5;
/// Lines of a file, but for those that name the claims of a test. What is longer holds two ideas.
pub(crate) const FILE_LINES: usize = 480;
/// Lines of one function, its head included.
pub(crate) const FUNCTION_LINES: usize = 100;
/// Lines that 99 of 100 functions outside tests keep to, and every function of the request
/// path.
pub(crate) const MOST_FUNCTION_LINES: usize = 60;
pub(crate) const PARAMETERS: usize = 6;

/// One package, as Cargo describes it.
#[derive(Debug)]
pub(crate) struct Crate {
    pub name: String,
    pub folder: String,
    /// Root files, and whether all below is a test.
    pub roots: Vec<(String, bool)>,
    pub rooms: Rooms,
    /// It runs in a cluster of others: it must not end by a panic that a shorter
    /// way of writing brought.
    pub shipped: bool,
}

/// What the rules leave out, each with its reason.
#[derive(Debug)]
pub(crate) struct Exempt {
    /// Written by a program, and read by `include!`.
    pub generated: &'static [&'static str],
    /// Rows of data, which are not easier to read in two files.
    pub tables: &'static [&'static str],
    /// Folders of a crate in which other crates are not named.
    pub silent: &'static [Silent],
    /// Functions with an `expect` that nothing outside the program can make fail.
    pub proven: &'static [(&'static str, &'static str)],
    /// Calls of which a function may make so many.
    pub rationed: &'static [Rationed],
    /// Names that one file alone spells.
    pub spelt: &'static [Spelt],
    /// Functions that are to be read in one look, whatever others may be.
    pub short: &'static [(&'static str, &'static str)],
}

/// Within `folders`, but for the files `besides`, `method` is called once in each of these
/// functions and nowhere else. In those of `again_in` that one call may stand in a loop or
/// a closure.
#[derive(Debug)]
pub(crate) struct Rationed {
    pub method: &'static str,
    pub folders: &'static [&'static str],
    pub besides: &'static [&'static str],
    pub once_in: &'static [(&'static str, &'static str)],
    pub again_in: &'static [(&'static str, &'static str)],
}

/// Within `folders` whole literals that begin so stand in this file alone, and in each pair of
/// a file and what it means by one that is no such name.
#[derive(Debug)]
pub(crate) struct Spelt {
    pub prefix: &'static str,
    pub folders: &'static [&'static str],
    pub file: &'static str,
    pub besides: &'static [(&'static str, &'static str)],
}

/// No file within `folders` of the crate `of` names the crate `about`.
#[derive(Debug)]
pub(crate) struct Silent {
    pub of: &'static str,
    pub folders: &'static [&'static str],
    pub besides: &'static [&'static str],
    pub about: &'static str,
}

/// Everything that does not hold in these crates.
pub(crate) fn breaches(
    sources: &BTreeMap<String, String>,
    crates: &[Crate],
    exempt: &Exempt,
) -> Vec<Breach> {
    let mut found = BTreeSet::new();
    for member in crates {
        let roots = member.roots.iter();
        let mut targets: Vec<Target> = roots
            .map(|(root, test)| Target::read(sources, root, *test))
            .collect();
        for target in &mut targets {
            target.leave_out(exempt.generated);
        }
        let files = files_of(sources, member, crates);
        declared(&files, &targets, exempt, &mut found);
        for file in &files {
            written(file, &sources[*file], exempt, &mut found);
        }
        for target in &targets {
            circles(target, &mut found);
            wide(&target.functions, &mut found);
        }
        if let Some(main) = targets.first() {
            walls(member, main, &mut found);
            silence(member, main, exempt, &mut found);
        }
        rationed(&targets, exempt, &mut found);
        spelt(&targets, exempt, &mut found);
        short(&targets, exempt, &mut found);
        if member.shipped {
            calls(member, &targets, exempt, &mut found);
        }
        long_functions(member, &targets, &mut found);
    }
    found.into_iter().collect()
}

/// Files below the crate's folder that belong to no crate inside it.
fn files_of<'a>(
    sources: &'a BTreeMap<String, String>,
    member: &Crate,
    crates: &[Crate],
) -> BTreeSet<&'a str> {
    let owner = |file: &str| {
        crates
            .iter()
            .filter(|other| file.starts_with(&format!("{}/", other.folder)))
            .max_by_key(|other| other.folder.len())
            .map(|other| other.name.as_str())
    };
    sources
        .keys()
        .map(String::as_str)
        .filter(|file| owner(file) == Some(&member.name))
        .collect()
}

fn declared(
    files: &BTreeSet<&str>,
    targets: &[Target],
    exempt: &Exempt,
    found: &mut BTreeSet<Breach>,
) {
    let mut reached: BTreeSet<&str> = targets.iter().flat_map(Target::files).collect();
    reached.extend(exempt.generated);
    for orphan in files.difference(&reached) {
        found.insert(Breach::of("orphan", *orphan));
    }
    for missing in targets.iter().flat_map(|target| &target.missing) {
        found.insert(Breach::of("missing", missing));
    }
}

fn written(file: &str, text: &str, exempt: &Exempt, found: &mut BTreeSet<Breach>) {
    if exempt.generated.contains(&file) {
        return;
    }
    let header = text.lines().map_while(|line| line.strip_prefix("//!"));
    let words = header.flat_map(str::split_whitespace);
    if words.count() < HEADER_WORDS {
        found.insert(Breach::of("header", file));
    }
    let is_claim = |line: &&str| line.trim_start().starts_with("// Claims: ");
    let of_file = usize::from(text.contains("\n//!\n//! Claims: ")) * 2;
    let lines = text.lines().filter(|line| !is_claim(line)).count() - of_file;
    if lines > FILE_LINES && !exempt.tables.contains(&file) {
        found.insert(Breach::measured("file-lines", file, lines));
    }
}

/// No circle of files, and none of folders beside each other.
fn circles(target: &Target, found: &mut BTreeSet<Breach>) {
    let arrows = target.arrows();
    let module = |index: usize| &target.modules[index];
    let between_files = arrows
        .iter()
        .map(|(from, to)| (module(*from).file.as_str(), module(*to).file.as_str()))
        .filter(|(from, to)| from != to)
        .collect();
    for (from, to) in in_circles(&between_files) {
        found.insert(Breach::of("circle", format!("{from} -> {to}")));
    }

    // By the module that they lie in: the arrows between its children.
    let mut between_folders: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    for (from, to) in &arrows {
        let (from, to) = (&module(*from).path, &module(*to).path);
        let same = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        if let (Some(_), Some(_)) = (from.get(same), to.get(same)) {
            between_folders
                .entry(from[..same].join("/"))
                .or_default()
                .insert((from[..=same].join("/"), to[..=same].join("/")));
        }
    }
    let base = parent_of(&target.modules[0].file);
    let several: BTreeSet<String> = folders(target);
    for arrows in between_folders.values() {
        let arrows = arrows
            .iter()
            .map(|(from, to)| (from.as_str(), to.as_str()))
            .collect();
        for (from, to) in in_circles(&arrows) {
            // Two single files are a circle of files.
            if several.contains(from) || several.contains(to) {
                let subject = format!("{base}/{from}/ -> {base}/{to}/");
                found.insert(Breach::of("circle-of-folders", subject));
            }
        }
    }
}

/// Paths of modules that have files below their own.
fn folders(target: &Target) -> BTreeSet<String> {
    let outside_tests = target.modules.iter().filter(|module| !module.test);
    outside_tests
        .filter(|module| {
            let parent = module.parent.map(|parent| &target.modules[parent].file);
            parent.is_some_and(|parent| *parent != module.file)
        })
        .flat_map(|module| {
            let path = &module.path;
            (1..path.len()).map(move |length| path[..length].join("/"))
        })
        .collect()
}

/// What each room imports stands in the table, and nothing besides.
fn walls(member: &Crate, target: &Target, found: &mut BTreeSet<Breach>) {
    let rooms = &member.rooms;
    let of = |module: &Module| module.path.join("/");
    for module in target.modules.iter().filter(|module| !module.test) {
        if !module.path.is_empty() && rooms.row(&module.path).is_none() {
            let subject = format!("{}/{}", member.name, module.path[0]);
            found.insert(Breach::of("no-row", subject));
        }
    }
    let all = target
        .modules
        .iter()
        .filter(|module| !module.test)
        .map(of)
        .collect();
    for unknown in rooms.unknown(&all) {
        let subject = format!("{}/{unknown}", member.name);
        found.insert(Breach::of("no-room", subject));
    }
    for (from, to) in target.arrows() {
        let (from, to) = (&target.modules[from], &target.modules[to]);
        let Some(row) = rooms.row(&from.path) else {
            continue;
        };
        if !rooms.may_import(row, &to.path) {
            let subject = format!("{} -> {}", from.file, to.file);
            found.insert(Breach::of("wall", subject));
        }
    }
    let edges = target.arrows().into_iter().chain(target.edges());
    let used: BTreeSet<(String, String)> = edges
        .filter_map(|(from, to)| {
            let row = rooms.row(&target.modules[from].path)?;
            Some((row.to_owned(), of(&target.modules[to])))
        })
        .collect();
    for unused in rooms.unused(&used) {
        let subject = format!("{}/{unused}", member.name);
        found.insert(Breach::of("unused-arrow", subject));
    }
}

fn silence(member: &Crate, target: &Target, exempt: &Exempt, found: &mut BTreeSet<Breach>) {
    let rules = exempt.silent.iter().filter(|rule| rule.of == member.name);
    for rule in rules {
        for module in target.naming(rule.about) {
            let path = module.path.join("/");
            let within = |folder: &str| {
                path.strip_prefix(folder)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            if rule.folders.iter().any(|folder| within(folder))
                && !rule.besides.iter().any(|folder| within(folder))
            {
                let subject = format!("{} names {}", module.file, rule.about);
                found.insert(Breach::of("silent", subject));
            }
        }
    }
}

fn rationed(targets: &[Target], exempt: &Exempt, found: &mut BTreeSet<Breach>) {
    for rule in exempt.rationed {
        let within = |file: &str| rule.folders.iter().any(|folder| file.starts_with(folder));
        if !targets.iter().flat_map(Target::files).any(within) {
            continue;
        }
        let mut made: BTreeMap<(&str, &str), (usize, bool)> = BTreeMap::new();
        let calls = targets.iter().flat_map(|target| &target.calls);
        for call in calls.filter(|call| call.method == rule.method) {
            let file = call.file.as_str();
            if within(file) && !rule.besides.contains(&file) {
                let (times, repeated) = made.entry((file, &call.function)).or_default();
                *times += 1;
                *repeated |= call.repeated;
            }
        }
        let allowed = rule.once_in.iter().chain(rule.again_in);
        for (file, function) in allowed.filter(|caller| !made.contains_key(caller)) {
            let subject = format!("{file} {function} never calls {}", rule.method);
            found.insert(Breach::of("rationed", subject));
        }
        for (caller, (times, repeated)) in made {
            let (file, function) = caller;
            let again = rule.again_in.contains(&caller);
            let once = again || rule.once_in.contains(&caller);
            if times > usize::from(once) {
                let subject = format!("{file} {function} calls {}", rule.method);
                found.insert(Breach::measured("rationed", subject, times));
            } else if repeated && !again {
                let subject = format!("{file} {function} calls {} again and again", rule.method);
                found.insert(Breach::of("rationed", subject));
            }
        }
    }
}

/// A name is spelt once: who mistypes the second one has another name.
fn spelt(targets: &[Target], exempt: &Exempt, found: &mut BTreeSet<Breach>) {
    for rule in exempt.spelt {
        let literals = targets.iter().flat_map(|target| &target.literals);
        for literal in literals.filter(|literal| literal.text.starts_with(rule.prefix)) {
            let (file, text) = (literal.file.as_str(), literal.text.as_str());
            let within = rule.folders.iter().any(|folder| file.starts_with(folder));
            let allowed = file == rule.file || rule.besides.contains(&(file, text));
            if within && !allowed && text != rule.prefix {
                found.insert(Breach::of("spelt", format!("{file} spells {text}")));
            }
        }
    }
}

fn wide(functions: &[Function], found: &mut BTreeSet<Breach>) {
    for function in functions {
        let subject = format!("{} {}", function.file, function.name);
        if function.parameters > PARAMETERS {
            let amount = function.parameters;
            found.insert(Breach::measured("parameters", &subject, amount));
        }
        if function.lines > FUNCTION_LINES {
            found.insert(Breach::measured("function-lines", subject, function.lines));
        }
    }
}

/// Functions that are to be short are, and are there: a new name takes its row along.
fn short(targets: &[Target], exempt: &Exempt, found: &mut BTreeSet<Breach>) {
    let files: BTreeSet<&str> = targets.iter().flat_map(Target::files).collect();
    let rows = exempt.short.iter();
    for (file, name) in rows.filter(|(file, _)| files.contains(file)) {
        let functions = targets.iter().flat_map(|target| &target.functions);
        let lines = functions
            .filter(|function| !function.test && function.file == *file && function.name == *name)
            .map(|function| function.lines)
            .max();
        let subject = format!("{file} {name}");
        let breach = match lines {
            None => Breach::of("short-function", format!("{subject} is not there")),
            Some(lines) if lines > MOST_FUNCTION_LINES => {
                Breach::measured("short-function", subject, lines)
            }
            Some(_) => continue,
        };
        found.insert(breach);
    }
}

fn long_functions(member: &Crate, targets: &[Target], found: &mut BTreeSet<Breach>) {
    let functions = targets.iter().flat_map(|target| &target.functions);
    let mut lines: Vec<usize> = functions
        .filter(|function| !function.test)
        .map(|function| function.lines)
        .collect();
    lines.sort_unstable();
    // One in a hundred may be longer, rounded down: of few functions none.
    let longest = lines.len().checked_sub(1 + lines.len() / 100);
    if let Some(at) = longest
        && lines[at] > MOST_FUNCTION_LINES
    {
        let breach = Breach::measured("most-function-lines", &member.name, lines[at]);
        found.insert(breach);
    }
}

/// `unwrap` not at all, and `expect` where an invariant holds that stands beside it:
/// those that nothing outside can break are named one by one, and how many others there
/// are is counted per crate, so that moving one is no breach.
fn calls(member: &Crate, targets: &[Target], exempt: &Exempt, found: &mut BTreeSet<Breach>) {
    let calls = || targets.iter().flat_map(|target| &target.calls);
    for call in calls().filter(|call| call.method == "unwrap") {
        found.insert(Breach::of("unwrap", &call.file));
    }
    let mut left: BTreeSet<(&str, &str)> = exempt.proven.iter().copied().collect();
    let expects = calls().filter(|call| call.method == "expect");
    // Once each: a second one in the same function has to be thought of anew.
    let others = expects.filter(|call| !left.remove(&(call.file.as_str(), &call.function)));
    let others = others.count();
    if others > 0 {
        found.insert(Breach::measured("expect", &member.name, others));
    }
    let files: BTreeSet<&str> = targets.iter().flat_map(Target::files).collect();
    for (file, function) in left.into_iter().filter(|(file, _)| files.contains(file)) {
        found.insert(Breach::of(
            "proven",
            format!("{file} {function} expects nothing"),
        ));
    }
}
