//! Forwards a connection to a port of a pod, through the API server.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::names::ResourceKind;
use super::{Cluster, existing};
use crate::failure::Failure;

/// Max bytes of one response. A proxy's configuration of 2 000 rules is below 4 MiB.
const MOST_BYTES: u64 = 32 << 20;

/// A byte stream to a pod's port.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Connects to a port of a pod, on its loopback.
async fn connect(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    port: u16,
) -> Result<Box<dyn Stream>, Failure> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace);
    let what = format!("port {port} of Pod {namespace}/{pod}");
    let ports = [port];
    let forwarded = cluster.try_call(&what, pods.portforward(pod, &ports));
    let mut forwarder = match forwarded.await {
        Ok(forwarder) => forwarder,
        Err(refusal) => {
            let here = cluster.about(Some(namespace));
            return Err(existing::or_absent(&here, (ResourceKind::Pod, pod), refusal).await);
        }
    };
    match forwarder.take_stream(port) {
        Some(stream) => Ok(Box::new(stream)),
        None => Err(Failure::unknown(format!("{what}: no stream was opened"))),
    }
}

/// The body of a page at a pod's port.
///
/// # Errors
/// When the right is missing, the pod does not exist or nothing listens, and when the response is
/// missing, late, too long or no 200.
pub(crate) async fn page(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    port: u16,
    path: &str,
) -> Result<String, Failure> {
    let stream = connect(cluster, namespace, pod, port).await?;
    let what = format!("{path} of port {port} of Pod {namespace}/{pod}");
    fetch(stream, path, cluster.each())
        .await
        .map_err(|why| Failure::unknown(format!("{what}: {why}")))
}

async fn fetch(stream: Box<dyn Stream>, path: &str, within: Duration) -> Result<String, String> {
    let querying = async {
        let (read, mut write) = tokio::io::split(stream);
        let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
        write.write_all(request.as_bytes()).await?;
        write.flush().await?;
        let mut answer = Vec::new();
        read.take(MOST_BYTES).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(within, querying)
        .await
        .map_err(|_| format!("no answer within {} s", within.as_secs_f32()))?
        .map_err(|error| error.to_string())?;
    if answer.len() as u64 == MOST_BYTES {
        return Err(format!(
            "the answer is longer than {} MiB",
            MOST_BYTES >> 20
        ));
    }
    body(&answer)
}

/// The body of a complete HTTP/1.0 response.
fn body(answer: &[u8]) -> Result<String, String> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or("nothing speaks HTTP there")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        return Err(format!("status {status:.20}"));
    }
    String::from_utf8(answer[end + 4..].to_vec()).map_err(|_| "the answer is no text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn page_is_read_completely_but_silent_port_abandoned() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let request = tokio::spawn(async move {
            let mut head = [0; 64];
            let read = theirs.read(&mut head).await.unwrap();
            theirs
                .write_all(b"HTTP/1.0 200 OK\r\na: b\r\n\r\n{\"x\": 1}")
                .await
                .unwrap();
            String::from_utf8_lossy(&head[..read]).into_owned()
        });
        let within = Duration::from_secs(10);
        let page = fetch(Box::new(ours), "/config", within).await;
        assert_eq!(page, Ok("{\"x\": 1}".to_owned()));
        assert!(
            request
                .await
                .unwrap()
                .starts_with("GET /config HTTP/1.0\r\n")
        );

        let (ours, _silent) = tokio::io::duplex(1024);
        let error = fetch(Box::new(ours), "/config", within).await.unwrap_err();
        assert!(error.contains("10 s"), "{error}");
        let (ours, _silent) = tokio::io::duplex(1024);
        let short = Duration::from_millis(500);
        let error = fetch(Box::new(ours), "/config", short).await.unwrap_err();
        assert!(error.contains("within 0.5 s"), "{error}");
        assert!(
            body(b"HTTP/1.1 404 Not Found\r\n\r\n")
                .unwrap_err()
                .contains("404")
        );
        assert!(body(b"SSH-2.0").is_err());
    }
}
