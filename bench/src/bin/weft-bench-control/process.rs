//! The controller under measurement: the release program, with the environment and
//! the roles that the chart gives it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::api::Api;
use crate::figures::Delays;

/// Where its gRPC port is.
pub(crate) const SERVES: &str = "127.0.0.1:8443";
const ADMIN: &str = "127.0.0.1:8080";
pub(crate) const NAMESPACE: &str = "weft-system";
const ACCOUNT: &str = "weft-controller";
/// Listing everything anew takes seconds.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Clock ticks per second in /proc, which Linux fixes.
const TICKS: f64 = 100.0;
/// The default, and how long each compiling took: by where it is said now, and where
/// earlier releases say it.
const LOG: &str = "info,weft_controller::latest_model=debug";
/// Longer than any run.
const TOKEN_SECONDS: u32 = 2 * 3600;

/// How to start it.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
    kubeconfig: PathBuf,
    log: PathBuf,
}

/// A running one. It ends with this value.
#[derive(Debug)]
pub(crate) struct Controller {
    child: Child,
}

/// Resident memory in MiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) now: f64,
    /// The most since it started.
    pub(crate) peak: f64,
}

impl Program {
    /// Gives the controller a kubeconfig of its own, with a token of the service
    /// account that the chart made.
    pub(crate) async fn new(api: &Api, path: &Path, admin: &Path, work: &Path) -> Result<Self> {
        let request = json!({"spec": {"expirationSeconds": TOKEN_SECONDS, "audiences": []}});
        let at = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token");
        let answer = api.post(&at, &request).await?;
        let token = answer["status"]["token"]
            .as_str()
            .context("the API server gave no token")?;
        let admin = std::fs::read_to_string(admin)?;
        let server = admin
            .lines()
            .find(|line| line.contains("certificate-authority-data"))
            .context("kubeconfig without a server")?;
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: bench\n{server}\nusers:\n- name: controller\n  user: {{token: {token}}}\n\
             contexts:\n- name: bench\n  context: {{cluster: bench, user: controller}}\ncurrent-context: bench\n"
        );
        let kubeconfig = work.join("controller.kubeconfig");
        std::fs::write(&kubeconfig, text)?;
        Ok(Self {
            path: path.to_owned(),
            kubeconfig,
            log: work.join("log/controller.log"),
        })
    }

    /// How far its log has come.
    pub(crate) fn logged(&self) -> Result<u64> {
        Ok(std::fs::metadata(&self.log)?.len())
    }

    /// How long each compiling took since the log had come so far.
    pub(crate) fn compiled_since(&self, logged: u64) -> Result<Delays> {
        let mut log = File::open(&self.log)?;
        log.seek(SeekFrom::Start(logged))?;
        let seconds = BufReader::new(log).lines().map_while(Result::ok);
        Ok(Delays::of_seconds(
            seconds.filter_map(|line| compiled_in(&line)),
        ))
    }

    /// Starts it, without waiting for anything.
    pub(crate) fn start(&self) -> Result<Controller> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| self.log.display().to_string())?;
        let child = Command::new(&self.path)
            .env_clear()
            .env("KUBECONFIG", &self.kubeconfig)
            .env("WEFT_NAMESPACE", NAMESPACE)
            .env("WEFT_POD_NAME", "weft-controller-0")
            .env("WEFT_POD_IP", "127.0.0.1")
            .env("WEFT_SERVICE_ACCOUNT", ACCOUNT)
            .env("WEFT_EXCLUDED_NAMESPACES", "kube-system,weft-system")
            .env("WEFT_METRICS_API", "true")
            .env("WEFT_OBSERVE", "true")
            .env("WEFT_LOG", LOG)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| self.path.display().to_string())?;
        Ok(Controller { child })
    }
}

impl Controller {
    /// Waits until it reports ready, and returns how long that took.
    pub(crate) async fn ready(&mut self) -> Result<Duration> {
        let started = Instant::now();
        while started.elapsed() < READY_WITHIN {
            if let Some(status) = self.child.try_wait()? {
                bail!("the controller ended with {status}; see log/controller.log");
            }
            if page("/ready")
                .await
                .is_ok_and(|text| text.starts_with("HTTP/1.1 200"))
            {
                return Ok(started.elapsed());
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("the controller was not ready within {READY_WITHIN:?}")
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        memory(self.child.id())
    }

    /// CPU seconds so far.
    pub(crate) fn cpu(&self) -> Result<f64> {
        cpu(self.child.id())
    }

    /// Waits until it has nothing to do, or `most` is over: less than a tenth of a core
    /// for longer than counts in statuses wait for their turn, which is five seconds.
    /// Returns whether it became quiet.
    pub(crate) async fn settled(&self, most: Duration) -> Result<bool> {
        let started = Instant::now();
        let mut calm = 0;
        let mut before = self.cpu()?;
        while started.elapsed() < most {
            sleep(Duration::from_secs(1)).await;
            let now = self.cpu()?;
            calm = if now - before < 0.1 { calm + 1 } else { 0 };
            before = now;
            if calm == 7 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // Also after kill(): the process is gone then, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds, if the line reports a compile.
fn compiled_in(line: &str) -> Option<f64> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    (fields["message"] == "compiled").then_some(())?;
    let micros = &fields["micros"];
    let micros = micros.as_f64().or_else(|| micros.as_str()?.parse().ok())?;
    Some(micros / 1e6)
}

/// Resident memory of a process.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<f64> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .with_context(|| format!("no {name} of process {pid}"))?;
        let kib: f64 = line
            .trim_start_matches(':')
            .trim()
            .trim_end_matches(" kB")
            .parse()?;
        Ok(kib / 1024.0)
    };
    Ok(Memory {
        now: field("VmRSS")?,
        peak: field("VmHWM")?,
    })
}

/// CPU seconds of a process so far, in user and kernel.
pub(crate) fn cpu(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold anything; what follows its last bracket does not.
    let (_, fields) = text.rsplit_once(')').context("no stat")?;
    let ticks: Vec<f64> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / TICKS)
}

/// A page of the controller's admin port, head included.
pub(crate) async fn page(path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(ADMIN).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// One sample of the controller's own metrics; 0 if it is not there.
pub(crate) async fn metric(name: &str) -> Result<f64> {
    let text = page("/metrics").await?;
    let sample = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(sample.map_or(Ok(0.0), str::parse)?)
}
