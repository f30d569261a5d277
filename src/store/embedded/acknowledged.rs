//! The sequence of the last batch that was made durable, in a small file beside the store's. It is
//! not synced, so it survives the process and not a power failure: after which a commit that can't
//! be read may be one that was never complete. A disk that fails leaves such a commit too, so the
//! run of the system alone does not tell them from damage.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::Path,
};

const FILE_NAME: &str = "anomalies.acknowledged";

/// Sequence, run of the system, and checksum of both, little-endian.
const BYTES: usize = 16;

/// The open file. Where it can't be written, nothing is known after the end of the process, as
/// after a power failure.
#[derive(Debug)]
pub(super) struct Acknowledged(Option<(File, u32)>);

impl Acknowledged {
    pub(super) fn open(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE_NAME);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        Self(file.ok().zip(current_boot()))
    }

    /// Nothing is noted of a file that is not the store's yet.
    pub(super) fn nowhere() -> Self {
        Self(None)
    }

    pub(super) fn note(&self, sequence: u64) {
        if let Some((file, boot)) = &self.0 {
            // Less is known if that fails.
            let _ = file.write_all_at(&encode(sequence, *boot), 0);
        }
    }
}

/// Returns the last sequence that was noted in this run of the system.
pub(super) fn last(data_dir: &Path) -> Option<u64> {
    let bytes = fs::read(data_dir.join(FILE_NAME)).ok()?;
    let sequence = u64::from_le_bytes(*bytes.first_chunk()?);
    (bytes == encode(sequence, current_boot()?)).then_some(sequence)
}

fn encode(sequence: u64, boot: u32) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&sequence.to_le_bytes());
    bytes[8..12].copy_from_slice(&boot.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..12]);
    bytes[12..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Identifies the run of the system, which ends when it is shut down or loses power. `None` where
/// the system does not tell.
fn current_boot() -> Option<u32> {
    let id = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    Some(crc32fast::hash(&id))
}

#[cfg(test)]
mod tests {
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
        acknowledged.0.unwrap().0.write_all_at(b"x", 3).unwrap();
        assert_eq!(last(dir.path()), None);
    }
}
