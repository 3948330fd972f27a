//! Raises the limit of files that this process may have open at one time; each connection is one.
//!
//! Container runtimes leave the soft limit at 1 024, for the sake of programs that call
//! `select`, and a process that needs more raises it as far as the hard limit.
//!
//! Claims: attack-63

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Raises the soft limit to the hard one. Where that is refused it logs a warning, and the
/// process goes on with what it has.
pub fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(
            %error,
            soft = ?current,
            hard = ?maximum,
            "the soft limit of open files (RLIMIT_NOFILE) cannot be raised to the hard one, so \
             fewer connections are served; allow prlimit64 in the container's seccomp profile"
        );
    }
}

/// Files that this process may have open at one time; `None` without a limit.
#[must_use]
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Whether this failed because the process, or the node, may open no further file.
#[must_use]
pub fn ran_out(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        // One less than there may be takes nothing from the tests beside this one.
        let lower = Some(maximum.map_or(1 << 20, |hard| hard - 1));
        let lowered = Rlimit {
            current: lower,
            maximum,
        };
        setrlimit(Resource::Nofile, lowered).unwrap();
        assert_eq!(limit(), lower);
        raise();
        assert_eq!(limit(), maximum);
        // Where nothing is to be raised, nothing changes.
        raise();
        assert_eq!(limit(), maximum);
    }

    #[test]
    fn only_a_lack_of_files_counts_as_one() {
        for errno in [Errno::MFILE, Errno::NFILE] {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            assert!(ran_out(&error), "{error}");
        }
        for other in [
            io::Error::from_raw_os_error(Errno::CONNABORTED.raw_os_error()),
            io::Error::other("no error of the kernel"),
        ] {
            assert!(!ran_out(&other), "{other}");
        }
    }
}
