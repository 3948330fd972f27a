//! `make demo`, from the chart on: installs the mesh, opens the shop, shows what its
//! proxies count, and fails when a promise is not kept.

use std::{
    io::{IsTerminal as _, Write as _},
    ops::RangeInclusive,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use e2e::{
    demo::{
        breakage, canary,
        kept::Promise,
        link::Link,
        names::NAMESPACE,
        progress::Progress,
        promise::View,
        shop::{self, Watch},
        table,
    },
    harness::{Cluster, cluster::root, mesh, weft},
};
use tokio::signal::unix::{SignalKind, signal};

/// Between two looks.
const REFRESH: Duration = Duration::from_secs(2);
/// All is well for so long, then one instance is broken for a while.
const WELL_FOR: Duration = Duration::from_secs(10);
/// Without a terminal. 800 requests through the split: 5 sigma are 42 of them.
const WATCH_ONCE: u64 = WELL_FOR.as_secs() + breakage::WATCHED_FOR.as_secs();
/// Below, the broken instance would not be back; above, no load any more.
const WATCH_LIMITS: RangeInclusive<u64> = WATCH_ONCE..=1800;

fn main() -> ExitCode {
    match demo() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("error: what was seen is not what was promised, see BROKEN above");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every promise was kept.
fn demo() -> anyhow::Result<bool> {
    let progress = Progress::begin();
    let screen = std::io::stdout().is_terminal();
    let watch_for = watch_for(screen)?;
    let cluster = Cluster::connect()?;
    progress.step("installing Weft with helm", mesh::installed)?;
    shop::open(&cluster, progress)?;
    let mut watch = Watch::begin(Link::open(&cluster)?)?;
    let ends = progress.step("starting web and cart with the load", || {
        let ends = shop::start_load(&cluster)?;
        watch.await_load()?;
        anyhow::Ok(ends)
    })?;
    let released = canary::run(&cluster, watch.link(), progress)?.promise();
    // Calls that version 2 failed are no calls of the shop as it is from here on.
    watch.begin_again()?;
    let left = ends.saturating_duration_since(Instant::now());
    let watch_for = watch_for.map_or(left, |asked| asked.min(left));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let view = if screen {
        runtime.block_on(show(&cluster, &mut watch, watch_for, draw))?
    } else {
        let text = format!(
            "watching for {} s; after {} one instance of catalog is broken on purpose",
            watch_for.as_secs(),
            WELL_FOR.as_secs()
        );
        let last = progress.step(&text, || {
            runtime.block_on(show(&cluster, &mut watch, watch_for, |_| Ok(())))
        })?;
        print!("{}", table::render(&last));
        last
    };
    // The view has drawn over what was shown of it.
    let Promise { what, seen, kept } = &released;
    let mark = if *kept { "kept" } else { "BROKEN" };
    println!("{mark:<7} {what:<8} {seen}");
    let explained = ask(&cluster)?;
    println!("{}", farewell()?);
    let mut promises = view.promises().into_iter().chain([released]);
    Ok(explained && promises.all(|promise| promise.kept))
}

/// `None` is until Ctrl-C.
fn watch_for(screen: bool) -> anyhow::Result<Option<Duration>> {
    let seconds = match std::env::var("DEMO_SECONDS")
        .ok()
        .filter(|raw| !raw.is_empty())
    {
        Some(raw) => raw
            .parse()
            .with_context(|| format!("DEMO_SECONDS={raw} is no number"))?,
        None if screen => return Ok(None),
        None => WATCH_ONCE,
    };
    ensure!(
        WATCH_LIMITS.contains(&seconds),
        "DEMO_SECONDS must be {} to {}",
        WATCH_LIMITS.start(),
        WATCH_LIMITS.end()
    );
    Ok(Some(Duration::from_secs(seconds)))
}

/// Looks until the time is over, as it is with the load, or a signal comes; what was
/// seen last is returned, which keeps no promise when nothing was seen.
async fn show(
    cluster: &Cluster,
    watch: &mut Watch,
    watch_for: Duration,
    draw: impl Fn(&View) -> anyhow::Result<()>,
) -> anyhow::Result<View> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let start = Instant::now();
    let mut last = View::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(REFRESH) => {}
            _ = interrupt.recv() => return Ok(last),
            _ = terminate.recv() => return Ok(last),
        }
        if start.elapsed() >= WELL_FOR {
            watch.break_one(cluster)?;
        }
        if let Some(view) = watch.look()? {
            draw(&view)?;
            last = view;
        }
        if start.elapsed() >= watch_for {
            return Ok(last);
        }
    }
}

/// Over the lines of before, each cleared to its end, so that nothing flickers.
fn draw(view: &View) -> anyhow::Result<()> {
    let mut text = String::from("\x1b[H");
    for line in table::render(view).lines() {
        text.push_str(line);
        text.push_str("\x1b[K\n");
    }
    text.push_str("\nCtrl-C ends this view and leaves the shop running\x1b[K\n\x1b[J");
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// The same from `weft explain`, as the README shows it. Whether it names the reason for which
/// a call is refused, and the object that would allow it.
fn ask(cluster: &Cluster) -> anyhow::Result<bool> {
    let explain = ["explain", "deploy/web", "svc/payments", "POST", "/pay"];
    let fix = [&explain[..], &["-o", "fix"]].concat();
    let refused = "REFUSED 403 not-allowed, by the proxies of payments";
    let mut kept = true;
    for (words, status, named) in [
        (&["edges"][..], 0, "payments"),
        (&explain[..], 1, refused),
        (&fix[..], 0, "kind: TrafficTarget"),
    ] {
        let words = [words, &["-n", NAMESPACE]].concat();
        let answer = cluster.weft(&words)?;
        let line = format!("weft {}", words.join(" "));
        println!("\n$ {line}\n{}", answer.out.trim_end());
        if answer.status != status || !answer.out.contains(named) {
            eprint!("{}", answer.err);
            println!(
                "BROKEN  `{line}` ended with {}, not {status}, or its answer has no {named:?}",
                answer.status
            );
            kept = false;
        }
    }
    Ok(kept)
}

fn farewell() -> anyhow::Result<String> {
    let external = std::env::var("CLUSTER").is_ok_and(|cluster| cluster == "external");
    let (reach, end) = if external {
        (
            String::new(),
            "helm uninstall weft -n weft-system".to_owned(),
        )
    } else {
        let root = root().display();
        let program = weft::program()?;
        let weft = program.parent().unwrap_or(&program).display();
        (
            format!(
                "  export KUBECONFIG={root}/target/cluster/kubeconfig PATH={root}/target/tools/bin:{weft}:$PATH\n"
            ),
            "make cluster-down".to_owned(),
        )
    };
    Ok(format!(
        "
Everything is left running; the load ends by itself within half an hour, `make demo` begins it anew.

Look at it:
{reach}  weft check
  weft stat ts -n shop
  weft explain deploy/web svc/payments POST /pay -n shop -o fix
  weft dashboard -n shop             # the same as a page in your browser; Ctrl-C ends it
  kubectl -n shop get pods,trafficsplits,traffictargets,httproutegroups
  kubectl -n shop exec deploy/web -c app -- /weft-echo get http://catalog/products
  kubectl -n shop exec deploy/web -c app -- /weft-echo get http://payments/pay -X POST   # refused
  kubectl -n shop port-forward deploy/payments 15190    # then: curl localhost:15190/metrics
Move the traffic and watch the table follow:
  kubectl -n shop edit trafficsplit catalog
Release a version of cart that fails half of its calls, as the demo did, and look what becomes of it:
  kubectl -n shop set env deployment/cart -c app 'FAULT={{\"percent\":50,\"only\":\"/cart\"}}'
  weft release status cart -n shop --watch
  kubectl -n shop rollout undo deployment/cart
Break one instance of catalog for a while, as the demo did:
  kubectl -n shop exec deploy/catalog-v1 -c app -- /weft-echo get http://127.0.0.1:8080/fault -X POST --body '{{\"only\": \"/products\", \"for\": \"20s\"}}'
End it:
  kubectl delete namespace shop     # the shop
  {end}     # and the rest"
    ))
}
