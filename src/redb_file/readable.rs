//! Reads a damaged file as far as its disk returns it. A block that the disk can't read is read as
//! zeros, and counted: the other blocks can be saved.

use std::{collections::BTreeSet, fs::File, io, os::unix::fs::FileExt as _, path::Path};

use parking_lot::Mutex;

use super::is_unreadable;

/// The unit in which a disk loses data.
const BLOCK_BYTES: u64 = 4_096;

/// A file that is read despite faults of its disk.
#[derive(Debug)]
pub(crate) struct ReadableFile {
    file: File,
    /// The numbers of the blocks that can't be read.
    unreadable: Mutex<BTreeSet<u64>>,
}

impl ReadableFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, unreadable: Mutex::default() })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Returns the number of blocks of 4 KiB that were read as zeros.
    pub(crate) fn unreadable_blocks(&self) -> usize {
        self.unreadable.lock().len()
    }

    /// Fills `bytes` from `offset` on, up to the end of the file. Returns the number of bytes read.
    pub(crate) fn read_at_most(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        match fill(&self.file, bytes, offset) {
            Err(fault) if is_unreadable(&fault) => self.read_by_block(bytes, offset),
            read => read,
        }
    }

    fn read_by_block(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            let position = offset + filled as u64;
            let left_of_block = (BLOCK_BYTES - position % BLOCK_BYTES) as usize;
            let end = bytes.len().min(filled + left_of_block);
            let part = &mut bytes[filled..end];
            match fill(&self.file, part, position) {
                Ok(read) if read < part.len() => return Ok(filled + read),
                Ok(_) => {}
                Err(fault) if is_unreadable(&fault) => {
                    part.fill(0);
                    self.unreadable.lock().insert(position / BLOCK_BYTES);
                }
                Err(fault) => return Err(fault),
            }
            filled = end;
        }
        Ok(filled)
    }
}

fn fill(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_file_is_read_as_far_as_it_goes() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, [7; 5_000]).unwrap();
        let file = ReadableFile::open(&path).unwrap();
        let mut bytes = [0; 6_000];
        assert_eq!(file.read_at_most(&mut bytes, 1_000).unwrap(), 4_000);
        assert_eq!(file.read_by_block(&mut bytes, 1_000).unwrap(), 4_000);
        assert_eq!(bytes[..4_000], [7; 4_000]);
        assert_eq!(file.unreadable_blocks(), 0);
    }

    /// The first pages of a process can't be read: EIO, as from a bad sector.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_can_not_be_read_is_zeros_and_counted_once() {
        let file = ReadableFile::open(Path::new("/proc/self/mem")).unwrap();
        let mut bytes = vec![7; 10_000];
        for _ in 0..2 {
            assert_eq!(file.read_at_most(&mut bytes, 4_000).unwrap(), 10_000);
            assert_eq!(bytes, [0; 10_000]);
        }
        assert_eq!(file.unreadable_blocks(), 4, "from 4,000 to 14,000");
    }
}
