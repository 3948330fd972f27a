//! A table of maximum sizes for the futures of connections and requests, which bounds the memory of
//! each.
//!
//! A future is as large as the most that it holds across an `await`, and one variable that lives
//! too long makes it larger without a warning of the compiler. So each of these may be as large as
//! it was when the table was last written, and a twentieth more.
//!
//! To change the table run `cargo test -p proxy --lib future_sizes -- --nocapture`, which prints
//! it as it is now, and put it below. A number that rises is a decision: every connection or
//! request pays it, so the commit names what is had for it.

/// What is bounded, and its bytes when this was last written.
const WRITTEN: &[(&str, usize)] = &[
    ("accepted connection", 368),
    ("outbound connection", 2032),
    ("inbound connection in plaintext", 1848),
    ("connection of a peer", 4920),
    ("outbound request", 5464),
    ("inbound request", 5312),
    ("idle relay", 152),
];

/// An async function, whose future's size is known without making it.
pub(crate) trait Asynchronous<Arguments> {
    const FUTURE: usize;
}

macro_rules! asynchronous {
    ($($argument:ident)+) => {
        impl<Function, Future, $($argument),+> Asynchronous<($($argument,)+)> for Function
        where
            Function: Fn($($argument),+) -> Future,
        {
            const FUTURE: usize = size_of::<Future>();
        }
    };
}

asynchronous!(A);
asynchronous!(A B);
asynchronous!(A B C);
asynchronous!(A B C D);
asynchronous!(A B C D E);
asynchronous!(A B C D E F);

/// Bytes of the function's future.
pub(crate) fn future_of<Arguments, F: Asynchronous<Arguments>>(_: F) -> usize {
    F::FUTURE
}

#[test]
fn sizes_of_connections_and_requests_stay_what_they_were() {
    let now = [
        future_of(crate::process::listener::keep_connection),
        future_of(crate::outbound::serve),
        future_of(crate::inbound::serve_plain),
        future_of(crate::inbound::serve_mesh),
        crate::outbound::size_of_a_request(),
        crate::inbound::size_of_a_request(),
        future_of(crate::net::relay::relay::<tokio::net::TcpStream, tokio::net::TcpStream>),
    ];
    assert_eq!(now.len(), WRITTEN.len());
    let rows = || WRITTEN.iter().zip(now);
    for ((what, _), now) in rows() {
        println!("    ({what:?}, {now}),");
    }
    for ((what, written), now) in rows() {
        let most = written + written / 20;
        assert!(
            now <= most,
            "{what}: {now} bytes, and at most {most} are allowed"
        );
    }
}
