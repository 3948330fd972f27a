//! Functions that the compiler merged into their callers, put back from the
//! debug information. With link-time optimisation most of the proxy is merged:
//! without this a picture shows few and very broad boxes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};

use crate::namespaces;

/// Enough for the headers of a program; Rust's have a dozen, of 56 bytes each.
const HEADERS: u64 = 64 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inlined {
    segments: Vec<Segment>,
    /// For an address, the function that stands there, then those it is merged
    /// into, the last of which is one that the program has.
    functions: BTreeMap<u64, Vec<String>>,
}

/// A piece of the program's file and the address that the linker gave it. `perf`
/// uses places in the file, debug information the linker's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    file_offset: u64,
    size: u64,
    address: u64,
}

impl Inlined {
    /// Queries `addr2line` about places in the program's file; `list` is a file for
    /// the query.
    ///
    /// # Errors
    /// When it is not there or cannot read the program.
    pub(crate) fn ask(program: &Path, file_offsets: &BTreeSet<u64>, list: &Path) -> Result<Self> {
        let mut headers = Vec::new();
        File::open(program)?
            .take(HEADERS)
            .read_to_end(&mut headers)?;
        let segments = segments(&headers)
            .with_context(|| format!("{} has unknown headers", program.display()))?;
        let addresses = file_offsets
            .iter()
            .filter_map(|file_offset| address(&segments, *file_offset));
        let lines: String = addresses.map(|at| format!("{at:#x}\n")).collect();
        fs::write(list, lines)?;
        let (program, list) = (program.to_string_lossy(), format!("@{}", list.display()));
        let line = ["addr2line", "-a", "-f", "-i", "-C", "-e", &program, &list];
        let output = namespaces::run(&line).context("addr2line (Debian: binutils)")?;
        Ok(Self::read(
            &String::from_utf8_lossy(&output.stdout),
            segments,
        ))
    }

    /// For each address a line with it, then name and place in turns.
    fn read(output: &str, segments: Vec<Segment>) -> Self {
        let mut all = BTreeMap::new();
        let mut functions: Option<&mut Vec<String>> = None;
        let mut lines = output.lines();
        while let Some(line) = lines.next() {
            let address = line.strip_prefix("0x");
            if let Some(address) = address.and_then(|hex| u64::from_str_radix(hex, 16).ok()) {
                functions = Some(all.entry(address).or_default());
            } else if let Some(functions) = &mut functions {
                functions.push(line.to_owned());
                lines.next();
            }
        }
        Self {
            segments,
            functions: all,
        }
    }

    /// What was merged into `function` at this place of the file, the innermost
    /// first. Nothing when the debug information sees another function there: of
    /// equal code the linker keeps one, and then it names another's source.
    pub(crate) fn at(&self, file_offset: u64, function: &str) -> &[String] {
        let functions = address(&self.segments, file_offset).and_then(|at| self.functions.get(&at));
        match functions.map(Vec::as_slice) {
            Some([merged @ .., whole]) if whole == function => merged,
            _ => &[],
        }
    }

    #[cfg(test)]
    pub(crate) fn of_unmoved(output: &str) -> Self {
        let all = Segment {
            file_offset: 0,
            size: u64::MAX,
            address: 0,
        };
        Self::read(output, vec![all])
    }
}

fn address(segments: &[Segment], file_offset: u64) -> Option<u64> {
    segments.iter().find_map(|segment| {
        let inside = file_offset.checked_sub(segment.file_offset)?;
        (inside < segment.size).then(|| segment.address.checked_add(inside))?
    })
}

/// The loaded segments of a program in the form of 64-bit little-endian ELF.
fn segments(file: &[u8]) -> Option<Vec<Segment>> {
    const LOADED: u64 = 1;
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let bytes = file.get(at..at.checked_add(bytes)?)?;
        let number = bytes.iter().rev();
        Some(number.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (first, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let mut segments = Vec::new();
    for n in 0..count {
        let at = usize::try_from(first.checked_add(n * size)?).ok()?;
        if number(at, 4)? == LOADED {
            segments.push(Segment {
                file_offset: number(at + 8, 8)?,
                address: number(at + 16, 8)?,
                size: number(at + 32, 8)?,
            });
        }
    }
    Some(segments)
}

#[cfg(test)]
mod tests {
    use super::{Inlined, Segment, address, segments};

    const OUTPUT: &str = "0x00000000004325a0\na::inner\n/src/a.rs:7\na::outer\n??:0\nmain\n/src/main.rs:1\n\
0x0000000000000010\n??\n??:0\n0x0000000000000020\nalone\n/src/a.rs:9\n";

    #[test]
    fn merged_functions_are_those_before_the_last() {
        let inlined = Inlined::of_unmoved(OUTPUT);
        assert_eq!(inlined.at(0x4325a0, "main"), ["a::inner", "a::outer"]);
        assert!(inlined.at(0x20, "alone").is_empty());
        assert!(inlined.at(0x30, "main").is_empty());
    }

    #[test]
    fn debug_information_of_another_function_is_not_believed() {
        assert!(Inlined::of_unmoved(OUTPUT).at(0x4325a0, "other").is_empty());
        assert!(Inlined::of_unmoved(OUTPUT).at(0x10, "other").is_empty());
    }

    #[test]
    fn file_offset_maps_to_linker_address() {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (file[32], file[54], file[56]) = (64, 56, 2);
        // One that is not loaded, and one that is, 0x1000 further than in the file.
        for (loaded, file_offset, moved, size) in
            [(4_u64, 0x10_u64, 0x99_u64, 8_u64), (1, 0x200, 0x1200, 0x40)]
        {
            for number in [loaded, file_offset, moved, 0, size, 0, 0] {
                file.extend(number.to_le_bytes());
            }
        }
        let segments = segments(&file).unwrap();
        let only = Segment {
            file_offset: 0x200,
            size: 0x40,
            address: 0x1200,
        };
        assert_eq!(segments, [only]);
        assert_eq!(address(&segments, 0x23f), Some(0x123f));
        assert_eq!(address(&segments, 0x240), None);
        assert_eq!(address(&segments, 0x1ff), None);
        assert_eq!(super::segments(&file[..100]), None, "cut off");
        assert_eq!(super::segments(b"#!/bin/sh"), None);
    }
}
