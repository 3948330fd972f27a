//! The agent of a node and the pods that wait for it, in network namespaces that a folder of the
//! test shows to the agent alone. It runs with the privileges that the chart gives it.
//!
//! Claims: trust-9

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::{Child, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs, path::PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, SockAddr, Socket, Type};

use super::crowd::Crowd;
use super::testbed::{Namespace, Testbed, Who, run};

/// Five times what a pod may wait for an agent.
const SOON: Duration = Duration::from_secs(5);
/// An agent may have as many threads in namespaces at one time.
const AT_ONCE: usize = 16;
/// Uid and gid of the init container.
const NO_ONE: (u32, u32) = (65534, 65534);

/// The real agent, ended with this value.
struct Agent {
    child: Child,
    folder: PathBuf,
    /// Its own.
    namespace: Namespace,
}

impl Agent {
    /// Of a node with these addresses, which sees no namespace yet.
    fn of(name: &str, hosts: &str) -> Self {
        let folder = format!("weft-netns-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder).unwrap();
        let namespace = Namespace::new(&format!("{name}-agent"));
        // The command has mounts of its own.
        let script = "mount -t tmpfs none \"$1\" && exec setpriv --no-new-privs \
                      --bounding-set=-all,+net_admin,+sys_admin \"$0\" capture-agent";
        let child = namespace
            .command(Who::App, "sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_weft-proxy")])
            .arg(&folder)
            .env("WEFT_NODE_NAME", "node-7")
            .env("WEFT_HOST_IPS", hosts)
            .env("WEFT_NETNS_DIR", &folder)
            .spawn()
            .unwrap();
        let agent = Self {
            child,
            folder,
            namespace,
        };
        agent.until_its_folder_is_mounted();
        agent
    }

    fn until_its_folder_is_mounted(&self) {
        let mounts = format!("/proc/{}/mounts", self.child.id());
        let folder = self.folder.to_str().unwrap();
        let deadline = Instant::now() + SOON;
        while !fs::read_to_string(&mounts).unwrap().contains(folder) {
            assert!(Instant::now() < deadline, "{folder} is not mounted");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a script where the agent's mounts are, in its folder.
    fn script(&self, script: &str) {
        let mounts = format!("--mount=/proc/{}/ns/mnt", self.child.id());
        let script = format!("cd {} && {script}", self.folder.display());
        run(&["nsenter", &mounts, "sh", "-c", &script]);
    }

    /// Shows it a namespace.
    fn show(&self, namespace: &Namespace) {
        let name = namespace.name();
        self.script(&format!(
            "touch {name} && mount --bind /run/netns/{name} {name}"
        ));
    }

    /// The namespace of its first thread.
    fn network(&self) -> PathBuf {
        fs::read_link(format!("/proc/{}/ns/net", self.child.id())).unwrap()
    }

    /// Those of all threads that were there at one moment, whatever else runs on the machine: they
    /// are listed before it and do not end before they are looked at after it.
    fn networks(&self) -> Vec<PathBuf> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let tasks: Vec<PathBuf> = tasks.map(|task| task.unwrap().path()).collect();
        tasks
            .into_iter()
            .filter_map(|task| {
                let network = fs::read_link(task.join("ns/net")).ok()?;
                let is_there = !ends(&fs::read_to_string(task.join("stat")).ok()?);
                is_there.then_some(network)
            })
            .collect()
    }

    fn page(&self) -> String {
        let read = || {
            let mut stream = TcpStream::connect("127.0.0.1:8080").unwrap();
            let request = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).unwrap();
            let mut page = String::new();
            stream.read_to_string(&mut page).unwrap();
            page
        };
        within(&self.namespace, read).join().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Whether the kernel is ending this thread, by its flags in `stat`.
fn ends(stat: &str) -> bool {
    const PF_EXITING: u64 = 0x4;
    // Behind its name, which may hold anything: state, five numbers, flags.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let flags: u64 = fields.split_whitespace().nth(6).unwrap().parse().unwrap();
    flags & PF_EXITING != 0
}

/// The real init container without privileges, ended with this value.
struct Waiting(Child);

impl Waiting {
    fn at(namespace: &Namespace, arguments: &[&str]) -> Self {
        let binary = env!("CARGO_BIN_EXE_weft-proxy");
        let child = namespace
            .command(Who::Ids(NO_ONE.0, NO_ONE.1), binary)
            .args(["capture", "--by-node"])
            .args(arguments)
            .env("WEFT_NODE_NAME", "node-7")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn is_waiting(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Its output, once it has ended well.
    #[track_caller]
    fn captured(mut self) -> String {
        let deadline = Instant::now() + SOON;
        while self.is_waiting() {
            assert!(Instant::now() < deadline, "no agent came");
            thread::sleep(Duration::from_millis(10));
        }
        let output = self.output();
        assert!(self.0.wait().unwrap().success(), "{output}");
        output
    }

    fn output(&mut self) -> String {
        let mut output = String::new();
        let mut stderr = self.0.stderr.take().unwrap();
        stderr.read_to_string(&mut output).unwrap();
        output
    }

    /// As process 1 of a container has to.
    fn handles_sigterm(&self) -> bool {
        const SIGTERM: u64 = 1 << 14;
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let mut lines = status.lines();
        let caught = lines.find_map(|line| line.strip_prefix("SigCgt:"));
        u64::from_str_radix(caught.unwrap().trim(), 16).unwrap() & SIGTERM != 0
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs in a namespace, on a thread that ends there.
pub(super) fn within<T: Send + 'static>(
    namespace: &Namespace,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let namespace = namespace.open();
    thread::spawn(move || {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), network).unwrap();
        work()
    })
}

pub(super) fn listen(backlog: i32) -> UnixListener {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let address = SockAddr::unix("\0weft-capture").unwrap();
    socket.bind(&address).unwrap();
    socket.listen(backlog).unwrap();
    // For `accept`: a test whose agent does not come fails.
    socket.set_read_timeout(Some(SOON)).unwrap();
    UnixListener::from(socket)
}

/// Listens in a namespace, sends this line, and returns the agent's answer.
fn ask(namespace: &Namespace, line: &'static str) -> JoinHandle<String> {
    within(namespace, move || {
        let listener = listen(4);
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
}

#[test]
fn agent_writes_the_rules_of_a_privileged_capture() {
    let lists = ["--skip-outbound-ports=8000", "--skip-inbound-ports=25"];
    let privileged = Testbed::unoccupied("byroot");
    privileged.pod().capture(&lists).unwrap();
    let testbed = Testbed::unoccupied("bynode");
    let agent = Agent::of("bynode", "192.0.2.77");
    agent.show(testbed.pod());
    let output = Waiting::at(testbed.pod(), &lists).captured();
    assert!(output.contains("192.0.2.1:9"), "proven: {output}");
    let rules = testbed.pod().ruleset();
    assert_eq!(rules, privileged.pod().ruleset());
    let counted = agent.page();
    let line = "weft_node_captures_total{outcome=\"captured\",reason=\"\"} 1";
    assert!(counted.contains(line), "{counted}");
    // The container runs again where its sandbox is the same, and needs no agent then.
    drop(agent);
    Waiting::at(testbed.pod(), &lists).captured();
    assert_eq!(testbed.pod().ruleset(), rules);
}

#[test]
fn pod_waits_for_an_agent_and_names_its_node() {
    let testbed = Testbed::unoccupied("waits");
    let mut waiting = Waiting::at(testbed.pod(), &[]);
    // Its first reminder comes after ten seconds.
    thread::sleep(Duration::from_secs(11));
    assert!(waiting.is_waiting());
    assert_eq!(testbed.pod().ruleset(), "");
    let agent = Agent::of("waits", "192.0.2.77");
    agent.show(testbed.pod());
    let output = waiting.captured();
    let reminder = "no weft-node came: does it run on node node-7?";
    assert_eq!(output.matches(reminder).count(), 1, "{output}");
}

#[test]
fn waiting_pod_ends_at_once_when_deleted() {
    let testbed = Testbed::unoccupied("deleted");
    let mut waiting = Waiting::at(testbed.pod(), &[]);
    let deadline = Instant::now() + SOON;
    while !waiting.handles_sigterm() {
        assert!(Instant::now() < deadline, "it has no handler");
        thread::sleep(Duration::from_millis(10));
    }
    run(&["kill", "-TERM", &waiting.0.id().to_string()]);
    while waiting.is_waiting() {
        assert!(Instant::now() < deadline, "it goes on");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(waiting.output().contains("ended by SIGTERM"));
}

#[test]
fn rules_are_set_once_and_others_are_refused() {
    let testbed = Testbed::unoccupied("once");
    let foreign = Namespace::new("once-foreign");
    foreign.nft("add table inet weft; add chain inet weft output");
    let agent = Agent::of("once", "192.0.2.77");
    agent.show(testbed.pod());
    agent.show(&foreign);
    Waiting::at(testbed.pod(), &["--skip-outbound-ports=8000"]).captured();
    let rules = testbed.pod().ruleset();
    for other in [
        "{\"skipOutboundCidrs\": \"0.0.0.0/0,::/0\"}\n",
        "{\"skipOutboundPorts\": \"8000-8001\"}\n",
        "{}\n",
    ] {
        let answer = ask(testbed.pod(), other).join().unwrap();
        assert!(answer.contains("refused"), "{other}: {answer}");
        assert!(answer.contains("other rules"), "{other}: {answer}");
        assert_eq!(testbed.pod().ruleset(), rules, "{other}");
    }
    let same = "{\"skipOutboundPorts\": \"8000\"}\n";
    let answer = ask(testbed.pod(), same).join().unwrap();
    assert!(answer.contains("captured"), "{answer}");
    assert_eq!(testbed.pod().ruleset(), rules);
    // Nor where another program made the table.
    let before = foreign.ruleset();
    let answer = ask(&foreign, "{}\n").join().unwrap();
    assert!(answer.contains("other rules"), "{answer}");
    assert_eq!(foreign.ruleset(), before);
}

#[test]
fn the_nodes_own_namespace_is_never_captured() {
    let testbed = Testbed::unoccupied("host");
    // The peer plays the node, by its address of either family.
    for (name, hosts) in [("host4", "192.0.2.77,10.77.0.1"), ("host6", "fd77::1")] {
        let agent = Agent::of(name, hosts);
        agent.show(testbed.peer());
        let answer = ask(testbed.peer(), "{}\n").join().unwrap();
        assert!(answer.contains("an address of the node"), "{answer}");
        assert_eq!(testbed.peer().ruleset(), "");
        let counted = agent.page();
        let line = "weft_node_captures_total{outcome=\"refused\",reason=\"host-network\"} 1";
        assert!(counted.contains(line), "{counted}");
    }
    // Control: another namespace beside the same cable is captured.
    let agent = Agent::of("host", "10.77.0.1,fd77::1");
    agent.show(testbed.pod());
    Waiting::at(testbed.pod(), &[]).captured();
}

#[test]
fn hostile_pods_hold_up_no_honest_one() {
    let crowd = Crowd::of("crowd", 40);
    let [early, late] = ["crowd-early", "crowd-late"].map(Testbed::unoccupied);
    let waiting = Waiting::at(early.pod(), &[]);
    let agent = Agent::of("crowd", "192.0.2.77");
    for hostile in crowd.namespaces() {
        agent.show(hostile);
    }
    agent.show(early.pod());
    waiting.captured();
    agent.show(late.pod());
    let own = agent.network();
    Waiting::at(late.pod(), &[]).captured();
    assert_eq!(early.pod().ruleset(), late.pod().ruleset());
    for hostile in crowd.namespaces() {
        assert_eq!(hostile.ruleset(), "");
    }
    // A thread that has entered ends, and the first one never enters.
    for _ in 0..20 {
        assert_eq!(agent.network(), own);
        let networks = agent.networks();
        let elsewhere = networks.iter().filter(|network| **network != own);
        assert!(elsewhere.count() <= AT_ONCE, "{networks:?}");
        thread::sleep(Duration::from_millis(20));
    }
    // All of them give up: nothing of theirs is left in the agent.
    drop(crowd);
    let deadline = Instant::now() + SOON;
    let files = format!("/proc/{}/fd", agent.child.id());
    let open = || {
        let files = fs::read_dir(&files).unwrap().filter_map(Result::ok);
        let targets = files.filter_map(|file| fs::read_link(file.path()).ok());
        targets.filter(|at| at.starts_with(&agent.folder)).count()
    };
    while open() > 0 {
        assert!(Instant::now() < deadline, "namespaces are kept open");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn odd_files_and_replaced_ones_lead_to_no_other_namespace() {
    let [first, second] = ["odd-first", "odd-second"].map(Testbed::unoccupied);
    let linked = Namespace::new("odd-linked");
    let agent = Agent::of("odd", "192.0.2.77");
    let (one, other) = (first.pod().name(), second.pod().name());
    agent.script(&format!(
        "mkdir folder && mkfifo pipe && echo x > file && ln -s /run/netns/{} link && \
         touch uts own && mount --bind /proc/self/ns/uts uts && \
         mount --bind /run/netns/{} own && \
         touch pod && mount --bind /run/netns/{one} pod",
        linked.name(),
        agent.namespace.name()
    ));
    let mut asking = [
        Waiting::at(&linked, &[]),
        Waiting::at(&agent.namespace, &[]),
    ];
    Waiting::at(first.pod(), &[]).captured();
    agent.script(&format!(
        "umount pod && mount --bind /run/netns/{other} pod"
    ));
    Waiting::at(second.pod(), &[]).captured();
    for waiting in &mut asking {
        assert!(waiting.is_waiting());
    }
    assert_eq!(linked.ruleset(), "");
    assert_eq!(agent.namespace.ruleset(), "");
}
