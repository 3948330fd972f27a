//! Two network namespaces and a cable: `pod` with the application's and the
//! proxy's stand-ins, `peer` with everything else in the world.
//!
//! pod  10.77.0.2 fd77::2, default routes to the peer
//! peer 10.77.0.1 fd77::1, and addresses further away

use std::process::{Command, Output, Stdio};
use std::sync::Once;
use std::{fs, path::Path};

use super::processes::{EchoConnection, Flood, Group, Process, Proxy, Watch};
use super::roles::Met;

pub(super) const PREFIX: &str = "weft-t-";

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

pub(crate) struct Testbed {
    pod: Namespace,
    peer: Namespace,
    _servers: Vec<Process>,
}

impl Testbed {
    /// Rules written, everybody listening.
    pub(crate) fn captured(name: &str, arguments: &[&str]) -> Self {
        let testbed = Self::bare(name);
        testbed.pod.capture(arguments).unwrap();
        testbed
    }

    /// Everybody listening, no rules.
    pub(crate) fn bare(name: &str) -> Self {
        let mut testbed = Self::unoccupied(name);
        testbed._servers.push(testbed.pod.serve(
            "outbound=127.0.0.1:15101 outbound=[::1]:15101 inbound=[::]:15106 mesh=[::]:15108 \
             admin=[::]:15190 app=[::]:8080 app=[::]:8081",
        ));
        testbed._servers.push(
            testbed.peer.serve(
                "peer=[::]:7999 peer=[::]:8000 peer=[::]:8001 peer=[::]:8002 peer=[::]:9000",
            ),
        );
        testbed
    }

    /// Rules written, and a machine behind the pod, `10.78.0.2 fd78::2`, to which the pod
    /// forwards. The pod has addresses there too, and routes of type `local`.
    pub(crate) fn forwarding(name: &str) -> (Self, Namespace) {
        let mut testbed = Self::captured(name, &[]);
        let behind = Namespace::new(&format!("{name}-behind"));
        let (pod, peer) = (&testbed.pod, &testbed.peer);
        cable([(pod, "eth1"), (&behind, "eth0")]);
        pod.ip("addr add 10.78.0.1/24 dev eth1");
        pod.ip("addr add fd78::1/64 dev eth1 nodad");
        behind.ip("addr add 10.78.0.2/24 dev eth0");
        behind.ip("addr add fd78::2/64 dev eth0 nodad");
        behind.ip("route add default via 10.78.0.1");
        behind.ip("route add default via fd78::1");
        pod.ip("addr add fe80::77/64 dev eth0 nodad");
        peer.ip("addr add fe80::78/64 dev eth0 nodad");
        pod.ip("route add local 10.79.0.0/24 dev lo");
        pod.ip("route add local fd79::/64 dev lo");
        for net in ["10.78.0.0/24", "10.79.0.0/24"] {
            peer.ip(&format!("route add {net} via 10.77.0.2"));
        }
        for net in ["fd78::/64", "fd79::/64"] {
            peer.ip(&format!("route add {net} via fd77::2"));
        }
        for switch in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            pod.run(&["sysctl", "-qw", switch]);
        }
        let server = behind.serve("behind=[::]:8080");
        testbed._servers.push(server);
        (testbed, behind)
    }

    /// Both families have routes; there are no listeners and no rules.
    pub(crate) fn unoccupied(name: &str) -> Self {
        let testbed = Self::joined(name);
        testbed.with_ipv4();
        testbed.with_ipv6();
        testbed
    }

    pub(crate) fn without_ipv6(name: &str) -> Self {
        let testbed = Self::joined(name);
        testbed.with_ipv4();
        testbed
            .pod
            .run(&["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
        testbed
    }

    pub(crate) fn without_ipv4(name: &str) -> Self {
        let testbed = Self::joined(name);
        testbed.with_ipv6();
        testbed
    }

    pub(crate) fn pod(&self) -> &Namespace {
        &self.pod
    }

    pub(crate) fn peer(&self) -> &Namespace {
        &self.peer
    }

    fn joined(name: &str) -> Self {
        let testbed = Self {
            pod: Namespace::new(&format!("{name}-pod")),
            peer: Namespace::new(&format!("{name}-peer")),
            _servers: Vec::new(),
        };
        cable([(&testbed.pod, "eth0"), (&testbed.peer, "eth0")]);
        testbed
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

/// Joins two namespaces, by a device of this name at each end.
pub(crate) fn cable(ends: [(&Namespace, &str); 2]) {
    let [(one, device), (other, its_device)] = ends;
    run(&[
        "ip",
        "-n",
        &one.name,
        "link",
        "add",
        device,
        "type",
        "veth",
        "peer",
        "name",
        its_device,
        "netns",
        &other.name,
    ]);
    for (namespace, device) in ends {
        namespace.ip(&format!("link set {device} up"));
    }
}

/// A network namespace that goes with this value.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(name: &str) -> Self {
        static CLEAN: Once = Once::new();
        CLEAN.call_once(remove_what_dead_runs_left);
        let name = format!("{PREFIX}{}-{name}", std::process::id());
        let output = Command::new("ip").args(["netns", "add", &name]).output();
        let output = output.expect("the program `ip` (iproute2) is needed");
        assert!(
            output.status.success(),
            "these tests make network namespaces and need root: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What a thread goes in by.
    pub(crate) fn open(&self) -> fs::File {
        fs::File::open(Path::new("/run/netns").join(&self.name)).unwrap()
    }

    /// Dials from here and returns the responder.
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
    pub(crate) fn hold(&self, to: &str) -> EchoConnection {
        let mut process = Process::play(self, Who::App, "hold", to);
        let dialled: Result<Met, String> = serde_json::from_str(&process.line()).unwrap();
        EchoConnection {
            greeting: dialled.unwrap(),
            process,
        }
    }

    /// A connection that waits for a response to `question`, or for nothing. Ends with the time
    /// after which the kernel gave it up.
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

    /// Runs the real `weft-proxy run`, without a controller. `logs`: they go to this test's output,
    /// else they are not read. In a `group` it sees the limit as in a container.
    pub(crate) fn proxy(&self, bundle: &str, logs: bool, group: Option<&Group>) -> Proxy {
        let binary = env!("CARGO_BIN_EXE_weft-proxy");
        let command = match group {
            None => self.command(Who::Ids(15190, 15190), binary),
            Some(group) => self.limited(group.limit, Who::Ids(15190, 15190), binary),
        };
        let proxy = begin_proxy(command, bundle, logs);
        if let Some(group) = group {
            // What it holds already counts for where it was: a few pages.
            fs::write(group.folder.join("cgroup.procs"), proxy.0.id().to_string()).unwrap();
        }
        proxy
    }

    /// The same with so many open files at first, and as many as it may raise that to.
    pub(crate) fn proxy_of_files(&self, bundle: &str, (soft, hard): (u32, u32)) -> Proxy {
        let binary = env!("CARGO_BIN_EXE_weft-proxy");
        let files = format!("--nofile={soft}:{hard}");
        let command = self.command_behind(&["prlimit", &files], Who::Ids(15190, 15190), binary);
        begin_proxy(command, bundle, true)
    }

    /// Unplugs the cable: the other side receives nothing more.
    pub(crate) fn unplug(&self) {
        self.ip("link set eth0 down");
    }

    /// Puts it on again.
    pub(crate) fn plug(&self) {
        self.ip("link set eth0 up");
    }

    /// Changes the rules of its packets, by commands of `nft`.
    pub(crate) fn nft(&self, commands: &str) {
        self.run(&["nft", commands]);
    }

    /// Runs the real `weft-proxy capture` and returns its output.
    pub(crate) fn capture(&self, arguments: &[&str]) -> Result<String, String> {
        self.capture_as(Who::Init, arguments)
    }

    /// With the environment of a container.
    pub(crate) fn capture_with(
        &self,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> Result<String, String> {
        let mut command = self.command(Who::Init, env!("CARGO_BIN_EXE_weft-proxy"));
        command.envs(environment.iter().copied());
        output_of(command.arg("capture").args(arguments))
    }

    pub(crate) fn capture_as(&self, who: Who, arguments: &[&str]) -> Result<String, String> {
        let binary = env!("CARGO_BIN_EXE_weft-proxy");
        output_of(self.command(who, binary).arg("capture").args(arguments))
    }

    /// The rules as another program sees them.
    pub(crate) fn ruleset(&self) -> String {
        let output = run(&["ip", "netns", "exec", &self.name, "nft", "list", "ruleset"]);
        String::from_utf8(output.stdout).unwrap()
    }

    /// The number of a device, as a link-local address names it.
    pub(crate) fn index(&self, device: &str) -> String {
        let file = format!("/sys/class/net/{device}/ifindex");
        let output = run(&["ip", "netns", "exec", &self.name, "cat", &file]);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn serve(&self, what: &str) -> Process {
        let mut process = Process::play(self, Who::App, "serve", what);
        assert_eq!(process.line(), "\"ready\"");
        process
    }

    pub(crate) fn ip(&self, arguments: &str) {
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

    pub(super) fn command(&self, who: Who, program: &str) -> Command {
        self.command_behind(&[], who, program)
    }

    /// The same for a program that finds this memory limit in bytes where a container
    /// finds its own. Each such command has mounts of its own.
    pub(super) fn limited(&self, limit: u64, who: Who, program: &str) -> Command {
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

fn begin_proxy(mut command: Command, bundle: &str, logs: bool) -> Proxy {
    let pipe = || {
        if logs {
            Stdio::inherit()
        } else {
            Stdio::piped()
        }
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
    Proxy(child)
}

fn output_of(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(stderr)
    } else {
        Err(stderr)
    }
}

/// Namespaces that a killed run left.
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

pub(super) fn run(line: &[&str]) -> Output {
    let output = Command::new(line[0]).args(&line[1..]).output().unwrap();
    assert!(
        output.status.success(),
        "{}: {}",
        line.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
