//! The newest rows of the journal, in the file `anomalies.journal` beside redb's. A commit of redb
//! writes eight pages; a row here is one write and one fdatasync, into blocks that are there
//! already, so that neither the length of the file nor its place on the disk changes.
//!
//! **Format.** The file always has [`FILE_BYTES`], in blocks of 4 KiB. The first block has a mark,
//! the id of the file (little-endian) and a CRC-32 of both; redb's file has the id too, while the
//! journal's file is in use. Each row begins on a block of its own, in the frame that it has in
//! redb (`row.rs`): version, mark, kind, length, CRC-32, and in the payload its sequence. Sequences
//! have no gaps.
//!
//! **Use.** When the file is full, its rows go to redb's journal in one commit, and the next row
//! begins at the second block again. So the file has the rows that redb has not got, in their order
//! from the second block on, and behind them older ones or zeros. A start and a clean end move the
//! rows too; a clean end removes the file, so that redb's file is complete by itself.
//!
//! **Reading.** The intact rows with a sequence after redb's last one must follow it without a gap.
//! Each failure leaves the following:
//!
//! - The process is killed: every row that was written.
//! - The system loses power: the row that was being written may be torn. It is not intact, and
//!   it was not acknowledged. No other row shares a block with it, so none is written again.
//! - A row is damaged that others follow: a gap, which is refused.
//! - The last row is damaged: after a kill `acknowledged.rs` shows that it was there, and the
//!   start is refused. After a loss of power it looks like a torn one.
//! - The file is cut, emptied, missing, or that of another redb file: its length, mark or id says
//!   so, and the start is refused.
//! - The commit that moves rows to redb is torn: redb goes back before it, and they are still here.
//! - redb's file is older, as a backup: it has no id or another one, or there is a gap.
//! - The disk is full: all blocks were written when the file was created, so a row still fits.
//!
//! Libraries for such logs were rejected: okaywal is not maintained, and wal-db and walogs cut off
//! a damaged last row without an error. `recover` finds the rows by the frame that they have in
//! redb too.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::{
    error::{FileError, JournalFault, RowError},
    row::{HEADER_BYTES, Header, Kind, sequence_of_payload},
};
use crate::redb_file::{Absence, OpenedFile, is_unreadable, sync_folder};

/// Name of the file in the data directory.
pub(super) const FILE_NAME: &str = "anomalies.journal";
/// The name of a new file until it is complete.
const NEW_FILE_NAME: &str = "anomalies.journal-new";

/// The unit that a disk writes as a whole or not at all.
const BLOCK_BYTES: usize = 4_096;
/// Moving that many bytes takes redb some milliseconds, for which one batch waits.
const FILE_BYTES: usize = 512 * BLOCK_BYTES;

const MARK: [u8; 8] = *b"\xACjournal";
const ID_END: usize = MARK.len() + 8;

/// A row by its sequence, with its frame.
pub(super) type FramedRow = (u64, Vec<u8>);

/// The file, open for writing.
#[derive(Debug)]
pub(super) struct JournalFile {
    file: File,
    opened: OpenedFile,
    /// Where the next row begins.
    next_block: usize,
}

impl JournalFile {
    /// Creates the file, in place of one that may be there. It has its name once it is complete.
    pub(super) fn create(data_dir: &Path, id: u64) -> io::Result<Self> {
        let new = data_dir.join(NEW_FILE_NAME);
        let created = write_new(&new, id).and_then(|()| fs::rename(&new, path(data_dir)));
        if let Err(fault) = created {
            // A full disk is not to be full of it.
            let _ = fs::remove_file(&new);
            return Err(naming_file(fault));
        }
        sync_folder(&new)?;
        Self::open(data_dir)
    }

    /// Opens the file, which must be there. It has no room before [`JournalFile::restart`], because
    /// it may have rows that redb has not got.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let path = path(data_dir);
        let file = File::options().write(true).open(&path)?;
        Ok(Self { file, opened: OpenedFile::at(&path)?, next_block: FILE_BYTES / BLOCK_BYTES })
    }

    /// Lets the next row begin at the second block, because redb has all rows.
    pub(super) fn restart(&mut self) {
        self.next_block = 1;
    }

    pub(super) fn has_room_for(&self, row: &[u8]) -> bool {
        self.next_block * BLOCK_BYTES + row.len() <= FILE_BYTES
    }

    /// Writes a row, for which there must be room. It is durable when this returns.
    pub(super) fn append(&mut self, row: &[u8]) -> io::Result<()> {
        self.file.write_all_at(row, (self.next_block * BLOCK_BYTES) as u64)?;
        self.file.sync_data()?;
        self.next_block += row.len().div_ceil(BLOCK_BYTES);
        Ok(())
    }

    /// Checks that the file is at its path.
    pub(super) fn verify(&self) -> Result<(), Absence> {
        self.opened.verify()
    }

    /// Removes the file, whose rows redb has. One that stays is noticed at the next start.
    pub(super) fn remove(self) {
        let _ = fs::remove_file(self.opened.path());
    }
}

/// The path of the file.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE_NAME)
}

/// Returns the rows after the sequence `last`, in order, of the file with this id. Changes nothing.
pub(super) fn rows_after(data_dir: &Path, id: u64, last: u64) -> Result<Vec<FramedRow>, FileError> {
    match read(data_dir)? {
        Some((bytes, found)) if found == id => following(&bytes, last),
        Some(_) => Err(JournalFault::Foreign.into()),
        None => Err(JournalFault::Missing.into()),
    }
}

/// Returns the sequence of the last row that follows `last` in the file, or `last` if none does.
pub(super) fn last_after(data_dir: &Path, last: u64) -> Result<u64, FileError> {
    let Some((bytes, _)) = read(data_dir)? else { return Ok(last) };
    Ok(following(&bytes, last)?.last().map_or(last, |(sequence, _)| *sequence))
}

/// Gives a file that does not belong to redb's file another name, because redb's file may be the
/// wrong one. Returns that name. A file without rows after `last`, redb's, is removed.
pub(super) fn set_aside(data_dir: &Path, last: u64) -> io::Result<Option<PathBuf>> {
    let path = path(data_dir);
    let suffix = match read(data_dir) {
        Ok(None) => return Ok(None),
        Ok(Some((bytes, id))) => {
            if places(&bytes).is_ok_and(|mut rows| rows.split_off(&(last + 1)).is_empty()) {
                return fs::remove_file(path).map(|()| None);
            }
            format!("{id:016x}")
        }
        Err(_) => "damaged".to_owned(),
    };
    let aside = data_dir.join(format!("{FILE_NAME}-{suffix}"));
    fs::rename(&path, &aside)?;
    sync_folder(&path)?;
    Ok(Some(aside))
}

/// Adds the name of the file to an error, except for that of a bad sector, which is damage.
fn naming_file(fault: io::Error) -> io::Error {
    if is_unreadable(&fault) {
        return fault;
    }
    io::Error::new(fault.kind(), format!("{FILE_NAME}: {fault}"))
}

/// The places of the intact rows in a file, by their sequences.
type Places = BTreeMap<u64, Range<usize>>;

/// Reads the file; `None` if it is missing.
fn read(data_dir: &Path) -> Result<Option<(Vec<u8>, u64)>, FileError> {
    let bytes = match fs::read(path(data_dir)) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(naming_file).map_err(redb::Error::from)?,
    };
    match id_of(&bytes) {
        Some(id) if bytes.len() == FILE_BYTES => Ok(Some((bytes, id))),
        _ => Err(JournalFault::Torn.into()),
    }
}

fn places(bytes: &[u8]) -> Result<Places, FileError> {
    let mut rows = Places::new();
    let mut begin = BLOCK_BYTES;
    while begin < bytes.len() {
        let mut end = begin + 1;
        if let Some((sequence, length)) = row_at(&bytes[begin..])? {
            end = begin + length;
            rows.insert(sequence, begin..end);
        }
        begin = end.next_multiple_of(BLOCK_BYTES);
    }
    Ok(rows)
}

/// Returns the rows after the sequence `last`, in order.
fn following(bytes: &[u8], last: u64) -> Result<Vec<FramedRow>, FileError> {
    let rows = places(bytes)?.split_off(&(last + 1));
    let mut places = (last + 1..).zip(rows.keys());
    if let Some((missing, _)) = places.find(|(expected, found)| expected != *found) {
        return Err(JournalFault::Gap { missing }.into());
    }
    let end = rows.last_key_value().map_or(BLOCK_BYTES, |(_, row)| row.end);
    let behind = bytes.get(end.next_multiple_of(BLOCK_BYTES)..).unwrap_or_default();
    if Header::read(behind).is_ok() && row_at(behind)?.is_none() {
        tracing::warn!(
            "the last row of {FILE_NAME} is incomplete, as after a power failure. It is left out; \
             there is no record that it was acknowledged"
        );
    }
    Ok(rows.into_iter().map(|(sequence, row)| (sequence, bytes[row].to_vec())).collect())
}

/// Returns the sequence and the length of the row at the beginning of `bytes`, if there is an
/// intact one.
fn row_at(bytes: &[u8]) -> Result<Option<(u64, usize)>, RowError> {
    let Ok(header) = Header::read(bytes) else { return Ok(None) };
    let end = HEADER_BYTES + header.payload_bytes;
    let Some(payload) = bytes.get(HEADER_BYTES..end) else { return Ok(None) };
    match header.verify(payload) {
        Err(newer @ RowError::Newer { .. }) => Err(newer),
        Ok(()) if header.kind == Kind::Journal => Ok(Some((sequence_of_payload(payload)?, end))),
        _ => Ok(None),
    }
}

fn write_new(path: &Path, id: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut blocks = vec![0; FILE_BYTES];
    let head = header(id);
    blocks[..head.len()].copy_from_slice(&head);
    // Not only reserved: the first write to a reserved block changes where the file is on the disk.
    file.write_all(&blocks)?;
    file.sync_all()
}

fn header(id: u64) -> Vec<u8> {
    let head = [MARK, id.to_le_bytes()].concat();
    let checksum = crc32fast::hash(&head).to_le_bytes();
    [head.as_slice(), checksum.as_slice()].concat()
}

/// Returns the id in the header, if that is intact.
fn id_of(bytes: &[u8]) -> Option<u64> {
    let id = bytes.get(MARK.len()..ID_END)?.try_into().ok().map(u64::from_le_bytes)?;
    bytes.starts_with(&header(id)).then_some(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::store::embedded::row::encode;

    const ID: u64 = 7;

    fn row(sequence: u64, bytes: usize) -> FramedRow {
        (sequence, encode(Kind::Journal, sequence, &"x".repeat(bytes)).unwrap())
    }

    /// A file to whose end rows of these lengths were written, from sequence 1 on.
    fn file_with(lengths: &[usize]) -> (TempDir, Vec<FramedRow>) {
        let dir = TempDir::new().unwrap();
        let mut file = JournalFile::create(dir.path(), ID).unwrap();
        file.restart();
        let rows: Vec<_> =
            (1..).zip(lengths).map(|(sequence, bytes)| row(sequence, *bytes)).collect();
        for (_, row) in &rows {
            assert!(file.has_room_for(row));
            file.append(row).unwrap();
        }
        (dir, rows)
    }

    fn fault(dir: &TempDir) -> JournalFault {
        match rows_after(dir.path(), ID, 0) {
            Err(FileError::Journal(fault)) => fault,
            other => panic!("no fault of the journal: {other:?}"),
        }
    }

    /// The last row is longer than a block, as the one before it.
    const LENGTHS: [usize; 4] = [10, 5_000, 300, 4_500];

    #[test]
    fn a_last_row_that_is_torn_at_any_byte_is_left_out_and_no_other() {
        let (dir, rows) = file_with(&LENGTHS);
        let whole = fs::read(path(dir.path())).unwrap();
        let last = places(&whole).unwrap()[&4].clone();
        // From its end to its beginning: the disk has written less and less of it.
        let mut torn = whole.clone();
        for byte in last.clone().rev() {
            torn[byte] = 0;
            assert_eq!(following(&torn, 0).unwrap(), rows[..3], "torn at {byte}");
        }
        // From its beginning to its end, over what an older row has left.
        let mut torn = whole.clone();
        for byte in last {
            torn[byte] = 0xEE;
            assert_eq!(following(&torn, 0).unwrap(), rows[..3], "torn up to {byte}");
        }
        assert_eq!(following(&whole, 0).unwrap(), rows);
    }

    #[test]
    fn a_flipped_bit_in_a_row_that_others_follow_is_a_gap() {
        let (dir, rows) = file_with(&LENGTHS);
        let mut bytes = fs::read(path(dir.path())).unwrap();
        for (sequence, place) in places(&bytes).unwrap() {
            for byte in place {
                let bit = 1 << (byte % 8);
                bytes[byte] ^= bit;
                match following(&bytes, 0) {
                    Ok(found) => assert!(sequence == 4 && found == rows[..3], "{byte}: {found:?}"),
                    Err(FileError::Journal(JournalFault::Gap { missing })) => {
                        assert!(sequence < 4 && missing == sequence, "{byte}: {missing}");
                    }
                    Err(fault) => panic!("{byte}: {fault}"),
                }
                bytes[byte] ^= bit;
            }
        }
    }

    #[test]
    fn a_file_that_is_cut_emptied_missing_or_of_another_is_refused() {
        let (dir, rows) = file_with(&LENGTHS);
        let path = path(dir.path());
        let whole = fs::read(&path).unwrap();
        for length in [0, 1, 20, 4_095, 4_096, 8_192, 40_000, FILE_BYTES - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(fault(&dir), JournalFault::Torn), "cut to {length}");
        }
        fs::write(&path, vec![0; FILE_BYTES]).unwrap();
        assert!(matches!(fault(&dir), JournalFault::Torn), "zeros");
        for byte in 0..header(ID).len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert!(matches!(fault(&dir), JournalFault::Torn), "its head is damaged at {byte}");
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(fault(&dir), JournalFault::Missing));
        drop(JournalFile::create(dir.path(), ID + 1).unwrap());
        assert!(matches!(fault(&dir), JournalFault::Foreign));
        fs::write(&path, &whole).unwrap();
        assert_eq!(rows_after(dir.path(), ID, 0).unwrap(), rows);
        assert_eq!(rows_after(dir.path(), ID, 2).unwrap(), rows[2..]);
        assert_eq!(rows_after(dir.path(), ID, 9).unwrap(), []);
    }

    #[test]
    fn a_row_of_a_newer_version_is_refused() {
        let (dir, rows) = file_with(&[10]);
        let mut bytes = fs::read(path(dir.path())).unwrap();
        let mut newer = rows[0].1.clone();
        newer[0] += 1;
        let checked = [&newer[..1], b"J", &newer[HEADER_BYTES..]].concat();
        newer[10..HEADER_BYTES].copy_from_slice(&crc32fast::hash(&checked).to_le_bytes());
        bytes[BLOCK_BYTES..BLOCK_BYTES + newer.len()].copy_from_slice(&newer);
        assert!(matches!(following(&bytes, 0), Err(FileError::NewerVersion { .. })));
    }

    #[test]
    fn a_file_of_another_is_set_aside_unless_its_rows_are_known() {
        let (dir, _) = file_with(&LENGTHS);
        set_aside(dir.path(), 3).unwrap();
        let aside = dir.path().join("anomalies.journal-0000000000000007");
        assert!(aside.exists() && !path(dir.path()).exists());
        set_aside(dir.path(), 3).unwrap();
        fs::rename(&aside, path(dir.path())).unwrap();
        set_aside(dir.path(), 4).unwrap();
        assert!(!aside.exists() && !path(dir.path()).exists());
        fs::write(path(dir.path()), "x").unwrap();
        set_aside(dir.path(), 0).unwrap();
        assert!(dir.path().join("anomalies.journal-damaged").exists());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Rows of any lengths, moved to redb where there is no room and now and then besides.
        #[test]
        fn the_rows_that_were_not_moved_are_found_after_any_writes(
            rows in prop::collection::vec((0..300_000_usize, 0..20_u8), 1..60),
            tear in any::<prop::sample::Index>(),
        ) {
            let dir = TempDir::new().unwrap();
            let mut file = JournalFile::create(dir.path(), ID).unwrap();
            file.restart();
            let (mut unmoved, mut moved_to) = (Vec::<FramedRow>::new(), 0);
            for (sequence, (bytes, moves)) in (1..).zip(rows) {
                let row = row(sequence, bytes / (1 + usize::from(moves) * 20));
                if moves == 0 || !file.has_room_for(&row.1) {
                    moved_to = sequence - 1;
                    unmoved.clear();
                    file.restart();
                }
                file.append(&row.1).unwrap();
                unmoved.push(row);
                prop_assert_eq!(&rows_after(dir.path(), ID, moved_to).unwrap(), &unmoved);
            }
            // The last one as a power failure may leave it.
            let mut bytes = fs::read(path(dir.path())).unwrap();
            let (last, _) = unmoved.pop().unwrap();
            let place = places(&bytes).unwrap()[&last].clone();
            let torn = place.start + tear.index(place.len());
            bytes[torn..place.end].fill(0xEE);
            prop_assert_eq!(following(&bytes, moved_to).unwrap(), unmoved);
        }
    }
}
