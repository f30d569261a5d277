//! A small file beside a redb file that knows its last commit, by a number that grows.
//!
//! After a process was killed, redb takes a last commit with a damaged page for one that was never
//! complete, and opens the file as it was before it. If that commit was acknowledged, the file
//! lacks it without a word. Two-phase commits would tell the two apart, at the price of a second
//! fsync for each.
//!
//! The witness is written after the commit and not synced: it outlives the process, and after a
//! power cut it may be behind, but never ahead of the file. A witness of another file, or none,
//! says nothing.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

/// The mark, and as little-endian numbers the id, the commit, and a CRC-32 of both.
const MARK: [u8; 8] = *b"witness1";
const LENGTH: usize = MARK.len() + 8 + 8 + 4;

/// The witness of one redb file.
#[derive(Debug)]
pub(crate) struct CommitWitness {
    /// Absent where it can't be written.
    file: Option<File>,
    /// The id of the redb file, or of whatever else it is a witness of.
    id: u64,
}

impl CommitWitness {
    /// Opens the witness at `path` with this id, and creates it if it is missing.
    pub(crate) fn open(path: &Path, id: u64) -> Self {
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(path);
        if let Err(error) = &opened {
            tracing::warn!(%error, "{} can't be written: {error}", path.display());
        }
        Self { file: opened.ok(), id }
    }

    /// The witness at `path` with this id, as it is: one that is missing says nothing.
    pub(crate) fn at(path: &Path, id: u64) -> Self {
        Self { file: File::open(path).ok(), id }
    }

    /// Returns the number of the last commit that it knows of; 0 if it knows none.
    pub(crate) fn commits(&self) -> u64 {
        let read = || -> io::Result<[u8; LENGTH]> {
            let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
            let mut bytes = [0; LENGTH];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(bytes)
        };
        let Ok(bytes) = read() else { return 0 };
        let commits =
            u64::from_le_bytes(std::array::from_fn(|index| bytes[MARK.len() + 8 + index]));
        if bytes == statement(self.id, commits) { commits } else { 0 }
    }

    /// Notes the number of the last commit. A disk that is full is no fault of the commit: the
    /// witness stays behind.
    pub(crate) fn note(&self, commits: u64) {
        if let Some(file) = &self.file {
            let _ = file.write_all_at(&statement(self.id, commits), 0);
        }
    }
}

fn statement(id: u64, commits: u64) -> [u8; LENGTH] {
    let numbers = [id.to_le_bytes(), commits.to_le_bytes()].concat();
    let checksum = crc32fast::hash(&numbers).to_le_bytes();
    let mut bytes = [0; LENGTH];
    let parts = MARK.iter().chain(&numbers).chain(&checksum);
    bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = *part);
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_witness_knows_the_commits_of_its_own_file() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("spool.witness");
        let witness = CommitWitness::open(&path, 7);
        assert_eq!(witness.commits(), 0);
        witness.note(1);
        witness.note(300);
        assert_eq!(witness.commits(), 300);
        assert_eq!(CommitWitness::open(&path, 7).commits(), 300);
        assert_eq!(CommitWitness::open(&path, 8).commits(), 0, "of another file");
    }

    #[test]
    fn a_damaged_witness_says_nothing() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("spool.witness");
        CommitWitness::open(&path, 7).note(300);
        let whole = fs::read(&path).unwrap();
        for index in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[index] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert_eq!(CommitWitness::open(&path, 7).commits(), 0, "byte {index}");
            fs::write(&path, &whole[..index]).unwrap();
            assert_eq!(CommitWitness::open(&path, 7).commits(), 0, "cut to {index}");
        }
        let dir_in_its_place = dir.path().join("dir");
        fs::create_dir(&dir_in_its_place).unwrap();
        let witness = CommitWitness::open(&dir_in_its_place, 7);
        witness.note(1);
        assert_eq!(witness.commits(), 0);
    }
}
