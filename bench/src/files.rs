//! Files that the programs of one run share.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{grpc, loads, namespaces};

/// A folder with what processes of the run read and write; gone afterwards.
pub(crate) struct Shared(pub(crate) PathBuf);

impl Shared {
    pub(crate) fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!(
            "{}{}-files",
            namespaces::PREFIX,
            std::process::id()
        ));
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        let shared = Self(folder);
        shared.write("10k", &[b'x'; loads::BODY_10K as usize])?;
        shared.write("100", &[b'x'; loads::BODY as usize])?;
        shared.write("grpc", &grpc::EMPTY_MESSAGE)?;
        shared.write("grpc-100", &grpc::message(loads::BODY))?;
        shared.write("grpc-10k", &grpc::message(loads::BODY_10K))?;
        let stream = grpc::message(grpc::STREAMED_LENGTH).repeat(grpc::STREAMED);
        shared.write("grpc-stream", &stream)?;
        // A hole, which takes no place on the disk.
        let large = fs::File::create(shared.0.join("large"))?;
        large.set_len(loads::LARGE as u64)?;
        Ok(shared)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        Ok(fs::write(Path::new(&self.0).join(name), content)?)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
