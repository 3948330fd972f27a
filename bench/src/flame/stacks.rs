//! What `perf script` says, folded into a tree: who called whom, and in how
//! many samples.

use std::collections::BTreeMap;

/// Stands for the callers of a function that keeps no frame pointer, as those of
/// the C library and hand-written assembly: the way back from there leads nowhere.
const NO_CALLER: &str = "[caller unknown]";
/// Where programs and threads begin: what started these says nothing, and a stack
/// without them is not whole.
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
    pub(crate) kernel: bool,
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

    /// Functions by their own samples, the heaviest first.
    pub(crate) fn heaviest(&self) -> Vec<(&Function, u64)> {
        let mut own = BTreeMap::new();
        self.add_own(&mut own);
        let mut own: Vec<_> = own.into_iter().collect();
        // Sorting keeps the order of names among equals.
        own.sort_by_key(|(_, samples)| std::cmp::Reverse(*samples));
        own
    }

    fn add_own<'a>(&'a self, own: &mut BTreeMap<&'a Function, u64>) {
        for (function, node) in &self.calls {
            *own.entry(function).or_default() += node.own();
            node.add_own(own);
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

/// Reads what `perf script -F comm,ip,sym,dso` prints: for each sample a line
/// with the name of the thread, then, indented, the functions from the innermost
/// to the outermost, then an empty line. Threads are the lowest functions of the
/// tree.
pub(crate) fn fold(script: &str) -> Node {
    let mut root = Node::default();
    for sample in script.split("\n\n") {
        let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
        let Some(thread) = lines.next().filter(|line| !starts_blank(line)) else {
            continue;
        };
        let mut stack: Vec<Function> = Vec::new();
        let mut complete = false;
        for frame in lines.filter_map(Frame::read) {
            // The innermost one is where the processor was; callers were read
            // from memory and may be anything.
            if frame.in_no_file && !stack.is_empty() {
                break;
            }
            complete = OUTERMOST.contains(&&*frame.function.name);
            stack.push(frame.function);
            if complete {
                break;
            }
        }
        // Where no user's function is, the kernel works on its own account.
        if !complete && stack.iter().any(|function| !function.kernel) {
            stack.push(Function {
                name: NO_CALLER.to_owned(),
                kernel: false,
            });
        }
        let thread = Function {
            name: thread.trim().to_owned(),
            kernel: false,
        };
        root.add(std::iter::once(thread).chain(stack.into_iter().rev()));
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
            .filter(|(function, _)| !function.kernel && wanted(function))
            .map(|(_, samples)| samples)
            .sum()
    };
    let all = own(&|_| true);
    if all == 0 {
        return 0.0;
    }
    own(&|function| function.name == UNKNOWN) as f64 / all as f64
}

struct Frame {
    function: Function,
    in_no_file: bool,
}

impl Frame {
    /// `  7f00 name of the function (/the/file)`
    fn read(line: &str) -> Option<Self> {
        let (address, rest) = line.trim().split_once(' ')?;
        let (name, file) = rest.rsplit_once(" (")?;
        Some(Self {
            function: Function {
                name: name.to_owned(),
                // The upper half of the addresses is the kernel's.
                kernel: u64::from_str_radix(address, 16).ok()? >> 63 == 1,
            },
            in_no_file: file == "[unknown])",
        })
    }
}

fn starts_blank(line: &str) -> bool {
    line.starts_with(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::{Function, Node, fold, nameless};

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
    fn equal_callers_are_one_function_with_the_samples_of_all() {
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
    fn heaviest_counts_a_function_only_where_it_was_itself_running() {
        let root = fold(SCRIPT);
        let heaviest: Vec<_> = root
            .heaviest()
            .into_iter()
            .map(|(Function { name, kernel }, samples)| (&**name, *kernel, samples))
            .collect();
        assert_eq!(heaviest[0], ("tcp_sendmsg", true, 2));
        assert_eq!(heaviest[1], ("<a::B<C> as d::E>::poll", false, 1));
        assert_eq!(heaviest[2], ("compile", false, 1));
        assert_eq!(heaviest[3].2, 0, "writev only called");
    }

    #[test]
    fn a_stack_that_ends_early_stands_on_an_unknown_caller_unless_it_is_all_kernel() {
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
    fn what_lies_behind_a_caller_in_no_file_is_not_believed() {
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
