//! Servers that go, and what they have not looked at.
//!
//! Claims: calls-14

use super::*;

const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// A frame that belongs to no stream.
fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut frame = (content.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, 0, 0, 0, 0, 0]);
    frame.extend(content);
    frame
}

/// Reads a frame, and returns its type.
async fn read_kind(io: &mut DuplexStream) -> u8 {
    let mut head = [0; 9];
    io.read_exact(&mut head).await.unwrap();
    let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    io.read_exact(&mut vec![0; size]).await.unwrap();
    head[3]
}

/// RFC 9113, 6.8: what is behind the last stream that it names was not processed.
#[tokio::test]
async fn call_unprocessed_at_goaway_is_unsent_for_any_reason() {
    for code in [
        h2::Reason::NO_ERROR,
        h2::Reason::ENHANCE_YOUR_CALM,
        h2::Reason::PROTOCOL_ERROR,
    ] {
        let (sender, mut io) = client().await;
        let [first, second] = [(), ()].map(|()| {
            let mut sender = sender.clone();
            tokio::spawn(async move { sender.send(post(body::empty())).await.map(|_| ()) })
        });
        io.read_exact(&mut [0; 24]).await.unwrap();
        io.write_all(&frame(SETTINGS, &[])).await.unwrap();
        let mut started = 0;
        while started < 2 {
            started += usize::from(read_kind(&mut io).await == HEADERS);
        }
        let mut goaway = 1_u32.to_be_bytes().to_vec();
        goaway.extend(u32::from(code).to_be_bytes());
        io.write_all(&frame(GOAWAY, &goaway)).await.unwrap();
        let outcome = second.await.unwrap();
        let is_unsent = matches!(outcome, Err(SendError::Unsent(_)));
        assert!(is_unsent, "{code:?}: {outcome:?}");
        drop(io);
        let outcome = first.await.unwrap();
        let is_lost = matches!(outcome, Err(SendError::Lost(_)));
        assert!(is_lost, "{code:?}, the stream that it names: {outcome:?}");
    }
}

/// As where a server closes a connection without a word in the moment in which it is used again.
#[tokio::test]
async fn call_with_nothing_sent_before_connection_close_is_unsent() {
    for is_read in [false, true] {
        let (mut sender, mut io) = client().await;
        io.read_exact(&mut [0; 24]).await.unwrap();
        io.write_all(&frame(SETTINGS, &[])).await.unwrap();
        // Until the client has nothing left to do.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let asking = async move { sender.send(post(body::empty())).await.map(|_| ()) };
        let outcome = if is_read {
            let asking = tokio::spawn(asking);
            while read_kind(&mut io).await != HEADERS {}
            drop(io);
            asking.await.unwrap()
        } else {
            // The client reads that in the turn in which it would send the head.
            drop(io);
            asking.await
        };
        match outcome {
            Err(SendError::Unsent(_)) => assert!(!is_read),
            // Control: its server may have acted on it.
            Err(SendError::Lost(_)) => assert!(is_read),
            other => panic!("{is_read}: {other:?}"),
        }
    }
}
