//! Reads the memory limit of this container, and its socket memory, from its control group.
//!
//! Claims: attack-39

use std::path::Path;

/// Where a container sees its control group.
pub const ROOT: &str = "/sys/fs/cgroup";
/// Files with the memory limit in bytes, of version 2 and of version 1.
const LIMIT_FILES: [&str; 2] = ["memory.max", "memory/memory.limit_in_bytes"];
/// More than a machine has is no limit: version 1 writes a number near 2^63.
const NO_LIMIT: u64 = 1 << 50;

/// The memory that this container may use, in bytes; `None` without a limit.
#[must_use]
pub fn memory_limit(root: &Path) -> Option<u64> {
    let read = |file: &&str| std::fs::read_to_string(root.join(file)).ok();
    let text = LIMIT_FILES.iter().find_map(read)?;
    let limit: u64 = text.trim().parse().ok()?;
    (limit > 0 && limit < NO_LIMIT).then_some(limit)
}

/// What the kernel holds for the sockets of this container, in bytes, where that counts
/// against its memory limit: control groups of version 2 only.
#[must_use]
pub fn socket_memory(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("memory.stat")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("sock "));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{memory_limit, socket_memory};

    #[test]
    fn memory_limit_comes_from_either_cgroup_version() {
        let dir = std::env::temp_dir().join(format!("weft-cgroup-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let path = dir.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(memory_limit(&dir), None, "no control group");
        write("memory/memory.limit_in_bytes", "134217728\n");
        assert_eq!(memory_limit(&dir), Some(134_217_728));
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(memory_limit(&dir), None);
        assert_eq!(socket_memory(&dir), None, "version 1 has none");
        write("memory.stat", "anon 8192\nsock 68157440\nshmem 0\n");
        assert_eq!(socket_memory(&dir), Some(68_157_440));
        write("memory.max", "536870912\n");
        assert_eq!(memory_limit(&dir), Some(536_870_912));
        write("memory.max", "max\n");
        assert_eq!(memory_limit(&dir), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
