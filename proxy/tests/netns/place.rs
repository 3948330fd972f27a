//! Two network namespaces and a cable: `pod` with the application's and the
//! proxy's stand-ins, `peer` with everything else in the world.
//!
//! pod  10.77.0.2 fd77::2, default routes to the peer
//! peer 10.77.0.1 fd77::1, and addresses further away

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::Once;
use std::time::Duration;
use std::{fs, path::Path, path::PathBuf};

use super::roles::{ARGUMENTS, Met, ROLE};

const PREFIX: &str = "weft-t-";

/// Whose connection it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    /// An application that runs as root.
    App,
    /// The init container: uid 0 with NET_ADMIN and nothing else.
    Init,
    /// uid and gid, without further groups.
    Ids(u32, u32),
}

pub(crate) struct Place {
    pod: Namespace,
    peer: Namespace,
    _servers: Vec<Process>,
}

impl Place {
    /// Rules written, everybody listening.
    pub(crate) fn captured(name: &str, arguments: &[&str]) -> Self {
        let place = Self::bare(name);
        place.pod.capture(arguments).unwrap();
        place
    }

    /// Everybody listening, no rules.
    pub(crate) fn bare(name: &str) -> Self {
        let mut place = Self::unoccupied(name);
        place._servers.push(place.pod.serve(
            "outbound=127.0.0.1:15101 outbound=[::1]:15101 inbound=[::]:15106 mesh=[::]:15108 \
             admin=[::]:15190 app=[::]:8080 app=[::]:8081",
        ));
        place._servers.push(
            place.peer.serve(
                "peer=[::]:7999 peer=[::]:8000 peer=[::]:8001 peer=[::]:8002 peer=[::]:9000",
            ),
        );
        place
    }

    /// Both families have routes, nobody listens, no rules.
    pub(crate) fn unoccupied(name: &str) -> Self {
        let place = Self::joined(name);
        place.with_ipv4();
        place.with_ipv6();
        place
    }

    pub(crate) fn without_ipv6(name: &str) -> Self {
        let place = Self::joined(name);
        place.with_ipv4();
        place
            .pod
            .run(&["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
        place
    }

    pub(crate) fn without_ipv4(name: &str) -> Self {
        let place = Self::joined(name);
        place.with_ipv6();
        place
    }

    pub(crate) fn pod(&self) -> &Namespace {
        &self.pod
    }

    pub(crate) fn peer(&self) -> &Namespace {
        &self.peer
    }

    fn joined(name: &str) -> Self {
        static CLEAN: Once = Once::new();
        CLEAN.call_once(remove_what_dead_runs_left);
        let place = Self {
            pod: Namespace::new(&format!("{name}-pod")),
            peer: Namespace::new(&format!("{name}-peer")),
            _servers: Vec::new(),
        };
        let (pod, peer) = (&place.pod.name, &place.peer.name);
        run(&[
            "ip", "-n", pod, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0",
            "netns", peer,
        ]);
        for namespace in [&place.pod, &place.peer] {
            namespace.ip("link set lo up");
            namespace.ip("link set eth0 up");
        }
        place
    }

    fn with_ipv4(&self) {
        self.pod.ip("addr add 10.77.0.2/24 dev eth0");
        self.pod.ip("route add default via 10.77.0.1");
        self.peer.ip("addr add 10.77.0.1/24 dev eth0");
        for far in ["198.51.100.7", "198.51.101.7"] {
            self.peer.ip(&format!("addr add {far}/32 dev lo"));
        }
    }

    fn with_ipv6(&self) {
        // Without duplicate address detection, addresses work at once.
        self.pod.ip("addr add fd77::2/64 dev eth0 nodad");
        self.peer.ip("addr add fd77::1/64 dev eth0 nodad");
        self.pod.ip("route add default via fd77::1");
        for far in ["2001:db8:77::7", "2001:db8:78::7"] {
            self.peer.ip(&format!("addr add {far}/128 dev lo nodad"));
        }
    }
}

/// A network namespace that goes with this value.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    fn new(name: &str) -> Self {
        let name = format!("{PREFIX}{}-{name}", std::process::id());
        let output = Command::new("ip").args(["netns", "add", &name]).output();
        let output = output.expect("the program `ip` (iproute2) is needed");
        assert!(
            output.status.success(),
            "these tests make network namespaces and need root: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self { name }
    }

    /// Dials from here and tells who answered.
    #[track_caller]
    pub(crate) fn connect(&self, who: Who, to: &str) -> Met {
        self.try_connect(who, to)
            .unwrap_or_else(|error| panic!("{to} as {who:?}: {error}"))
    }

    pub(crate) fn try_connect(&self, who: Who, to: &str) -> Result<Met, String> {
        let mut process = Process::play(self, who, "connect", to);
        serde_json::from_str(&process.line()).unwrap()
    }

    /// A connection that stays open and echoes.
    pub(crate) fn hold(&self, to: &str) -> Held {
        let mut process = Process::play(self, Who::App, "hold", to);
        let dialled: Result<Met, String> = serde_json::from_str(&process.line()).unwrap();
        Held {
            greeting: dialled.unwrap(),
            process,
        }
    }

    /// A connection that is watched closely, and waits for an answer to
    /// `question`, or for nothing. Ends with how long it took to be given up.
    pub(crate) fn watch(&self, to: &str, question: &str) -> Watch {
        let mut process = Process::play(self, Who::App, "watch", &format!("{to} {question}"));
        assert_eq!(process.line(), "\"ready\"");
        Watch(process)
    }

    /// Asks for a path so many times, on one connection.
    pub(crate) fn ask(&self, from: &str, to: &str, path: &str, count: usize) -> String {
        let arguments = format!("{from} {to} {path} {count}");
        let line = Process::play(self, Who::App, "ask", &arguments).line();
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn page(&self, to: &str, path: &str) -> String {
        let line = Process::play(self, Who::App, "page", &format!("{to} {path}")).line();
        serde_json::from_str(&line).unwrap()
    }

    /// Returns when all connections are open.
    pub(crate) fn flood(&self, to: &str, count: usize) -> Flood {
        let mut process = Process::play(self, Who::App, "flood", &format!("{to} {count}"));
        assert_eq!(process.line(), "\"ready\"");
        Flood(process)
    }

    /// Returns when so many connections of one kind are open.
    pub(crate) fn hoard(&self, to: &str, kind: &str, count: usize) -> Flood {
        let arguments = format!("{to} {kind} {count}");
        let mut process = Process::play(self, Who::App, "hoard", &arguments);
        assert_eq!(process.line(), "\"ready\"");
        Flood(process)
    }

    /// Runs the real `weft-proxy run`, without a controller. `logs`: they go
    /// where this test's go, else nobody reads them. In a `group` it sees the limit as
    /// in a container.
    pub(crate) fn proxy(&self, bundle: &str, logs: bool, group: Option<&Group>) -> Proxy {
        let binary = env!("CARGO_BIN_EXE_weft-proxy");
        let pipe = || {
            if logs {
                Stdio::inherit()
            } else {
                Stdio::piped()
            }
        };
        let mut command = match group {
            None => self.command(Who::Ids(15190, 15190), binary),
            Some(group) => self.limited(group.limit, Who::Ids(15190, 15190), binary),
        };
        let child = command
            .arg("run")
            .envs([
                ("WEFT_TRUST_DOMAIN", "cluster.local"),
                ("WEFT_NAMESPACE", "shop"),
                ("WEFT_SERVICE_ACCOUNT", "web"),
                ("WEFT_CONTROLLER_NAMESPACE", "weft-system"),
                ("WEFT_POD_NAME", "web-1"),
                ("WEFT_POD_IPS", "10.77.0.2"),
                ("WEFT_CONTROLLER_ADDRESS", "127.0.0.1:1"),
                ("WEFT_TOKEN_FILE", "/none"),
                ("WEFT_TRUST_BUNDLE", bundle),
                ("WEFT_ACCESS_LOG", if logs { "off" } else { "json" }),
            ])
            .stdout(pipe())
            .stderr(pipe())
            .spawn()
            .unwrap();
        if let Some(group) = group {
            // What it holds already counts for where it was: a few pages.
            fs::write(group.folder.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        Proxy(child)
    }

    /// Takes the cable off: whoever is on the other side hears nothing more.
    pub(crate) fn unplug(&self) {
        self.ip("link set eth0 down");
    }

    /// Runs the real `weft-proxy capture` and gives what it says.
    pub(crate) fn capture(&self, arguments: &[&str]) -> Result<String, String> {
        self.capture_as(Who::Init, arguments)
    }

    /// With what a container is told by its environment.
    pub(crate) fn capture_told(
        &self,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> Result<String, String> {
        let mut command = self.command(Who::Init, env!("CARGO_BIN_EXE_weft-proxy"));
        command.envs(environment.iter().copied());
        said(command.arg("capture").args(arguments))
    }

    pub(crate) fn capture_as(&self, who: Who, arguments: &[&str]) -> Result<String, String> {
        let binary = env!("CARGO_BIN_EXE_weft-proxy");
        said(self.command(who, binary).arg("capture").args(arguments))
    }

    /// The rules as somebody else's program sees them.
    pub(crate) fn ruleset(&self) -> String {
        let output = run(&["ip", "netns", "exec", &self.name, "nft", "list", "ruleset"]);
        String::from_utf8(output.stdout).unwrap()
    }

    fn serve(&self, what: &str) -> Process {
        let mut process = Process::play(self, Who::App, "serve", what);
        assert_eq!(process.line(), "\"ready\"");
        process
    }

    fn ip(&self, arguments: &str) {
        let family = if arguments.contains("::") { "-6" } else { "-4" };
        let line: Vec<_> = ["ip", family, "-n", &self.name]
            .into_iter()
            .chain(arguments.split(' '))
            .collect();
        run(&line);
    }

    fn run(&self, line: &[&str]) {
        run(&[&["ip", "netns", "exec", &self.name], line].concat());
    }

    fn command(&self, who: Who, program: &str) -> Command {
        self.command_behind(&[], who, program)
    }

    /// The same for a program that finds this memory limit in bytes where a container
    /// finds its own. Each such command has mounts of its own.
    fn limited(&self, limit: u64, who: Who, program: &str) -> Command {
        let mounts = "mount -t tmpfs none /sys/fs/cgroup && \
                      echo \"$0\" > /sys/fs/cgroup/memory.max && exec \"$@\"";
        self.command_behind(&["sh", "-c", mounts, &limit.to_string()], who, program)
    }

    fn command_behind(&self, first: &[&str], who: Who, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(first);
        if let Who::Ids(uid, gid) = who {
            let (uid, gid) = (uid.to_string(), gid.to_string());
            command.args([
                "setpriv",
                "--reuid",
                &uid,
                "--regid",
                &gid,
                "--clear-groups",
                "--",
            ]);
        }
        command.arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removed = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
        assert!(
            removed.is_ok_and(|status| status.success()),
            "{} is left behind",
            self.name
        );
    }
}

fn said(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        Err(said)
    }
}

pub(crate) struct Flood(Process);

impl Flood {
    /// What it says next.
    pub(crate) fn tell(&mut self) -> String {
        serde_json::from_str(&self.0.line()).unwrap()
    }
}

/// The real proxy, ended with this value.
pub(crate) struct Proxy(Child);

impl Proxy {
    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Tells it to end, and gives what it wrote to standard error.
    pub(crate) fn end(mut self) -> String {
        let pid = self.0.id().to_string();
        run(&["kill", "-TERM", &pid]);
        let mut said = Vec::new();
        // Both at once: it writes to both.
        let mut out = self.0.stdout.take().unwrap();
        let reading = std::thread::spawn(move || {
            std::io::copy(&mut out, &mut std::io::sink()).unwrap();
        });
        let mut errors = self.0.stderr.take().unwrap();
        std::io::Read::read_to_end(&mut errors, &mut said).unwrap();
        reading.join().unwrap();
        assert!(self.0.wait().unwrap().success());
        String::from_utf8_lossy(&said).into_owned()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A control group with a memory limit, of version 2 or 1. Gone with this value, once
/// nobody is in it.
pub(crate) struct Group {
    folder: PathBuf,
    /// In bytes.
    limit: u64,
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

    /// The most that was held at one time, in MiB, where the kernel tells.
    pub(crate) fn peak(&self) -> Option<u64> {
        let files = ["memory.peak", "memory.max_usage_in_bytes"];
        let mut files = files.iter().map(|file| self.folder.join(file));
        let told = files.find_map(|file| fs::read_to_string(file).ok())?;
        Some(told.trim().parse::<u64>().unwrap() >> 20)
    }

    /// How often somebody in it was killed for want of memory.
    pub(crate) fn killed(&self) -> u64 {
        let files = ["memory.events", "memory.oom_control"];
        let mut files = files.iter().map(|file| self.folder.join(file));
        let told = files
            .find_map(|file| fs::read_to_string(file).ok())
            .unwrap();
        let line = told.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.unwrap().trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Who was in it ends a moment after it was told.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub(crate) struct Watch(Process);

impl Watch {
    /// Seconds until the connection was given up, from the start or the question.
    pub(crate) fn given_up_after(mut self) -> u64 {
        writeln!(self.0.stdin, "ask").unwrap();
        let answer: Result<u64, String> = serde_json::from_str(&self.0.line()).unwrap();
        answer.unwrap()
    }
}

pub(crate) struct Held {
    pub(crate) greeting: Met,
    process: Process,
}

impl Held {
    pub(crate) fn echo(&mut self, text: &str) -> String {
        writeln!(self.process.stdin, "{text}").unwrap();
        serde_json::from_str(&self.process.line()).unwrap()
    }
}

/// This test binary in a role, ended with this value.
struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn play(namespace: &Namespace, who: Who, role: &str, arguments: &str) -> Self {
        let this = std::env::current_exe().unwrap();
        let mut child = namespace
            .command(who, this.to_str().unwrap())
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

    /// The next line that is JSON; the harness writes others.
    fn line(&mut self) -> String {
        let json = |line: &String| line.starts_with(['{', '"']);
        let line = self.lines.by_ref().map(Result::unwrap).find(json);
        line.unwrap_or_else(|| panic!("the helper process ended: {:?}", self.child.wait()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Namespaces whose maker is no more: a run that was killed.
fn remove_what_dead_runs_left() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let maker = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if maker.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // A run beside this one may be quicker.
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

fn run(line: &[&str]) -> Output {
    let output = Command::new(line[0]).args(&line[1..]).output().unwrap();
    assert!(
        output.status.success(),
        "{}: {}",
        line.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
