//! What the control group of this container allows.

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
