//! Request bodies that arrive after the response.
//!
//! Claims: calls-7

use std::net::IpAddr;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

use super::*;
use crate::path::leftover::{answer, head};

const BODY: &[u8] = b"0123456789";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// What comes later than this is behind the answer: that waits for 100 ms at each proxy.
const FIRST_PROXY: Duration = Duration::from_millis(150);
const BOTH_PROXIES: Duration = Duration::from_millis(250);

/// Responds to every head at once, and sends what it then receives of the body of a POST.
async fn hasty(mut stream: TcpStream, bodies: UnboundedSender<Vec<u8>>) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        stream.write_all(ANSWER).await?;
        if !head.starts_with(b"POST ") {
            continue;
        }
        let mut body = Vec::new();
        while body.len() < BODY.len()
            && let Ok(byte) = stream.read_u8().await
        {
            body.push(byte);
        }
        let _ = bodies.send(body);
    }
}

async fn listen(ip: IpAddr) -> (u16, UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (bodies, came) = unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(hasty(stream, bodies.clone()));
        }
    });
    (port, came)
}

/// Two pods, the second with an application that answers every head at once.
struct HastyPods {
    client: Pod,
    /// Lives as long as its connections.
    _server: Pod,
    came: UnboundedReceiver<Vec<u8>>,
    dedicated: Arc<Dedicated>,
}

impl HastyPods {
    async fn new() -> Self {
        let (client, server, _, _) = pair(Protocol::Http1).await;
        let (port, came) = listen(server.ip).await;
        client.reaches(&server, port);
        let dedicated = dedicated(&client, &server);
        Self {
            client,
            _server: server,
            came,
            dedicated,
        }
    }

    /// A caller that has sent the head of a POST by the dedicated connection, and `first_part` of
    /// its body.
    async fn begin(&self, first_part: &[u8]) -> TcpStream {
        let mut caller = self.client.call(vip()).await;
        let head = head(BODY.len(), "");
        let sent = [head.as_bytes(), first_part].concat();
        caller.write_all(&sent).await.unwrap();
        caller
    }

    /// Sends a POST whose body comes this much behind its head, by the dedicated connection.
    async fn post(&mut self, later: Duration) {
        let before = self.dedicated.used().1;
        let mut caller = self.begin(b"").await;
        sleep(later).await;
        caller.write_all(BODY).await.unwrap();
        let answer = answer(&mut caller).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(self.came().await, BODY, "{later:?}");
        assert_eq!(self.dedicated.used().1, before + 1, "by another connection");
    }

    async fn came(&mut self) -> Vec<u8> {
        let came = timeout(PATIENCE, self.came.recv()).await;
        came.expect("neither the body nor an end of it").unwrap()
    }
}

#[tokio::test]
async fn body_after_response_arrives_complete_over_dedicated_connection() {
    let rounds = (0..4).map(|_| async {
        let mut pods = HastyPods::new().await;
        for later in [FIRST_PROXY, BOTH_PROXIES].repeat(2) {
            // Such a connection ends with the answer that did not wait, and the next one is
            // opened a second after it at the earliest.
            warm(&pods.client, &pods.dedicated).await;
            pods.post(later).await;
        }
    });
    futures::future::join_all(rounds).await;
}

#[tokio::test]
async fn body_awaited_by_response_keeps_dedicated_connection_reusable() {
    let mut pods = HastyPods::new().await;
    warm(&pods.client, &pods.dedicated).await;
    let before = pods.dedicated.used().1;
    for _ in 0..40 {
        pods.post(Duration::from_millis(50)).await;
    }
    assert_eq!(pods.dedicated.used(), (1, before + 40));
}

#[tokio::test]
async fn caller_leaving_after_response_aborts_its_body_only_then() {
    let mut pods = HastyPods::new().await;
    warm(&pods.client, &pods.dedicated).await;
    let before = pods.dedicated.used().1;
    let (first_part, _) = BODY.split_at(4);
    let mut caller = pods.begin(first_part).await;
    let answer = answer(&mut caller).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let stays = timeout(Duration::from_millis(300), pods.came.recv()).await;
    assert!(stays.is_err(), "broken off before: {stays:?}");
    drop(caller);
    assert_eq!(pods.came().await, first_part);
    assert_eq!(pods.dedicated.used().1, before + 1, "by another connection");
}
