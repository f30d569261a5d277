//! The sequence of the last batch that was made durable, in a small file next to that of the store.
//! The file is not synced, so it survives the end of the process but not a power failure. After a
//! power failure, an unreadable commit may never have been complete. A failing disk leaves such a
//! commit too, so knowing that the system was restarted is not enough to tell the two from damage.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::commit_witness::CommitWitness;

const FILE_NAME: &str = "anomalies.acknowledged";

/// The open file, a witness of the run of the system. If the run is not known, nothing is known
/// after the end of the process, as after a power failure.
#[derive(Debug)]
pub(super) struct Acknowledged(Option<CommitWitness>);

impl Acknowledged {
    pub(super) fn open(data_dir: &Path) -> Self {
        Self(current_boot().map(|boot| CommitWitness::open(&path(data_dir), boot)))
    }

    /// Creates one that notes nothing, for a file that is not in the place of the store's file yet.
    pub(super) fn nowhere() -> Self {
        Self(None)
    }

    pub(super) fn note(&self, sequence: u64) {
        if let Some(witness) = &self.0 {
            witness.note(sequence);
        }
    }
}

/// Returns the last sequence that was noted in this run of the system. The first sequence is 1.
pub(super) fn last(data_dir: &Path) -> Option<u64> {
    let witness = CommitWitness::at(&path(data_dir), current_boot()?);
    Some(witness.commits()).filter(|sequence| *sequence > 0)
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE_NAME)
}

/// Identifies the run of the system, which ends when it is shut down or loses power; `None` if the
/// system does not report it.
fn current_boot() -> Option<u64> {
    let id = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    Some(crc32fast::hash(&id).into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_last_sequence_is_known_unless_it_is_damaged() {
        let dir = TempDir::new().unwrap();
        assert_eq!(last(dir.path()), None);
        let acknowledged = Acknowledged::open(dir.path());
        acknowledged.note(7);
        acknowledged.note(8);
        assert_eq!(last(dir.path()), Some(8));
        let file = fs::File::options().write(true).open(path(dir.path())).unwrap();
        file.write_all_at(b"x", 3).unwrap();
        assert_eq!(last(dir.path()), None);
    }
}
