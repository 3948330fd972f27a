//! Processes inside a namespace, and their limits.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use std::{fs, path::Path, path::PathBuf};

use super::roles::{ARGUMENTS, Met, ROLE};
use super::testbed::{Namespace, PREFIX, Who, run};

pub(crate) struct Flood(pub(super) Process);

impl Flood {
    /// Its next line of output.
    pub(crate) fn report(&mut self) -> String {
        serde_json::from_str(&self.0.line()).unwrap()
    }
}

/// The real proxy, ended with this value.
pub(crate) struct Proxy(pub(super) Child);

impl Proxy {
    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// How many files it may have open: the soft limit and the hard one.
    pub(crate) fn open_files(&self) -> Vec<String> {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.0.id())).unwrap();
        let mut lines = limits.lines();
        let line = lines.find_map(|line| line.strip_prefix("Max open files"));
        let words = line.unwrap().split_whitespace();
        words.take(2).map(str::to_owned).collect()
    }

    /// Stops the process, and returns its standard error.
    pub(crate) fn end(mut self) -> String {
        let pid = self.0.id().to_string();
        run(&["kill", "-TERM", &pid]);
        let mut output = Vec::new();
        // Both at once: it writes to both.
        let mut out = self.0.stdout.take().unwrap();
        let reading = std::thread::spawn(move || {
            std::io::copy(&mut out, &mut std::io::sink()).unwrap();
        });
        let mut errors = self.0.stderr.take().unwrap();
        std::io::Read::read_to_end(&mut errors, &mut output).unwrap();
        reading.join().unwrap();
        assert!(self.0.wait().unwrap().success());
        String::from_utf8_lossy(&output).into_owned()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A control group with a memory limit, of version 2 or 1. Dropping this value removes it once it
/// holds no process.
pub(crate) struct Group {
    pub(super) folder: PathBuf,
    /// In bytes.
    pub(super) limit: u64,
}

impl Group {
    pub(crate) fn of_mebibytes(name: &str, limit: u64) -> Self {
        let base = Path::new("/sys/fs/cgroup");
        let controllers = fs::read_to_string(base.join("cgroup.controllers"));
        let unified = controllers.is_ok_and(|names| names.contains("memory"));
        let (base, file) = if unified {
            fs::write(base.join("cgroup.subtree_control"), "+memory").unwrap();
            (base.to_owned(), "memory.max")
        } else {
            (base.join("memory"), "memory.limit_in_bytes")
        };
        let group = base.join(format!("{PREFIX}{}-{name}", std::process::id()));
        fs::create_dir(&group).expect("these tests limit memory and need control groups");
        let limit = limit << 20;
        fs::write(group.join(file), limit.to_string()).unwrap();
        Self {
            folder: group,
            limit,
        }
    }

    /// The processes in it, by number.
    pub(crate) fn processes(&self) -> Vec<String> {
        let content = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap();
        content.lines().map(str::to_owned).collect()
    }

    /// Peak memory in MiB, where the kernel reports it.
    pub(crate) fn peak(&self) -> Option<u64> {
        let files = ["memory.peak", "memory.max_usage_in_bytes"];
        let mut files = files.iter().map(|file| self.folder.join(file));
        let content = files.find_map(|file| fs::read_to_string(file).ok())?;
        Some(content.trim().parse::<u64>().unwrap() >> 20)
    }

    /// How often the kernel killed a process in it for want of memory.
    pub(crate) fn killed(&self) -> u64 {
        let files = ["memory.events", "memory.oom_control"];
        let mut files = files.iter().map(|file| self.folder.join(file));
        let content = files
            .find_map(|file| fs::read_to_string(file).ok())
            .unwrap();
        let line = content
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "));
        line.unwrap().trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process in it ends a moment after its signal.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub(crate) struct Watch(pub(super) Process);

impl Watch {
    /// Seconds until the connection was given up, from the start or the question.
    pub(crate) fn failed_after(mut self) -> u64 {
        writeln!(self.0.stdin, "ask").unwrap();
        let answer: Result<u64, String> = serde_json::from_str(&self.0.line()).unwrap();
        answer.unwrap()
    }
}

pub(crate) struct EchoConnection {
    pub(crate) greeting: Met,
    pub(super) process: Process,
}

impl EchoConnection {
    pub(crate) fn echo(&mut self, text: &str) -> String {
        writeln!(self.process.stdin, "{text}").unwrap();
        serde_json::from_str(&self.process.line()).unwrap()
    }
}

/// This test binary in a role, ended with this value.
pub(super) struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(super) fn play(namespace: &Namespace, who: Who, role: &str, arguments: &str) -> Self {
        let command = namespace.command(who, &this_binary());
        Self::begin(command, role, arguments)
    }

    /// The same in a `group`, where it sees the limit as in a container.
    pub(super) fn play_limited(
        group: &Group,
        namespace: &Namespace,
        who: Who,
        role: &str,
        arguments: &str,
    ) -> Self {
        let command = namespace.limited(group.limit, who, &this_binary());
        let process = Self::begin(command, role, arguments);
        // What it holds already counts for where it was: a few pages.
        let id = process.child.id().to_string();
        fs::write(group.folder.join("cgroup.procs"), id).unwrap();
        process
    }

    fn begin(mut command: Command, role: &str, arguments: &str) -> Self {
        let mut child = command
            .args(["--exact", "helper_process_plays_its_role", "--nocapture"])
            .env(ROLE, role)
            .env(ARGUMENTS, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            child,
            stdin,
            lines: BufReader::new(stdout).lines(),
        }
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Has it do what this line says, and waits until it has.
    pub(super) fn order(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
        assert_eq!(self.line(), "\"done\"");
    }

    /// The next line that is JSON; the harness writes others.
    pub(super) fn line(&mut self) -> String {
        let json = |line: &String| line.starts_with(['{', '"']);
        let line = self.lines.by_ref().map(Result::unwrap).find(json);
        line.unwrap_or_else(|| panic!("the helper process ended: {:?}", self.child.wait()))
    }
}

fn this_binary() -> String {
    let this = std::env::current_exe().unwrap();
    this.to_str().unwrap().to_owned()
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
