//! The output of `perf script`, folded into a tree: which function called which, and in how
//! many samples.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::flame::inlined::Inlined;

/// Stands for the callers of a function that keeps no frame pointer, as those of
/// the C library and hand-written assembly: the way back from there leads nowhere.
const NO_CALLER: &str = "[caller unknown]";
/// Where programs and threads begin: what started these shows nothing, and a stack
/// without them is not complete.
const OUTERMOST: [&str; 2] = ["main", "start_thread"];
/// How `perf` writes that an address has no name, or is in no file.
const UNKNOWN: &str = "[unknown]";

/// A function in its place, with all that it called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// Samples in this function or in what it called.
    pub(crate) samples: u64,
    /// By name, so that equal input gives equal pictures.
    pub(crate) calls: BTreeMap<Function, Self>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    Program,
    /// Of the program, merged into its caller by the compiler.
    Inlined,
    Kernel,
}

impl Function {
    fn of_program(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            origin: Origin::Program,
        }
    }
}

impl Node {
    /// Samples in this function and in nothing that it called.
    pub(crate) fn own(&self) -> u64 {
        let calls: u64 = self.calls.values().map(|call| call.samples).sum();
        self.samples.saturating_sub(calls)
    }

    /// Functions on top of each other, this one not counted.
    pub(crate) fn depth(&self) -> usize {
        let deepest = self.calls.values().map(|call| 1 + call.depth()).max();
        deepest.unwrap_or(0)
    }

    /// Functions by their own samples, the heaviest first. What is merged into a
    /// function counts as its own: that is what a program is made of.
    pub(crate) fn heaviest(&self) -> Vec<(&Function, u64)> {
        let mut own = BTreeMap::new();
        self.add_own(None, &mut own);
        let mut own: Vec<_> = own.into_iter().collect();
        // Sorting keeps the order of names among equals.
        own.sort_by_key(|(_, samples)| std::cmp::Reverse(*samples));
        own
    }

    fn add_own<'a>(&'a self, into: Option<&'a Function>, own: &mut BTreeMap<&'a Function, u64>) {
        for (function, node) in &self.calls {
            let whole = match function.origin {
                Origin::Inlined => into.unwrap_or(function),
                Origin::Program | Origin::Kernel => function,
            };
            *own.entry(whole).or_default() += node.own();
            node.add_own(Some(whole), own);
        }
    }

    fn add(&mut self, stack: impl Iterator<Item = Function>) {
        self.samples += 1;
        let mut node = self;
        for function in stack {
            node = node.calls.entry(function).or_default();
            node.samples += 1;
        }
    }
}

/// What a thread was doing at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Sample<'a> {
    thread: &'a str,
    /// From the innermost to the outermost.
    frames: Vec<Frame<'a>>,
}

impl<'a> Sample<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let thread = lines.next().filter(|line| !starts_blank(line))?.trim();
        let mut frames = Vec::new();
        let mut returns = false;
        for mut frame in lines.filter_map(Frame::read) {
            // The innermost one is where the processor was; callers were read
            // from memory and may be anything.
            if frame.file == UNKNOWN && !frames.is_empty() {
                break;
            }
            if !frame.kernel {
                // A caller's place is where it goes on, which may belong to
                // what comes after the call in its source.
                frame.file_offset = frame.file_offset.saturating_sub(u64::from(returns));
                returns = true;
            }
            let outermost = frame.is_outermost();
            frames.push(frame);
            if outermost {
                break;
            }
        }
        Some(Sample { thread, frames })
    }
}

/// Reads what `perf script -F comm,ip,sym,dso` prints: for each sample a line
/// with the name of the thread, then, indented, the functions from the innermost
/// to the outermost, then an empty line.
pub(crate) fn read(script: &str) -> Vec<Sample<'_>> {
    script.split("\n\n").filter_map(Sample::read).collect()
}

/// Places in the file of `program` that occur.
pub(crate) fn file_offsets(samples: &[Sample<'_>], program: &Path) -> BTreeSet<u64> {
    let frames = samples.iter().flat_map(|sample| &sample.frames);
    frames
        .filter(|frame| Path::new(frame.file) == program)
        .map(|frame| frame.file_offset)
        .collect()
}

/// Makes one tree of all samples, with threads as its lowest functions, and
/// merged functions put back in `program`.
pub(crate) fn fold(samples: &[Sample<'_>], program: &Path, inlined: &Inlined) -> Node {
    let mut root = Node::default();
    for sample in samples {
        let mut stack = Vec::new();
        for frame in &sample.frames {
            if Path::new(frame.file) == program {
                let merged = inlined.at(frame.file_offset, frame.name).iter();
                stack.extend(merged.map(|name| Function {
                    name: name.clone(),
                    origin: Origin::Inlined,
                }));
            }
            stack.push(frame.function());
        }
        // Where no function of the program is, the kernel works on its own account.
        let complete = sample.frames.last().is_none_or(Frame::is_outermost);
        if !complete && sample.frames.iter().any(|frame| !frame.kernel) {
            stack.push(Function::of_program(NO_CALLER));
        }
        stack.push(Function::of_program(sample.thread));
        root.add(stack.into_iter().rev());
    }
    root
}

/// How much of the program's own time fell on functions without a name, of 1.
/// Near 1 when the program carries no symbols.
pub(crate) fn nameless(root: &Node) -> f64 {
    let heaviest = root.heaviest();
    let own = |wanted: &dyn Fn(&Function) -> bool| -> u64 {
        heaviest
            .iter()
            .filter(|(function, _)| function.origin != Origin::Kernel && wanted(function))
            .map(|(_, samples)| samples)
            .sum()
    };
    let all = own(&|_| true);
    if all == 0 {
        return 0.0;
    }
    own(&|function| function.name == UNKNOWN) as f64 / all as f64
}

#[derive(Clone, Debug)]
struct Frame<'a> {
    /// In the file, or in the kernel's memory.
    file_offset: u64,
    name: &'a str,
    file: &'a str,
    kernel: bool,
}

impl<'a> Frame<'a> {
    /// `  7f00 name of the function (/the/file)`
    fn read(line: &'a str) -> Option<Self> {
        let (address, rest) = line.trim().split_once(' ')?;
        let (name, file) = rest.strip_suffix(')')?.rsplit_once(" (")?;
        let address = u64::from_str_radix(address, 16).ok()?;
        Some(Self {
            file_offset: address,
            name,
            file,
            // The upper half of the addresses is the kernel's.
            kernel: address >> 63 == 1,
        })
    }

    fn is_outermost(&self) -> bool {
        OUTERMOST.contains(&self.name)
    }

    fn function(&self) -> Function {
        Function {
            origin: if self.kernel {
                Origin::Kernel
            } else {
                Origin::Program
            },
            ..Function::of_program(self.name)
        }
    }
}

fn starts_blank(line: &str) -> bool {
    line.starts_with(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Function, Node, Origin, file_offsets, nameless, read};
    use crate::flame::inlined::Inlined;
    use crate::flame::stacks;

    fn fold(script: &str) -> Node {
        stacks::fold(
            &read(script),
            Path::new("/bin/weft-proxy"),
            &Inlined::default(),
        )
    }

    /// Two samples in one call, one in its caller, one in another thread.
    const SCRIPT: &str = "weft-proxy \n\
\tffffffff82010000 tcp_sendmsg ([kernel.kallsyms])\n\
\t          870b3d __writev (/bin/weft-proxy)\n\
\t          4325a0 <a::B<C> as d::E>::poll (/bin/weft-proxy)\n\
\t          4325b0 main (/bin/weft-proxy)\n\n\
weft-proxy \n\
\tffffffff82010004 tcp_sendmsg ([kernel.kallsyms])\n\
\t          870b3d __writev (/bin/weft-proxy)\n\
\t          4325a4 <a::B<C> as d::E>::poll (/bin/weft-proxy)\n\
\t          4325b0 main (/bin/weft-proxy)\n\n\
weft-proxy \n\
\t          4325a8 <a::B<C> as d::E>::poll (/bin/weft-proxy)\n\
\t          4325b0 main (/bin/weft-proxy)\n\n\
slow work \n\
\t          411111 compile (/bin/weft-proxy)\n\
\t          411112 start_thread (/bin/weft-proxy)\n\n";

    fn at<'a>(root: &'a Node, path: &[&str]) -> &'a Node {
        path.iter().fold(root, |node, name| {
            let mut calls = node.calls.iter();
            calls
                .find(|(function, _)| function.name == *name)
                .map(|(_, node)| node)
                .unwrap_or_else(|| unreachable!("{name} is not among {:?}", node.calls.keys()))
        })
    }

    #[test]
    fn equal_callers_merge_into_one_summed_function() {
        let root = fold(SCRIPT);
        assert_eq!(root.samples, 4);
        let poll = at(&root, &["weft-proxy", "main", "<a::B<C> as d::E>::poll"]);
        assert_eq!((poll.samples, poll.own()), (3, 1));
        let send = at(poll, &["__writev", "tcp_sendmsg"]);
        assert_eq!((send.samples, send.own()), (2, 2));
        assert_eq!(
            at(&root, &["slow work", "start_thread", "compile"]).own(),
            1
        );
        assert_eq!(root.depth(), 5);
    }

    #[test]
    fn heaviest_list_counts_own_samples_only() {
        let root = fold(SCRIPT);
        let heaviest: Vec<_> = root
            .heaviest()
            .into_iter()
            .map(|(Function { name, origin }, samples)| (&**name, *origin, samples))
            .collect();
        assert_eq!(heaviest[0], ("tcp_sendmsg", Origin::Kernel, 2));
        assert_eq!(heaviest[1], ("<a::B<C> as d::E>::poll", Origin::Program, 1));
        assert_eq!(heaviest[2], ("compile", Origin::Program, 1));
        assert_eq!(heaviest[3].2, 0, "writev only called");
    }

    #[test]
    fn inlined_functions_return_to_call_site_as_callers_own() {
        let program = Path::new("/bin/weft-proxy");
        let script = "weft-proxy \n\
\t          4325a0 poll (/bin/weft-proxy)\n\
\t          4325b0 main (/bin/weft-proxy)\n\n\
weft-proxy \n\
\tffffffff82010004 tcp_sendmsg ([kernel.kallsyms])\n\
\t          4325a0 poll (/bin/weft-proxy)\n\
\t          4325b0 main (/bin/weft-proxy)\n\n";
        let samples = read(script);
        let found: Vec<_> = file_offsets(&samples, program).into_iter().collect();
        assert_eq!(
            found,
            [0x4325a0, 0x4325af],
            "a caller is asked for by its call"
        );
        let inlined = Inlined::of_unmoved(
            "0x4325a0\nwrite\n??:0\nflush\n??:0\npoll\n??:0\n0x4325af\nrun\n??:0\nmain\n??:0\n",
        );
        let root = stacks::fold(&samples, program, &inlined);
        let flush = at(&root, &["weft-proxy", "main", "run", "poll", "flush"]);
        assert_eq!(at(flush, &["write"]).own(), 1);
        assert_eq!(at(flush, &["write", "tcp_sendmsg"]).own(), 1);
        let heaviest: Vec<_> = root
            .heaviest()
            .into_iter()
            .map(|(function, samples)| (&*function.name, samples))
            .filter(|(_, samples)| *samples > 0)
            .collect();
        assert_eq!(heaviest, [("poll", 1), ("tcp_sendmsg", 1)]);
    }

    #[test]
    fn truncated_stack_gets_unknown_caller_unless_all_kernel() {
        let root = fold(
            "weft-proxy \n\
\tffffffff82010000 sock_recvmsg ([kernel.kallsyms])\n\
\t          8ec904 __libc_recv (/bin/weft-proxy)\n\n\
weft-proxy \n\
\tffffffff82010000 ret_from_fork ([kernel.kallsyms])\n\n",
        );
        let recv = at(&root, &["weft-proxy", "[caller unknown]", "__libc_recv"]);
        assert_eq!(recv.samples, 1);
        assert_eq!(at(&root, &["weft-proxy", "ret_from_fork"]).own(), 1);
    }

    #[test]
    fn frames_behind_unmapped_caller_are_discarded() {
        let root = fold(
            "weft-proxy \n\
\t          84ae60 aes_gcm (/bin/weft-proxy)\n\
\t    7ffc12971100 [unknown] ([unknown])\n\
\t          4325a0 never_called_it (/bin/weft-proxy)\n\n",
        );
        let aes = at(&root, &["weft-proxy", "[caller unknown]", "aes_gcm"]);
        assert_eq!((aes.own(), root.depth()), (1, 3));
    }

    #[test]
    fn what_started_the_program_is_not_in_the_picture() {
        let root = fold(
            "weft-proxy \n\
\t          4325a0 weft_proxy::main (/bin/weft-proxy)\n\
\t          4325b0 main (/bin/weft-proxy)\n\
\t          870b3d __libc_start_call_main (/bin/weft-proxy)\n\
\t    7ffc12971100 [unknown] ([unknown])\n\n",
        );
        assert_eq!(
            at(&root, &["weft-proxy", "main", "weft_proxy::main"]).own(),
            1
        );
    }

    #[test]
    fn a_program_without_symbols_is_noticed() {
        let stripped = "weft-proxy \n\t          870b3d [unknown] (/bin/weft-proxy)\n\n";
        assert_eq!(nameless(&fold(stripped)), 1.0);
        assert_eq!(nameless(&fold(SCRIPT)), 0.0);
        assert_eq!(nameless(&fold("")), 0.0);
    }
}
