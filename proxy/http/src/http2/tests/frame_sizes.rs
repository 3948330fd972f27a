//! The DATA frames of a body that is passed on: each costs its receiver as much, however
//! little it holds, so a proxy may join small ones and takes none apart.
//!
//! Claims: attack-19

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::*;

/// Below and above what counts as small. All together they fit the window of a peer that announces
/// none.
const SIZES: [usize; 6] = [1, 17, 200, 255, 256, 1000];
const FRAMES: usize = 120;
/// All of these fit it as well.
const BYTES: usize = 60_000;

/// A server of ours takes a body, and a client of ours passes it on. Returns its frames.
async fn passed_on(
    sizes: impl Iterator<Item = usize>,
    at_once: bool,
) -> (BTreeSet<usize>, Vec<(u8, u8, usize)>) {
    let (onward, mut io) = client().await;
    let onward = Mutex::new(onward);
    let mut sender = pair(move |request| {
        let mut onward = onward.lock().clone();
        async move {
            let body = request.into_body().boxed_unsync();
            // No answer comes.
            let _ = onward.send(post(body)).await;
            Response::new(body::empty())
        }
    })
    .await;
    let (parts, body) = later([]);
    let asking = tokio::spawn(async move { sender.send(post(body)).await });
    let seen = tokio::spawn(async move { frames(&mut io).await });
    let (mut whole, mut ends) = (0, BTreeSet::new());
    for size in sizes {
        if !at_once {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        whole += size;
        ends.insert(whole);
        let part = Frame::data(Bytes::from(vec![7; size]));
        parts.send(Ok(part)).unwrap();
    }
    drop(parts);
    let seen = timeout(Duration::from_secs(5), seen).await;
    asking.abort();
    (ends, seen.expect("it never ends").unwrap())
}

// Claims: R1
#[tokio::test]
async fn small_body_frames_are_forwarded_unchanged_or_joined() {
    for at_once in [true, false] {
        let sizes = SIZES.into_iter().cycle().take(FRAMES);
        let (ends, seen) = passed_on(sizes, at_once).await;
        let mut at = 0_usize;
        for (kind, _, size) in &seen[1..] {
            assert!(*kind == DATA && *size > 0, "at once {at_once}: {seen:?}");
            at += size;
            assert!(ends.contains(&at), "at once {at_once}: {size} of {seen:?}");
        }
        assert_eq!(Some(&at), ends.last(), "at once {at_once}: {seen:?}");
        let (_, flags, _) = seen[seen.len() - 1];
        assert_eq!(flags & END, END, "at once {at_once}: {seen:?}");
    }
}

#[tokio::test]
async fn waiting_kilobyte_messages_are_joined_but_larger_not() {
    for (size, together) in [(1000, true), (3000, false)] {
        let sizes = std::iter::repeat_n(size, BYTES / size);
        let (ends, seen) = passed_on(sizes, true).await;
        let sizes: Vec<usize> = seen.iter().skip(1).map(|(_, _, size)| *size).collect();
        assert_eq!(sizes.iter().sum::<usize>(), BYTES, "{sizes:?}");
        if together {
            assert!(sizes.len() < ends.len() / 2, "{sizes:?}");
        } else {
            assert_eq!(sizes.len(), ends.len(), "{sizes:?}");
        }
    }
}
