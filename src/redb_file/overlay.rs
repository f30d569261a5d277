//! A redb file that is opened without being changed: the pages that redb writes when it opens and
//! repairs the file stay in memory, which are few, and are dropped.

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

use parking_lot::Mutex;
use redb::{Database, Error, StorageBackend};

use super::without_panic;

const BLOCK_BYTES: usize = 4_096;

/// The position of the header's flags, and the flag that selects the slot of the last commit:
/// <https://github.com/cberner/redb/blob/master/docs/design.md>.
const FLAGS_OFFSET: u64 = 9;
const PRIMARY_SLOT: u8 = 1;

/// The file, below the written data. It is locked, so that no other process opens it.
#[derive(Clone, Debug)]
pub(crate) struct Overlay(Arc<Layers>);

#[derive(Debug)]
struct Layers {
    file: File,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    length: u64,
    /// The number of bytes of the file that were not cut off.
    of_file: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK_BYTES]>>,
}

impl Overlay {
    /// Opens the file.
    ///
    /// # Errors
    /// Returns [`Error::DatabaseAlreadyOpen`] if another process has it open, and the errors of the
    /// disk.
    pub(crate) fn of(path: &Path) -> Result<Self, Error> {
        // Opened for writing, as redb does: some file systems do not lock a file that is open only
        // for reading.
        let opened = File::options().read(true).write(true).open(path);
        let file = opened.or_else(|_| File::open(path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(Error::DatabaseAlreadyOpen),
            Err(TryLockError::Error(fault)) => return Err(fault.into()),
            Ok(()) => {}
        }
        let length = file.metadata()?.len();
        let written = Written { length, of_file: length, blocks: BTreeMap::new() };
        Ok(Self(Arc::new(Layers { file, written: Mutex::new(written) })))
    }

    fn flags(&self) -> io::Result<u8> {
        let mut flags = [0];
        self.read(FLAGS_OFFSET, &mut flags)?;
        Ok(flags[0])
    }
}

/// Returns true if redb would use another slot than the one that the header of a file names. After
/// a process was killed, it does so without a repair if the slot of the last commit is damaged.
/// Only the header is read.
pub(crate) fn takes_other_slot(path: &Path) -> Result<bool, Error> {
    let overlay = Overlay::of(path)?;
    let before = overlay.flags()?;
    let mut builder = Database::builder();
    // With this setting, the callback is called for every file.
    builder.set_check_integrity_on_open(true).set_repair_callback(|session| session.abort());
    let opened = without_panic(|| builder.create_with_backend(overlay.clone()).map(drop));
    match opened {
        Ok(Err(redb::DatabaseError::RepairAborted)) => {
            Ok((before ^ overlay.flags()?) & PRIMARY_SLOT != 0)
        }
        // Opening the file normally reports what is wrong with it.
        _ => Ok(false),
    }
}

impl Layers {
    /// Reads the bytes of the file, and zeros after its end.
    fn read_file(&self, of_file: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(of_file.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (there, behind) = out.split_at_mut(there.min(out.len()));
        self.file.read_exact_at(there, offset)?;
        behind.fill(0);
        Ok(())
    }
}

/// Returns the numbers of the blocks that contain bytes from `offset` on.
fn blocks(offset: u64, bytes: usize) -> Range<u64> {
    let size = BLOCK_BYTES as u64;
    offset / size..(offset + bytes as u64).div_ceil(size)
}

/// Returns the part of `block` that lies in `bytes` at `offset`, as a range in the block and a
/// range in `bytes`.
fn shared(block: u64, offset: u64, bytes: usize) -> (Range<usize>, Range<usize>) {
    let begin = block * BLOCK_BYTES as u64;
    let first = offset.max(begin);
    let end = (offset + bytes as u64).min(begin + BLOCK_BYTES as u64);
    let from = |base: u64| (first - base) as usize..(end - base) as usize;
    (from(begin), from(offset))
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.written.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.0.written.lock();
        if offset + out.len() as u64 > written.length {
            // As the file itself says it.
            let text = "failed to fill whole buffer";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        self.0.read_file(written.of_file, offset, out)?;
        for (block, bytes) in written.blocks.range(blocks(offset, out.len())) {
            let (in_block, in_out) = shared(*block, offset, out.len());
            out[in_out].copy_from_slice(&bytes[in_block]);
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut written = self.0.written.lock();
        written.length = length;
        written.of_file = written.of_file.min(length);
        written.blocks.split_off(&length.div_ceil(BLOCK_BYTES as u64));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.0.written.lock();
        for block in blocks(offset, data.len()) {
            if !written.blocks.contains_key(&block) {
                let mut bytes = Box::new([0; BLOCK_BYTES]);
                let begin = block * BLOCK_BYTES as u64;
                self.0.read_file(written.of_file, begin, &mut bytes[..])?;
                written.blocks.insert(block, bytes);
            }
            if let Some(bytes) = written.blocks.get_mut(&block) {
                let (in_block, in_data) = shared(block, offset, data.len());
                bytes[in_block].copy_from_slice(&data[in_data]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_file_stays_as_it_is() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("file");
        let whole: Vec<u8> = (0..3 * BLOCK_BYTES).map(|n| n as u8).collect();
        fs::write(&path, &whole).unwrap();
        let overlay = Overlay::of(&path).unwrap();
        assert!(matches!(Overlay::of(&path), Err(Error::DatabaseAlreadyOpen)));
        let mut expected = whole.clone();
        for (offset, length) in [(0, 10), (4_090, 12), (8_191, 1), (5_000, 7_000)] {
            expected[offset..offset + length].fill(0xEE);
            overlay.write(offset as u64, &vec![0xEE; length]).unwrap();
        }
        let read = |offset: usize, length: usize| {
            let mut bytes = vec![0; length];
            overlay.read(offset as u64, &mut bytes).map(|()| bytes)
        };
        for (offset, length) in [(0, expected.len()), (4_000, 200), (12_287, 1)] {
            assert_eq!(read(offset, length).unwrap(), expected[offset..offset + length]);
        }
        assert!(read(12_287, 2).is_err(), "behind the end");
        overlay.set_len(100).unwrap();
        overlay.set_len(20_000).unwrap();
        assert_eq!(read(8_000, 12_000).unwrap(), [0; 12_000]);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}
