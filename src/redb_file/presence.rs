//! Detects that a file was deleted, moved or replaced while it is open: later processes do not find
//! what is then written to it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};

/// The file that was opened at a path.
#[derive(Clone, Debug)]
pub(crate) struct OpenedFile {
    path: PathBuf,
    identity: Identity,
}

/// The device of a file, and its number there. No other file has both while it is open.
type Identity = (u64, u64);

/// The reason why the file at the path is not the one that was opened. The texts may be shown to
/// clients.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Absence {
    #[error(
        "{} is missing: it was deleted or moved while it was in use. Put it back, or restart the \
         service to start without it",
        path.display()
    )]
    Gone { path: PathBuf },
    #[error(
        "{} is not the file in use, which was deleted, moved or replaced. Put the original back, \
         or restart the service to use this one",
        path.display()
    )]
    Replaced { path: PathBuf },
    #[error("{} can't be checked: {source}", path.display())]
    Unknown { path: PathBuf, source: io::Error },
}

impl OpenedFile {
    /// Identifies the file at `path`, which has just been opened.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity_at(path)? })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes that the file was renamed to `path`.
    pub(crate) fn note_renamed(&mut self, path: &Path) {
        path.clone_into(&mut self.path);
    }

    /// Returns the text of the fault that the disk has not answered within `timeout`. Clients may
    /// see it.
    pub(crate) fn unanswered(&self, timeout: Duration) -> String {
        format!(
            "the disk of {} has not responded for {} ms (`store.write_timeout_ms`)",
            self.path.display(),
            timeout.as_millis()
        )
    }

    /// Checks that the path leads to the file that was opened, which then also has a link.
    pub(crate) fn verify(&self) -> Result<(), Absence> {
        let path = || self.path.clone();
        match identity_at(&self.path) {
            Ok(found) if found == self.identity => Ok(()),
            Ok(_) => Err(Absence::Replaced { path: path() }),
            Err(fault) if is_missing(&fault) => Err(Absence::Gone { path: path() }),
            Err(source) => Err(Absence::Unknown { path: path(), source }),
        }
    }
}

/// Returns the identity of the file at `path`.
///
/// It asks for nothing else, because each commit does this: since Linux 6.13, the next write after
/// a question for the times of a file gives it a new time, which on a file system without a journal
/// takes a quarter of the commit. Where `statx` is not permitted, the question is the usual one.
fn identity_at(path: &Path) -> io::Result<Identity> {
    match statx(CWD, path, AtFlags::empty(), StatxFlags::INO) {
        Ok(found) => Ok((makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino)),
        Err(_) => fs::metadata(path).map(|found| (found.dev(), found.ino())),
    }
}

fn is_missing(fault: &io::Error) -> bool {
    matches!(fault.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use tempfile::TempDir;

    use super::*;

    fn opened() -> (TempDir, File, OpenedFile) {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        let path = dir.path().join("data/file");
        let file = File::create(&path).unwrap();
        let opened = OpenedFile::at(&path).unwrap();
        (dir, file, opened)
    }

    #[test]
    fn a_file_is_present_at_its_path_only() {
        let (dir, _file, opened) = opened();
        assert!(opened.verify().is_ok());
        fs::rename(dir.path().join("data"), dir.path().join("elsewhere")).unwrap();
        assert!(matches!(opened.verify(), Err(Absence::Gone { .. })), "its folder is moved");
        fs::rename(dir.path().join("elsewhere"), dir.path().join("data")).unwrap();
        assert!(opened.verify().is_ok(), "its folder is moved back");
        fs::remove_file(opened.path()).unwrap();
        assert!(matches!(opened.verify(), Err(Absence::Gone { .. })), "it is deleted");
    }

    #[test]
    fn a_file_has_one_identity_however_it_is_asked_for() {
        let (_dir, _file, opened) = opened();
        let found = fs::metadata(opened.path()).unwrap();
        assert_eq!(opened.identity, (found.dev(), found.ino()));
    }

    #[test]
    fn a_copy_is_another_file() {
        let (dir, _file, opened) = opened();
        let copy = dir.path().join("copy");
        fs::copy(opened.path(), &copy).unwrap();
        fs::rename(&copy, opened.path()).unwrap();
        let absence = opened.verify().unwrap_err();
        assert!(matches!(absence, Absence::Replaced { .. }));
        assert!(absence.to_string().contains(&opened.path().display().to_string()));
    }
}
