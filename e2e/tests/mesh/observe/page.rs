//! The dashboard of a user with role `view` in one namespace, requested as a browser does.
//!
//! Claims: observe-80

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use e2e::harness::{Namespace, Outcome, eventually, weft::program};
use serde_json::{Value, json};

use super::SHOWN;
use super::rights::{reader, two};

/// For one answer; a busy machine is no fault of it.
const LIMIT: Duration = Duration::from_secs(30);
const OBSERVE: &str = "/apis/observe.weft.dev/v1alpha1";
/// All fields that a user receives of a call to another namespace.
const DISCLOSED: [&str; 4] = ["httpStatus", "owner", "reason", "verdict"];

/// A running `weft dashboard`, which ends when this is dropped.
struct Page {
    child: Child,
    address: String,
    key: String,
}

impl Page {
    fn open(ns: &Namespace, user: &str) -> anyhow::Result<Self> {
        let program = program()?.to_string_lossy().into_owned();
        let args = ["dashboard", "-n", &ns.name, "--as", user];
        let mut child = ns
            .cluster
            .command(&program, &args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        // Made before the checks, so that a failed one ends the child too.
        let mut page = Self {
            child,
            address: String::new(),
            key: String::new(),
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let url = line.trim().strip_prefix("http://");
        let (address, key) = url
            .and_then(|url| url.split_once("/#key="))
            .with_context(|| format!("weft dashboard printed {line:?}"))?;
        (page.address, page.key) = (address.to_owned(), key.to_owned());
        Ok(page)
    }

    /// Status and body. The older HTTP: the end of the connection is the end of the answer.
    fn get(&self, path: &str, key: &str) -> anyhow::Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let host = &self.address;
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nhost: {host}\r\nweft-dashboard: {key}\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .with_context(|| format!("{path} answered {answer:?}"))?;
        let status = head.split(' ').nth(1).context("no status")?;
        Ok((status.parse()?, body.to_owned()))
    }

    /// What the cluster says, as the page reads it.
    fn read(&self, path: &str) -> anyhow::Result<Value> {
        let (status, body) = self.get(path, &self.key)?;
        ensure!(status == 200, "{path} answered {status}: {body}");
        Ok(serde_json::from_str(&body)?)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As a browser writes it into a query.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

// Claims: observability-10
#[test]
fn namespace_reader_gets_own_page_and_foreign_verdict_only() -> Outcome {
    let (shop, bank) = two("eyes-page")?;
    let page = Page::open(&shop, &reader(&shop)?)?;
    let graph = |ns: &str| format!("{OBSERVE}/namespaces/{ns}/graphs/live?window=300s");
    let own = eventually(SHOWN, "the page has the call", || {
        let own = page.read(&graph(&shop.name))?;
        let all = own["edges"].as_array().cloned().unwrap_or_default();
        let to = format!("{}/Deployment/cart", bank.name);
        ensure!(all.iter().any(|edge| edge["to"] == to), "{own:#}");
        Ok(own)
    })?;
    let nodes = own["nodes"].as_array().cloned().unwrap_or_default();
    let foreign = nodes.iter().find(|node| node["namespace"] == bank.name);
    let shown = foreign.map(|node| (node["pods"].is_null(), node["access"].is_null()));
    assert_eq!(shown, Some((true, true)), "{own:#}");
    let proxies = page.read(&format!("{OBSERVE}/namespaces/{}/proxies", shop.name))?;
    assert_eq!(proxies["items"].as_array().map(Vec::len), Some(1));
    eventually(SHOWN, "the scope is reported", || {
        let scope = page.read(&format!("{OBSERVE}/scopes/live"))?;
        let one = scope["namespaces"] == json!([shop.name]);
        ensure!(scope["cluster"] == false && one, "{scope}");
        Ok(())
    })?;

    let spec = json!({
        "from": {"kind": "Deployment", "namespace": shop.name, "name": "web"},
        "to": {"kind": "Service", "namespace": bank.name, "name": "cart", "port": 8080},
    });
    let spec = encoded(&spec.to_string());
    let answer = page.read(&format!("/explanation?spec={spec}"))?;
    let status = &answer["explanation"]["status"];
    assert_eq!(status["verdict"], "Allowed", "{answer:#}");
    assert_eq!(status["owner"], bank.name.as_str(), "{answer:#}");
    let fields = status.as_object().context("no status")?;
    assert!(
        fields
            .keys()
            .all(|field| DISCLOSED.contains(&field.as_str())),
        "{answer:#}"
    );

    for path in [
        graph(&bank.name),
        format!("{OBSERVE}/graphs/live"),
        format!("{OBSERVE}/namespaces/{}/proxies", bank.name),
        // The role `view` does not include taps.
        format!("{OBSERVE}/namespaces/{}/taps/live?watch=1", shop.name),
    ] {
        let (status, body) = page.get(&path, &page.key)?;
        assert_eq!(status, 403, "{path}: {body}");
    }
    // The page itself is no secret; what it shows needs the key of this start.
    let (status, body) = page.get("/", "")?;
    assert!(status == 200 && body.contains("<script"), "{status} {body}");
    let (status, body) = page.get(&graph(&shop.name), "")?;
    assert_eq!(status, 403, "{body}");
    Ok(())
}
