//! Writes lines to a pipe whose reader may be slow, by a thread of their own.
//!
//! A container's standard output and error are pipes to the runtime. When they are not
//! read a write blocks, and with it everything on that thread: a node with a full disk
//! must not stop traffic. So lines wait in a queue; one that finds it full is lost and
//! counted.
//!
//! Claims: attack-75, observe-16, observe-89

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait: some hundred KiB as they usually are.
pub const LINES: usize = 1024;
/// Bytes that may wait, for lines that are longer than usual.
pub const BYTES: usize = 1024 * 1024;
/// Lines that there is always room for. A channel has room for all of them from the start,
/// which is 40 KiB in every process that is silent.
const ROOM: usize = 16;
/// At the end of the process a reader has this long to take what waits.
pub const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// Of all queues of the process.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Lines that the process has lost.
#[must_use]
pub fn lost() -> u64 {
    LOST.load(Relaxed)
}

/// A queue of lines and the thread that writes them. Clones are the same queue.
#[derive(Clone, Debug)]
pub struct LogWriter {
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// There is something to write.
    news: Condvar,
    /// Something was written, or is lost.
    progress: Condvar,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    /// Of these, and of the line that is being written.
    bytes: usize,
    /// Lines that found room, ever.
    queued: u64,
    /// Those of them that are no more to be written.
    done: u64,
}

impl Queue {
    fn lose(&self) {
        self.lost.fetch_add(1, Relaxed);
        LOST.fetch_add(1, Relaxed);
    }
}

impl LogWriter {
    /// Starts the thread. It lives as long as the process.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn to(name: &str, mut target: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Arc::<Queue>::default();
        let shared = Arc::clone(&queue);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || write_all(&shared, &mut target))?;
        Ok(Self { queue })
    }

    /// Queues a line, with its line feed, or loses it. Never waits.
    pub fn write(&self, line: Vec<u8>) {
        let mut waiting = self.queue.waiting.lock();
        if waiting.lines.len() >= LINES || waiting.bytes + line.len() > BYTES {
            drop(waiting);
            return self.queue.lose();
        }
        waiting.bytes += line.len();
        waiting.queued += 1;
        waiting.lines.push_back(line);
        drop(waiting);
        self.queue.news.notify_one();
    }

    /// Lines that were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.queue.lost.load(Relaxed)
    }

    /// Waits until what is queued is written, at most `within`.
    pub fn flush(&self, within: Duration) {
        let until = Instant::now() + within;
        let mut waiting = self.queue.waiting.lock();
        let queued = waiting.queued;
        while waiting.done < queued {
            let progress = &self.queue.progress;
            if progress.wait_until(&mut waiting, until).timed_out() {
                return;
            }
        }
    }
}

/// For as long as the process lives.
fn write_all(queue: &Queue, target: &mut impl Write) {
    let mut waiting = queue.waiting.lock();
    loop {
        let Some(line) = waiting.lines.pop_front() else {
            queue.news.wait(&mut waiting);
            continue;
        };
        drop(waiting);
        // A closed pipe loses it as a full one does.
        if target.write_all(&line).is_err() || target.flush().is_err() {
            queue.lose();
        }
        waiting = queue.waiting.lock();
        waiting.bytes -= line.len();
        waiting.done += 1;
        if waiting.lines.is_empty() {
            // What a burst needed is given back.
            waiting.lines.shrink_to(ROOM);
        }
        queue.progress.notify_all();
    }
}

/// The same queue for events of the log, each of which is one line that no terminal acts upon.
#[derive(Debug)]
pub struct EventWriter {
    lines: LogWriter,
    acts_upon: fn(char) -> bool,
}

impl LogWriter {
    /// For events of the log. Characters that terminals act upon, by `acts_upon`, are written
    /// as their escape. That is no ASCII that can be printed.
    #[must_use]
    pub fn events(&self, acts_upon: fn(char) -> bool) -> EventWriter {
        let lines = self.clone();
        EventWriter { lines, acts_upon }
    }
}

/// One event of the log, which comes in one write.
#[derive(Debug)]
pub struct Event<'a>(&'a EventWriter);

impl Write for Event<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let EventWriter { lines, acts_upon } = self.0;
        lines.write(readable(line, *acts_upon).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An event as one line of which a terminal shows each letter. Names and reasons in it come from
/// any author of objects, and neither layout escapes all that turns, hides or ends a line. JSON
/// means the same afterwards. ESC is escaped in JSON already. It stays as it is since text for
/// a terminal begins colours with it; no program of ours logs text, which keeps an ESC of
/// a field that is displayed.
fn readable(line: &[u8], acts_upon: fn(char) -> bool) -> Cow<'_, [u8]> {
    let (event, end) = match line.split_last() {
        Some((b'\n', event)) => (event, "\n"),
        _ => (line, ""),
    };
    if event.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Cow::Borrowed(line);
    }
    let mut readable = String::with_capacity(line.len());
    for letter in String::from_utf8_lossy(event).chars() {
        if letter != '\u{1b}' && acts_upon(letter) {
            // JSON has two escapes for one beyond U+FFFF.
            for unit in letter.encode_utf16(&mut [0; 2]) {
                // Writing to a String does not fail.
                let _ = write!(readable, "\\u{unit:04x}");
            }
        } else {
            readable.push(letter);
        }
    }
    readable.push_str(end);
    Cow::Owned(readable.into_bytes())
}

impl<'a> MakeWriter<'a> for EventWriter {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Event<'a> {
        Event(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Lines that there is room for without more memory.
    fn room(lines: &LogWriter) -> usize {
        lines.queue.waiting.lock().lines.capacity()
    }

    /// A line of 100 bytes.
    fn line(at: usize) -> Vec<u8> {
        format!("{at:99}\n").into_bytes()
    }

    // Claims: B10
    #[test]
    fn unread_log_pipe_blocks_no_writer_counting_losses() {
        let (mut reader, writer) = io::pipe().unwrap();
        let lines = LogWriter::to("lines", writer).unwrap();
        assert_eq!(room(&lines), 0, "a silent process holds a queue");
        let started = Instant::now();
        // A pipe of Linux takes 64 KiB, the queue 1 024 lines, one is in hand.
        const ALL: usize = 5000;
        for at in 0..ALL {
            lines.write(line(at));
        }
        assert!(started.elapsed() < FLUSH_WITHIN, "{:?}", started.elapsed());
        let lost = usize::try_from(lines.lost()).unwrap();
        let kept = ALL - lost;
        assert!((LINES..=LINES + 657).contains(&kept), "{kept}");
        assert!(room(&lines) >= LINES);

        // The reader comes back: everything that is not counted arrives, whole.
        let reading = std::thread::spawn(move || {
            let mut all = vec![0; kept * 100];
            reader.read_exact(&mut all).unwrap();
            String::from_utf8(all).unwrap()
        });
        lines.flush(Duration::from_secs(10));
        let all = reading.join().unwrap();
        let mut last = None;
        for line in all.lines() {
            let at: usize = line.trim().parse().unwrap();
            assert!(last < Some(at), "{at} after {last:?}");
            last = Some(at);
        }
        assert_eq!(all.lines().count(), kept);
        assert!(
            room(&lines) <= 2 * ROOM,
            "a burst is kept: {}",
            room(&lines)
        );
    }

    #[test]
    fn queued_log_lines_flush_at_exit_within_limit() {
        let (mut reader, writer) = io::pipe().unwrap();
        let lines = LogWriter::to("lines", writer).unwrap();
        for at in 0..300 {
            lines.write(line(at));
        }
        lines.flush(FLUSH_WITHIN);
        let mut all = vec![0; 300 * 100];
        reader.read_exact(&mut all).unwrap();
        assert_eq!(lines.lost(), 0);

        for at in 0..5000 {
            lines.write(line(at));
        }
        let started = Instant::now();
        lines.flush(Duration::from_millis(100));
        assert!(started.elapsed() < FLUSH_WITHIN, "{:?}", started.elapsed());
    }

    #[test]
    fn long_lines_are_bounded_by_their_bytes() {
        let (_reader, writer) = io::pipe().unwrap();
        let lines = LogWriter::to("lines", writer).unwrap();
        for _ in 0..100 {
            lines.write(vec![b'x'; BYTES / 10]);
        }
        let lost = lines.lost();
        // What the thread has in hand still counts as waiting.
        assert!((90..100).contains(&lost), "{lost}");
    }

    /// As the whole list, of what stands below.
    fn acts_upon(letter: char) -> bool {
        letter.is_control() || "\u{ad}\u{202e}\u{2028}\u{3164}\u{e0041}".contains(letter)
    }

    #[test]
    fn log_event_is_one_line_without_terminal_effects() {
        let shown = |event: &str| {
            let event = readable(event.as_bytes(), acts_upon);
            String::from_utf8(event.into()).unwrap()
        };
        for ordinary in [
            "{\"level\":\"INFO\",\"reason\":\"a \\\"b\\\"\"}\n",
            "\u{1b}[32m INFO\u{1b}[0m caf\u{e9} \u{1f600}\n",
            "without an end",
            "",
        ] {
            assert_eq!(shown(ordinary), ordinary);
        }
        assert_eq!(
            shown("{\"reason\":\"\u{9b}2J\u{202e}x\u{7f}\u{2028}\"}\n"),
            "{\"reason\":\"\\u009b2J\\u202ex\\u007f\\u2028\"}\n"
        );
        assert_eq!(
            shown("{\"reason\":\"\u{ad}\u{3164}\u{e0041}\"}\n"),
            "{\"reason\":\"\\u00ad\\u3164\\udb40\\udc41\"}\n"
        );
        assert_eq!(
            shown("no answer\r\nINFO all is well\n"),
            "no answer\\u000d\\u000aINFO all is well\n"
        );
    }

    // Claims: B10
    #[test]
    fn a_closed_pipe_loses_lines_and_nothing_else() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let lines = LogWriter::to("lines", writer).unwrap();
        lines.write(line(1));
        lines.flush(FLUSH_WITHIN);
        assert_eq!(lines.lost(), 1);
    }
}
