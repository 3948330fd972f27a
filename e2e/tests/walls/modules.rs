//! The modules of one crate, as its `mod` lines declare them, and what each names.
//!
//! Read from the source and not from the compiler, because a wall stands between
//! files: a re-export is looked through, so a name counts for the file that defines
//! it, and tests do not count, since they may import what other modules may not.

use std::collections::{BTreeMap, BTreeSet};

use crate::reader;

/// How far a chain of re-exports is followed; more is a circle of them.
const REEXPORTS: usize = 16;

/// Where a name leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    Module(usize),
    /// Something that this module defines.
    Item(usize),
    /// Another crate.
    External(String),
}

#[derive(Debug, Default)]
pub(crate) struct Module {
    /// `["outbound", "route"]`; empty for the root.
    pub path: Vec<String>,
    pub file: String,
    pub test: bool,
    pub parent: Option<usize>,
    pub children: BTreeMap<String, usize>,
    pub items: BTreeSet<String>,
    pub imports: BTreeMap<String, Vec<String>>,
    pub globs: Vec<Vec<String>>,
    /// Every path that the code names, those of imports too, but for what it only
    /// hands on to others.
    pub named: BTreeSet<Vec<String>>,
}

/// One function, for its measures.
#[derive(Debug)]
pub(crate) struct Function {
    pub file: String,
    pub name: String,
    pub lines: usize,
    pub parameters: usize,
    pub test: bool,
}

/// A call outside tests of one of the methods that rules are about.
#[derive(Debug)]
pub(crate) struct Call {
    pub file: String,
    pub function: String,
    pub method: &'static str,
    /// In a loop or a closure, so that one call in the text may be many.
    pub repeated: bool,
}

/// Text in the code outside tests that may be the name of something: lower case, in words.
#[derive(Debug)]
pub(crate) struct Literal {
    pub file: String,
    pub text: String,
}

/// What one root file (a library, a binary, an integration test) consists of.
#[derive(Debug, Default)]
pub(crate) struct Target {
    pub modules: Vec<Module>,
    pub functions: Vec<Function>,
    pub calls: Vec<Call>,
    pub literals: Vec<Literal>,
    /// Modules that are declared, but have no file, or none that can be read.
    pub missing: Vec<String>,
}

impl Target {
    /// `test`: all of it is one, as integration tests are.
    pub(crate) fn read(sources: &BTreeMap<String, String>, root: &str, test: bool) -> Self {
        let mut target = Self::default();
        target.modules.push(Module {
            file: root.to_owned(),
            test,
            ..Module::default()
        });
        let folder = parent_of(root);
        reader::read(&mut target, sources, 0, root, &folder);
        target
    }

    /// Drops the functions of these files, which are generated. Their imports stay.
    pub(crate) fn leave_out(&mut self, files: &[&str]) {
        let written = |file: &String| !files.contains(&file.as_str());
        self.functions.retain(|function| written(&function.file));
        self.calls.retain(|call| written(&call.file));
        self.literals.retain(|literal| written(&literal.file));
    }

    pub(crate) fn files(&self) -> BTreeSet<&str> {
        self.modules
            .iter()
            .map(|module| module.file.as_str())
            .collect()
    }

    /// Which module outside tests names which: by index, once each.
    pub(crate) fn arrows(&self) -> BTreeSet<(usize, usize)> {
        let mut arrows = BTreeSet::new();
        for (from, module) in self.modules.iter().enumerate() {
            if module.test {
                continue;
            }
            let globs = module
                .globs
                .iter()
                .filter_map(|path| self.resolve(from, path, REEXPORTS));
            let named = module
                .named
                .iter()
                .filter_map(|path| self.resolve(from, path, REEXPORTS))
                // A module that is only brought into scope; its use counts.
                .filter(|target| !matches!(target, Resolution::Module(_)));
            for target in globs.chain(named) {
                if let Resolution::Item(to) | Resolution::Module(to) = target
                    && !self.modules[to].test
                {
                    arrows.insert((from, to));
                }
            }
        }
        arrows
    }

    /// Which module outside tests goes by which in the paths that it names. That is more
    /// than arrows are: what a module only hands on is defined elsewhere, maybe in another
    /// crate, and is found by way of this one nevertheless.
    pub(crate) fn edges(&self) -> BTreeSet<(usize, usize)> {
        let mut edges = BTreeSet::new();
        for (from, module) in self.modules.iter().enumerate() {
            if module.test {
                continue;
            }
            for path in module.named.iter().chain(&module.globs) {
                for length in 1..=path.len() {
                    let target = self.resolve(from, &path[..length], REEXPORTS);
                    if let Some(Resolution::Module(by)) = target {
                        edges.insert((from, by));
                    }
                }
            }
        }
        edges
    }

    /// Modules outside tests that name this other crate.
    pub(crate) fn naming<'a>(&'a self, other: &'a str) -> impl Iterator<Item = &'a Module> {
        self.modules
            .iter()
            .enumerate()
            .filter(|(_, module)| !module.test)
            .filter(move |(from, module)| {
                let paths = module.named.iter().chain(&module.globs);
                paths
                    .filter_map(|path| self.resolve(*from, path, REEXPORTS))
                    .any(|target| target == Resolution::External(other.to_owned()))
            })
            .map(|(_, module)| module)
    }

    fn resolve(&self, from: usize, path: &[String], left: usize) -> Option<Resolution> {
        let left = left.checked_sub(1)?;
        let (first, mut rest) = path.split_first()?;
        let mut target = match first.as_str() {
            "crate" => Resolution::Module(0),
            "self" => Resolution::Module(from),
            "super" => Resolution::Module(self.modules[from].parent?),
            "Self" => return None,
            "" => {
                let (name, _) = rest.split_first()?;
                return Some(Resolution::External(name.clone()));
            }
            name => match self.member(from, name, left) {
                Some(target) => target,
                // A variable, or what the language brings.
                None if rest.is_empty() => return None,
                None => Resolution::External(name.to_owned()),
            },
        };
        while let Some((segment, after)) = rest.split_first() {
            let Resolution::Module(module) = target else {
                break;
            };
            target = match segment.as_str() {
                "super" => Resolution::Module(self.modules[module].parent?),
                "self" => Resolution::Module(module),
                name => self
                    .member(module, name, left)
                    // Made by a macro, or an associated item.
                    .unwrap_or(Resolution::Item(module)),
            };
            rest = after;
        }
        Some(target)
    }

    fn member(&self, module: usize, name: &str, left: usize) -> Option<Resolution> {
        let at = &self.modules[module];
        if let Some(child) = at.children.get(name) {
            return Some(Resolution::Module(*child));
        }
        if at.items.contains(name) {
            return Some(Resolution::Item(module));
        }
        if let Some(path) = at.imports.get(name) {
            return self.resolve(module, path, left);
        }
        let left = left.checked_sub(1)?;
        at.globs.iter().find_map(|path| {
            let Resolution::Module(other) = self.resolve(module, path, left)? else {
                return None;
            };
            (other != module)
                .then(|| self.member(other, name, left))
                .flatten()
        })
    }
}

pub(crate) fn parent_of(file: &str) -> String {
    file.rsplit_once('/')
        .map(|(folder, _)| folder.to_owned())
        .unwrap_or_default()
}
