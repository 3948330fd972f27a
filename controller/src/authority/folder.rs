//! The folder of an issuer, as kubelets and CSI drivers mount it: read within bounds.
//!
//! A kubelet writes the files into another folder and renames link `..data` to it. All of them are
//! read behind one look at that link, so they are of one writing. A folder without it may be half
//! written, so a defect counts once it has been there for a while.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Link of a kubelet to what it wrote last.
const NEWEST: &str = "..data";
/// Bytes of a file. A Secret holds four times as many.
const MAX_FILE: u64 = 256 * 1024;
/// Longest time of a look. A volume over the network may hang for ever.
const LONGEST: Duration = Duration::from_secs(5);

/// What is read.
pub(super) struct Files {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
    /// Empty where they are elsewhere.
    pub(super) roots: Vec<u8>,
}

// One of them is a key.
opaque_debug!(Files);

/// Why a folder cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadFolder {
    #[error(
        "it does not exist: mount a volume there (controller.extraVolumes, .extraVolumeMounts), or correct \
         identity.issuer.directory"
    )]
    Missing,
    #[error(
        "it has no {0}: write tls.crt, tls.key and ca.crt there, or name the roots in identity.issuer.roots"
    )]
    NoFile(&'static str),
    #[error("{0} is a link that leads out of it: mount the file itself")]
    LeadsOut(&'static str),
    #[error("{0} is no file: mount a volume of files")]
    NoRegularFile(&'static str),
    #[error("{0} is greater than {MAX_FILE} bytes: leave out certificates of others")]
    TooLarge(&'static str),
    #[error(
        "{0} cannot be read ({1}): let user 65532 read it (fsGroup, or the mode of the volume)"
    )]
    Unreadable(&'static str, io::Error),
    #[error("its volume does not answer: see what serves it")]
    Hangs,
}

/// Reads folders, one at a time: a look that hangs keeps its thread.
#[derive(Debug, Default)]
pub(super) struct FolderReader {
    is_reading: Arc<AtomicBool>,
}

impl FolderReader {
    /// The files of a folder, `ca.crt` among them if `with_roots`.
    ///
    /// # Errors
    /// The first reason why one cannot be read.
    pub(super) async fn read(
        &self,
        directory: &Path,
        with_roots: bool,
    ) -> Result<Files, BadFolder> {
        if self.is_reading.swap(true, Relaxed) {
            return Err(BadFolder::Hangs);
        }
        let (directory, is_reading) = (directory.to_owned(), Arc::clone(&self.is_reading));
        let reading = spawn_blocking(move || {
            let files = files(&directory, with_roots);
            is_reading.store(false, Relaxed);
            files
        });
        match timeout(LONGEST, reading).await {
            Ok(Ok(files)) => files,
            Ok(Err(_)) | Err(_) => Err(BadFolder::Hangs),
        }
    }
}

fn files(directory: &Path, with_roots: bool) -> Result<Files, BadFolder> {
    let within = real(directory, "the folder")?.ok_or(BadFolder::Missing)?;
    let newest = real(&within.join(NEWEST), NEWEST)?;
    let folder = newest.as_deref().unwrap_or(&within);
    if !folder.starts_with(&within) {
        return Err(BadFolder::LeadsOut(NEWEST));
    }
    let file = |name| file(folder, &within, name);
    Ok(Files {
        certificate: file("tls.crt")?,
        key: file("tls.key")?,
        roots: match with_roots {
            true => file("ca.crt")?,
            false => Vec::new(),
        },
    })
}

fn file(folder: &Path, within: &Path, name: &'static str) -> Result<Vec<u8>, BadFolder> {
    let unreadable = |error| BadFolder::Unreadable(name, error);
    let path = real(&folder.join(name), name)?.ok_or(BadFolder::NoFile(name))?;
    if !path.starts_with(within) {
        return Err(BadFolder::LeadsOut(name));
    }
    // A pipe would be opened for ever.
    let metadata = fs::metadata(&path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(BadFolder::NoRegularFile(name));
    }
    if metadata.len() > MAX_FILE {
        return Err(BadFolder::TooLarge(name));
    }
    let mut text = Vec::new();
    let file = File::open(&path).map_err(unreadable)?;
    // One that has grown meanwhile is cut, and read again.
    file.take(MAX_FILE)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    Ok(text)
}

/// Where a path leads, without links. None: there is nothing.
fn real(path: &Path, name: &'static str) -> Result<Option<PathBuf>, BadFolder> {
    match path.canonicalize() {
        Ok(path) => Ok(Some(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BadFolder::Unreadable(name, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(folder.path().join(name), name).unwrap();
        }
        folder
    }

    #[test]
    fn files_are_read_behind_the_link_of_kubelets() {
        let folder = folder_with(&[]);
        let path = folder.path();
        for writing in ["..1", "..2"] {
            fs::create_dir(path.join(writing)).unwrap();
            for name in ["tls.crt", "tls.key", "ca.crt"] {
                let text = format!("{name} of {writing}");
                fs::write(path.join(writing).join(name), text).unwrap();
            }
        }
        symlink("..1", path.join("..data")).unwrap();
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(Path::new("..data").join(name), path.join(name)).unwrap();
        }
        assert_eq!(files(path, true).unwrap().key, b"tls.key of ..1");
        symlink("..2", path.join("..data_tmp")).unwrap();
        fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
        let read = files(path, false).unwrap();
        assert_eq!(read.certificate, b"tls.crt of ..2");
        assert!(read.roots.is_empty(), "they are elsewhere");
    }

    #[test]
    fn folder_that_cannot_be_read_says_why() {
        let why = |path: &Path| files(path, true).err().unwrap().to_string();
        let whole = folder_with(&["tls.crt", "tls.key", "ca.crt"]);
        let path = whole.path();
        assert!(files(path, true).is_ok());
        assert!(why(&path.join("none")).contains("does not exist"));

        let half = folder_with(&["tls.crt", "tls.key"]);
        assert!(why(half.path()).contains("has no ca.crt"));
        assert!(files(half.path(), false).is_ok(), "its roots are elsewhere");

        fs::remove_file(path.join("tls.key")).unwrap();
        symlink("/etc/hostname", path.join("tls.key")).unwrap();
        assert!(why(path).contains("tls.key is a link that leads out"));
        fs::remove_file(path.join("tls.key")).unwrap();
        fs::create_dir(path.join("tls.key")).unwrap();
        assert!(why(path).contains("tls.key is no file"));
        fs::remove_dir(path.join("tls.key")).unwrap();
        let huge = File::create(path.join("tls.key")).unwrap();
        huge.set_len(MAX_FILE + 1).unwrap();
        assert!(why(path).contains("tls.key is greater than"));
        fs::remove_file(path.join("tls.key")).unwrap();
        symlink("tls.key", path.join("tls.key")).unwrap();
        assert!(why(path).contains("tls.key cannot be read"));
        symlink("/etc", path.join("..data")).unwrap();
        assert!(why(path).contains("..data is a link that leads out"));
    }
}
