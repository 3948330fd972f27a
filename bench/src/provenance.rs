//! Where and of what a page of figures was made.

use std::fs;
use std::process::Command;

/// The commit that is checked out, and whether any of `sources` differs from it.
pub(crate) fn commit(sources: &[&str]) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&[&["status", "--porcelain", "--"], sources].concat()).as_deref() {
        Some("") => commit,
        _ => format!("{commit} with uncommitted changes"),
    }
}

/// Cores, processor, memory and kernel.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cpu =
        field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown CPU".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores of {cpu}, {} GiB, Linux {}",
        kib / (1024 * 1024),
        kernel.trim()
    )
}
