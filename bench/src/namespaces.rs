//! Two pods as network namespaces, `client` and `server`, with a virtual cable
//! between them, and the processes in them.
//!
//! client 10.78.0.1, every other address by way of the server
//! server 10.78.0.2
//! A third namespace, on cables of its own, is where the stand-in controller
//! lives, so that its traffic never meets the pods'.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Everything of ours begins with this, then comes the pid of the run.
pub(crate) const PREFIX: &str = "weft-b-";
pub(crate) const CLIENT_IP: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
pub(crate) const SERVER_IP: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
/// The stand-in controller as the client and the server see it.
pub(crate) const CONTROL_FOR_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 79, 1, 254);
pub(crate) const CONTROL_FOR_SERVER: Ipv4Addr = Ipv4Addr::new(10, 79, 2, 254);
/// The proxy's user and group, which the redirection leaves alone.
const PROXY_ID: &str = "15190";
/// Set while programs note for the compiler how often each part of them runs.
const PROFILE: &str = "LLVM_PROFILE_FILE";
/// A proxy ends its connections for 1.5 s, then writes some megabytes.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// The pods of one system under test.
#[derive(Debug)]
pub(crate) struct Namespaces {
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
    pub(crate) control: Namespace,
}

impl Namespaces {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let namespaces = Self {
            client: Namespace::new(&format!("{name}-c"))?,
            server: Namespace::new(&format!("{name}-s"))?,
            control: Namespace::new(&format!("{name}-k"))?,
        };
        let (client, server, control) =
            (&namespaces.client, &namespaces.server, &namespaces.control);
        cable((client, "eth0", CLIENT_IP), (server, "eth0", SERVER_IP))?;
        for (pod, third, at) in [
            (client, 1, CONTROL_FOR_CLIENT),
            (server, 2, CONTROL_FOR_SERVER),
        ] {
            let own = Ipv4Addr::new(10, 79, third, 1);
            cable((pod, "ctl", own), (control, &format!("to{third}"), at))?;
        }
        client.ip(&format!("route add default via {SERVER_IP}"))?;
        client.many_ports()?;
        server.many_ports()?;
        Ok(namespaces)
    }
}

pub(crate) type CableEnd<'a> = (&'a Namespace, &'a str, Ipv4Addr);

/// Joins two namespaces, with a device and an address in a network of its own at each end.
pub(crate) fn cable(one: CableEnd<'_>, other: CableEnd<'_>) -> Result<()> {
    run(&[
        "ip",
        "-n",
        &one.0.name,
        "link",
        "add",
        one.1,
        "type",
        "veth",
        "peer",
        "name",
        other.1,
        "netns",
        &other.0.name,
    ])?;
    for (namespace, device, ip) in [one, other] {
        namespace.ip(&format!("addr add {ip}/24 dev {device}"))?;
        namespace.ip(&format!("link set {device} up"))?;
    }
    Ok(())
}

/// A network namespace that goes with this value.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{name}", std::process::id());
        run(&["ip", "netns", "add", &name])
            .context("the bench makes network namespaces and needs root and iproute2")?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Short connections leave ports behind for a minute.
    pub(crate) fn many_ports(&self) -> Result<()> {
        self.run(&["sysctl", "-qw", "net.ipv4.ip_local_port_range=16000 65000"])?;
        self.run(&["sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1"])?;
        Ok(())
    }

    /// `ip` here, with these arguments.
    pub(crate) fn ip(&self, arguments: &str) -> Result<()> {
        let line: Vec<_> = ["ip", "-n", &self.name]
            .into_iter()
            .chain(arguments.split(' '))
            .collect();
        run(&line).map(drop)
    }

    /// Runs a program here to its end and gives what it printed.
    pub(crate) fn run(&self, line: &[&str]) -> Result<String> {
        let output = run(&[&["ip", "netns", "exec", &self.name], line].concat())?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// As [`Namespace::run`], killed when it takes longer than `limit`.
    pub(crate) fn run_within(&self, limit: Duration, line: &[&str]) -> Result<String> {
        let limit = limit.as_secs_f64().to_string();
        self.run(&[&["timeout", "-k", "1", &limit], line].concat())
    }

    /// Starts a program here that ends with the value, and with this process
    /// whatever becomes of it. It runs as root, or as the proxy's user.
    pub(crate) fn start(
        &self,
        who: Who,
        log: &Path,
        line: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Process> {
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            &self.name,
            "setpriv",
            "--pdeathsig",
            "KILL",
        ]);
        if who == Who::Proxy {
            command.args(["--reuid", PROXY_ID, "--regid", PROXY_ID, "--clear-groups"]);
        }
        let log = File::create(log).with_context(|| log.display().to_string())?;
        let child = command
            .arg("--")
            .args(line)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("ip netns exec")?;
        let mut process = Process {
            child,
            began: Instant::now(),
        };
        process.wait_for_program(line[0])?;
        Ok(process)
    }

    /// Runs `work` on a thread inside this namespace.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                work()
            });
            inside
                .join()
                .unwrap_or_else(|_| bail!("a thread in {} panicked", self.name))
        })
    }

    /// Moves the calling thread into this namespace, for good.
    pub(crate) fn enter(&self) -> Result<()> {
        let namespace = File::open(Path::new("/run/netns").join(&self.name))?;
        use std::os::fd::AsFd;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("entering {}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run(&["ip", "netns", "del", &self.name]) {
            eprintln!("weft-bench: {error}");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Root,
    Proxy,
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// When the program itself began, after all that was needed to start it.
    pub(crate) began: Instant,
}

impl Process {
    /// Namespace and user are set by programs that become this one: it has
    /// started when the process carries its name.
    fn wait_for_program(&mut self, program: &str) -> Result<()> {
        const NAME_LENGTH: usize = 15;
        let name = Path::new(program)
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let name: String = name.chars().take(NAME_LENGTH).collect();
        let until = Instant::now() + Duration::from_secs(5);
        while fs::read_to_string(format!("/proc/{}/comm", self.pid()))
            .unwrap_or_default()
            .trim()
            != name
        {
            if let Some(status) = self.child.try_wait()? {
                bail!("{program} ended at once: {status}");
            }
            ensure!(Instant::now() < until, "{program} did not begin");
            std::thread::sleep(Duration::from_micros(50));
        }
        self.began = Instant::now();
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// When it has ended, which nothing here does by itself.
    pub(crate) fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("a process of the bench ended: {status}"),
        }
    }

    /// Waits for a program that ends by itself.
    ///
    /// # Errors
    /// When it fails, or takes longer than `limit`.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "{status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("still running after {} s", limit.as_secs())
    }

    /// CPU time of all threads so far, user and kernel together.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu_of(self.pid())
    }

    /// Resident memory, KiB.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        kib.context("/proc/PID/status holds no resident memory")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A program that notes how often each part of it runs writes that down when it ends by
        // itself, and not when it is killed.
        if std::env::var_os(PROFILE).is_some() {
            let _ = run(&["kill", "-TERM", &self.pid().to_string()]);
            let until = Instant::now() + ENDS_WITHIN;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time of a process so far.
///
/// The sum over the threads that there are is exact, and lacks those that have ended. The
/// kernel's sum holds them too, and is rounded down, twice. Neither is ever too large, so the
/// larger one lacks no more than either of them.
fn cpu_of(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rounded = cpu_of_stat(&stat).context("/proc/PID/stat has an unknown form")?;
    Ok(cpu_of_threads(pid)?.max(rounded))
}

/// Fields 14 and 15, counted behind the name, which may hold anything.
/// Linux counts them in hundredths of a second on every architecture of ours.
fn cpu_of_stat(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + kernel) * 10))
}

/// What the threads of a process have used that have not ended. A thread that runs right now
/// lacks what it has used since the kernel's last tick.
fn cpu_of_threads(pid: u32) -> Result<Duration> {
    let mut all = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // It may end meanwhile; and not every kernel has the file.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else {
            continue;
        };
        all += cpu_of_schedstat(&text).context("a schedstat of /proc has an unknown form")?;
    }
    Ok(all)
}

/// The first field, in nanoseconds. The others are how long the thread waited for a CPU, and
/// how often it got one.
fn cpu_of_schedstat(text: &str) -> Option<Duration> {
    let nanos = text.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

/// Ends what a killed run left: processes in its namespaces, by their pids,
/// then the namespaces and files.
pub(crate) fn remove_what_dead_runs_left() {
    for folder in ["/run/netns".into(), std::env::temp_dir()] {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let maker = name
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.split('-').next());
            let Some(pid) = maker else { continue };
            if Path::new("/proc").join(pid).exists() {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let _ = fs::remove_dir_all(entry.path());
                continue;
            }
            let inside = run(&["ip", "netns", "pids", &name]).map(|output| output.stdout);
            for pid in String::from_utf8_lossy(&inside.unwrap_or_default()).split_whitespace() {
                let _ = run(&["kill", "-KILL", pid]);
            }
            let _ = run(&["ip", "netns", "del", &name]);
        }
    }
}

pub(crate) fn run(line: &[&str]) -> Result<Output> {
    let output = Command::new(line[0])
        .args(&line[1..])
        .stdin(Stdio::null())
        .output()
        .with_context(|| line[0].to_owned())?;
    ensure!(
        output.status.success(),
        "{} ({}): {}{}",
        line.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two roundings to hundredths of a second.
    const ROUNDED: Duration = Duration::from_millis(20);
    const MUCH: Duration = Duration::from_millis(500);

    #[test]
    fn cpu_time_follows_process_name_with_spaces_and_parentheses() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 120 30 0 0 20 0 2 0 1 1";
        assert_eq!(cpu_of_stat(stat), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn thread_cpu_time_is_first_field_in_nanoseconds() {
        let read = cpu_of_schedstat("59347769 22777240 194\n");
        assert_eq!(read, Some(Duration::from_nanos(59_347_769)));
        for other in ["", "\n", "0.5 1 2", "-1 1 2"] {
            assert_eq!(cpu_of_schedstat(other), None, "{other:?}");
        }
    }

    fn rounded_cpu(pid: u32) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        cpu_of_stat(&stat).unwrap()
    }

    #[test]
    fn cpu_time_of_a_busy_program_is_exact() {
        let mut busy = Command::new("sh");
        busy.args(["-c", "while :; do :; done"]);
        let process = Process {
            child: busy.spawn().unwrap(),
            began: Instant::now(),
        };
        let until = Instant::now() + Duration::from_secs(60);
        while rounded_cpu(process.pid()) < MUCH && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        // What stands still can be read twice.
        run(&["kill", "-STOP", &process.pid().to_string()]).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let before = rounded_cpu(process.pid());
        let exact = process.cpu().unwrap();
        let after = rounded_cpu(process.pid());
        assert!(before >= MUCH, "{before:?}");
        // Within 4 percent of the kernel's own sum.
        let expected = before..after + ROUNDED;
        assert!(expected.contains(&exact), "{exact:?}, {expected:?}");
        // Control: it is not that sum itself, which is in whole hundredths of a second.
        assert_ne!(exact.subsec_nanos() % 10_000_000, 0, "{exact:?}");
    }

    #[test]
    fn cpu_time_of_threads_includes_finished_ones() {
        let (finish, finished) = std::sync::mpsc::sync_channel(0);
        let busy = std::thread::spawn(move || {
            let own = || fs::read_to_string("/proc/thread-self/schedstat").unwrap();
            while cpu_of_schedstat(&own()).unwrap() < MUCH {}
            finish.send(()).unwrap();
            // Until it has been read.
            finish.send(()).unwrap();
        });
        finished.recv().unwrap();
        let pid = std::process::id();
        let all = cpu_of_threads(pid).unwrap();
        assert!(all >= MUCH, "{all:?}");
        finished.recv().unwrap();
        busy.join().unwrap();
        // Control: it is missing among those that there are, a moment after it has ended.
        let until = Instant::now() + Duration::from_secs(60);
        while cpu_of_threads(pid).unwrap() >= all {
            assert!(Instant::now() < until, "{all:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        let with_ended = cpu_of(pid).unwrap();
        assert!(with_ended + ROUNDED >= all, "{with_ended:?}, {all:?}");
    }
}
