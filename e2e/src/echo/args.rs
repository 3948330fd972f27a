//! The command line of the clients. Every bound of a run is checked here.

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};
use http::{
    HeaderName, HeaderValue, Method,
    header::{CONTENT_TYPE, TE},
};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    client::Ask,
    duration, grpc,
    load::{self, Plan},
    talk,
};

const USAGE: &str = "usage:
  weft-echo [serve]                    serve; see the environment variables in settings.rs
  weft-echo get URL [-n N] [-c CONNECTIONS] [--rate PER_SECOND] [--duration 10s]
                [--json] [--http2] [-H name:value]... [-X METHOD] [--body TEXT | --body-size BYTES]
                [--timeout 30s] [--trace]    with --trace each request begins a trace
                [--grpc]                     unary calls with the body as their message
                [--until-eof]                standard input that ends is the end of the load
                [--ends SECOND]              with --rate: until this second since 1970, half an hour
                                             away at most; then idle until SIGTERM
                [--beside URL]               with --json: the same of this URL at the same moments
                URL may be https://; no certificate is verified
  weft-echo get URL --expect TEXT [--until 60s]   try until an answer below 400 holds TEXT
  weft-echo tcp ADDRESS [LINE]         send a line (default who), print the answer
  weft-echo tcp ADDRESS --duration 10s [-c CONNECTIONS]         keep them, print how many then answer
  weft-echo tls ADDRESS NAME [--duration 10s]   begin TLS with host NAME, keep the connection
  weft-echo certificate ADDRESS NAME   shake hands over TLS, print what is readable of the certificate
  weft-echo banner ADDRESS             print the server's first line and the milliseconds until it
  weft-echo ws URL [-n N] [--pause 1s] echo N texts over a websocket
  weft-echo grpc ADDRESS [--duration 10s] [--rate PER_SECOND]   no duration: one unary call
  weft-echo hold URL [-c CONNECTIONS] [--duration 10s]          keep connections idle, then use them";

/// No steady load lasts longer: a pod that makes some may be forgotten.
const STEADY_LIMIT: Duration = Duration::from_secs(1800);

/// Runs one client command and prints its result.
pub async fn run(words: &[String]) -> anyhow::Result<()> {
    let (command, rest) = words.split_first().context(USAGE)?;
    let options = Options::parse(rest)?;
    match command.as_str() {
        "get" => get(options).await?,
        "tcp" => println!("{}", bytes(&options).await?),
        "tls" => {
            let name = options.word(1).context(USAGE)?;
            let duration = options.duration.unwrap_or_default();
            talk::begin_tls(options.target()?, name, duration).await?;
        }
        "certificate" => {
            let name = options.word(1).context(USAGE)?;
            println!("{}", talk::certificate(options.target()?, name).await?);
        }
        "banner" => {
            let (line, after) = talk::banner(options.target()?).await?;
            println!("{line}\n{}", after.as_millis());
        }
        "ws" => {
            let back = talk::websocket(
                options.target()?,
                options.requests.unwrap_or(3),
                options.pause,
            )
            .await?;
            println!("{back}");
        }
        "grpc" => {
            let duration = options.duration.unwrap_or_default();
            let seen =
                talk::grpc(options.target()?, duration, options.rate.unwrap_or(20.0)).await?;
            println!("{}", serde_json::to_string(&seen)?);
        }
        "hold" => {
            let duration = options.duration.unwrap_or_default();
            println!(
                "{}",
                talk::hold(options.target()?, options.connections, duration).await?
            );
        }
        "help" | "--help" | "-h" => println!("{USAGE}"),
        other => bail!("unknown command {other}\n{USAGE}"),
    }
    Ok(())
}

async fn get(options: Options) -> anyhow::Result<()> {
    if let Some(text) = options.expect.clone() {
        return expect(options, &text).await;
    }
    if let Some(beside) = options.beside.clone() {
        let summaries = both(options, &beside).await?;
        println!("{}", serde_json::to_string(&summaries)?);
        return Ok(());
    }
    if let Some(ends) = options.ends {
        return steady(options, ends).await;
    }
    let (json, single) = (options.json, options.is_single());
    let summary = run_load(options).await?;
    if json {
        println!("{}", serde_json::to_string(&summary)?);
    } else if single && summary.answered == 1 {
        println!("HTTP {}", summary.last.status);
        for (name, value) in &summary.last.headers {
            println!("{name}: {value}");
        }
        println!("\n{}", summary.last.body);
    } else {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    }
    // With --json the report speaks for itself, failures included.
    ensure!(json || summary.errors.is_empty(), "{}", summary.first_error);
    Ok(())
}

/// The same plan for two URLs at once: each request is due when one of the other load is, so
/// whatever the machine does comes to both.
async fn both(options: Options, beside: &str) -> anyhow::Result<[load::Summary; 2]> {
    let plan = options.plan()?;
    let mut other = plan.clone();
    other.ask.uri = Ask::get(beside)?.uri;
    let (summary, beside) = tokio::join!(plan.run(), other.run());
    Ok([summary, beside])
}

async fn run_load(options: Options) -> anyhow::Result<load::Summary> {
    let until_eof = options.until_eof;
    let plan = options.plan()?;
    Ok(if until_eof {
        plan.run_until(end_of_input()).await
    } else {
        plan.run().await
    })
}

/// Load until a moment, then idle until SIGTERM: when a kubelet restarts the container, no
/// further load starts.
async fn steady(options: Options, ends: SystemTime) -> anyhow::Result<()> {
    ensure!(options.rate.is_some(), "--ends needs a --rate");
    let left = ends.duration_since(SystemTime::now()).unwrap_or_default();
    ensure!(left <= STEADY_LIMIT, "--ends is over {STEADY_LIMIT:?} away");
    let plan = options.plan()?;
    let mut terminate = signal(SignalKind::terminate())?;
    while let Some(part) = plan.until(ends, SystemTime::now()) {
        let next = tokio::time::Instant::now() + part.duration.unwrap_or_default();
        let mut is_over = false;
        let over = async {
            terminate.recv().await;
            is_over = true;
        };
        let summary = part.run_until(over).await;
        println!("{}", serde_json::to_string(&summary)?);
        if is_over {
            return Ok(());
        }
        // The last request is due before the end of its part, and the next part begins with one.
        tokio::time::sleep_until(next).await;
    }
    terminate.recv().await;
    Ok(())
}

/// The answer to a line; of connections that are kept for a while, how many answer then.
async fn bytes(options: &Options) -> anyhow::Result<String> {
    let target = options.target()?;
    match options.duration {
        Some(duration) => {
            let alive = talk::hold_tcp(target, options.connections, duration).await?;
            Ok(alive.to_string())
        }
        None => talk::tcp(target, options.word(1).unwrap_or(talk::WHO)).await,
    }
}

/// Waits until standard input is closed.
async fn end_of_input() {
    let (ended, end) = tokio::sync::oneshot::channel();
    // A thread of its own: a runtime waits at its end for those that it lends.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}

/// Asks until an answer below 400 holds `text`; the last answer is the error.
async fn expect(options: Options, text: &str) -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_millis(500);
    let until = Instant::now() + options.until;
    let plan = options.plan()?;
    loop {
        let last = plan.clone().run().await.last;
        if (200..400).contains(&last.status) && last.body.contains(text) {
            println!("{}", last.body);
            return Ok(());
        }
        if Instant::now() >= until {
            bail!(
                "no answer held {text}; the last: {}",
                serde_json::to_string(&last)?
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[derive(Debug)]
struct Options {
    words: Vec<String>,
    requests: Option<u64>,
    connections: u64,
    rate: Option<f64>,
    duration: Option<Duration>,
    pause: Duration,
    timeout: Duration,
    json: bool,
    http2: bool,
    grpc: bool,
    trace: bool,
    method: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Option<String>,
    body_size: usize,
    expect: Option<String>,
    until: Duration,
    until_eof: bool,
    ends: Option<SystemTime>,
    beside: Option<String>,
}

impl Options {
    fn parse(words: &[String]) -> anyhow::Result<Self> {
        let mut options = Self {
            words: Vec::new(),
            requests: None,
            connections: 1,
            rate: None,
            duration: None,
            pause: Duration::ZERO,
            timeout: Duration::from_secs(30),
            json: false,
            http2: false,
            grpc: false,
            trace: false,
            method: "GET".into(),
            headers: Vec::new(),
            body: None,
            body_size: 0,
            expect: None,
            until: Duration::ZERO,
            until_eof: false,
            ends: None,
            beside: None,
        };
        let mut words: VecDeque<&str> = words.iter().map(String::as_str).collect();
        while let Some(word) = words.pop_front() {
            let mut value = || {
                words
                    .pop_front()
                    .with_context(|| format!("{word} needs a value"))
            };
            match word {
                "-n" => options.requests = Some(value()?.parse().context("-n")?),
                "-c" => options.connections = value()?.parse().context("-c")?,
                "--rate" => options.rate = Some(value()?.parse().context("--rate")?),
                "--duration" => options.duration = Some(duration::parse(value()?)?),
                "--pause" => options.pause = duration::parse(value()?)?,
                "--timeout" => options.timeout = duration::parse(value()?)?,
                "--json" => options.json = true,
                "--http2" => options.http2 = true,
                "--grpc" => options.grpc = true,
                "--trace" => options.trace = true,
                "-X" => options.method = value()?.into(),
                "-H" => {
                    let (name, value) = value()?.split_once(':').context("-H needs name:value")?;
                    options.headers.push((name.parse()?, value.trim().parse()?));
                }
                "--body" => options.body = Some(value()?.into()),
                "--body-size" => options.body_size = value()?.parse().context("--body-size")?,
                "--expect" => options.expect = Some(value()?.into()),
                "--until-eof" => options.until_eof = true,
                "--ends" => {
                    let second = Duration::from_secs(value()?.parse().context("--ends")?);
                    let ends = UNIX_EPOCH.checked_add(second).context("--ends")?;
                    options.ends = Some(ends);
                }
                "--beside" => options.beside = Some(value()?.into()),
                "--until" => options.until = duration::parse(value()?)?,
                flag if flag.starts_with('-') => bail!("unknown option {flag}\n{USAGE}"),
                word => options.words.push(word.into()),
            }
        }
        let rate = options.rate.unwrap_or(1.0);
        ensure!(
            rate > 0.0 && rate <= 100_000.0,
            "--rate must be above 0 and at most 100000"
        );
        let requests = options.requests.unwrap_or(1);
        ensure!(
            (1..=load::REQUESTS_LIMIT).contains(&requests),
            "-n must be 1 to {}",
            load::REQUESTS_LIMIT
        );
        let connections = 1..=load::CONNECTIONS_LIMIT;
        ensure!(
            connections.contains(&options.connections),
            "-c must be 1 to {}",
            load::CONNECTIONS_LIMIT
        );
        for given in [
            options.duration.unwrap_or_default(),
            options.pause,
            options.timeout,
        ] {
            ensure!(
                given <= load::DURATION_LIMIT,
                "no time may be over {:?}",
                load::DURATION_LIMIT
            );
        }
        ensure!(
            options.body_size <= 256 << 20,
            "--body-size must be at most 256 MiB"
        );
        Ok(options)
    }

    fn word(&self, index: usize) -> Option<&str> {
        self.words.get(index).map(String::as_str)
    }

    fn target(&self) -> anyhow::Result<&str> {
        self.word(0).context(USAGE)
    }

    fn is_single(&self) -> bool {
        self.requests.unwrap_or(1) == 1 && self.duration.is_none()
    }

    fn plan(self) -> anyhow::Result<Plan> {
        let mut ask = Ask::get(self.target()?)?;
        ask.method = self.method.parse()?;
        for (name, value) in self.headers {
            ask.headers.append(name, value);
        }
        ask.body = self
            .body
            .map_or_else(|| vec![b'x'; self.body_size], String::into_bytes)
            .into();
        ask.http2 = self.http2;
        if self.grpc {
            ask.method = Method::POST;
            ask.http2 = true;
            ask.body = grpc::message(&ask.body);
            for (name, value) in [(CONTENT_TYPE, "application/grpc"), (TE, "trailers")] {
                ask.headers.insert(name, HeaderValue::from_static(value));
            }
        }
        ask.traced = self.trace;
        ask.timeout = self.timeout;
        let unlimited = if self.duration.is_some() {
            load::REQUESTS_LIMIT
        } else {
            1
        };
        Ok(Plan {
            ask,
            requests: self.requests.unwrap_or(unlimited),
            connections: self.connections,
            rate: self.rate,
            duration: self.duration,
        })
    }
}
