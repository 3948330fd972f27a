//! Writes a compressed tar archive. The format is 512 bytes of head before each file, which needs
//! no library.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::failure::Failure;

/// Bytes of a head, and what files are filled up to.
const BLOCK: usize = 512;
/// The longest name that fits into a head of the oldest kind.
const LONGEST_NAME: usize = 99;

/// Files, one after the other.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let name = format!("weft-diagnostics/{name}");
        if name.len() > LONGEST_NAME {
            return Err(Failure::unknown(format!(
                "{name} is too long a name for an archive"
            )));
        }
        self.bytes.extend_from_slice(&head(&name, content.len()));
        self.bytes.extend_from_slice(content);
        let rest = content.len().next_multiple_of(BLOCK) - content.len();
        self.bytes.resize(self.bytes.len() + rest, 0);
        Ok(())
    }

    pub(super) fn packed(mut self) -> Result<Vec<u8>, Failure> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        let packed = packer.write_all(&self.bytes).and_then(|()| packer.finish());
        packed.map_err(|error| Failure::unknown(format!("the bundle cannot be packed: {error}")))
    }
}

fn head(name: &str, size: usize) -> [u8; BLOCK] {
    let mut head = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    // The sum is made as if blanks stood in its place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    head
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn archive_is_one_that_tar_unpacks() {
        let mut archive = Archive::default();
        archive.add("a.txt", b"one").unwrap();
        archive.add("logs/b.log", &[b'x'; 1_300]).unwrap();
        assert!(archive.add(&"n".repeat(100), b"").is_err());
        let packed = archive.packed().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut tar = Command::new("tar")
            .args(["xzf", "-", "-C"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&packed).unwrap();
        assert!(tar.wait().unwrap().success());
        let read =
            |name: &str| std::fs::read(folder.path().join("weft-diagnostics").join(name)).unwrap();
        assert_eq!(read("a.txt"), b"one");
        assert_eq!(read("logs/b.log").len(), 1_300);
    }
}
