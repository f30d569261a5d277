//! The rows that are intact anywhere in a file, whatever redb can read. A page that redb has
//! replaced keeps its rows until it is used again, so older copies are found too: the newest row of
//! each anomaly and signature is taken.

use std::{collections::BTreeMap, io, path::Path};

use super::{
    anomaly::Anomaly,
    error::{OpenError, RowError},
    format::AuditKey,
    journal::JournalRow,
    row::{AnomalyRow, HEADER_BYTES, Header, Kind, MARK, SignatureRow, anomaly_of_payload, whole},
};
use crate::{
    domain::{AnomalyKey, AuditEntry},
    redb_file::ReadableFile,
};

/// The size of the part of the file that is searched at a time.
const CHUNK_BYTES: usize = 4 << 20;

/// The rows that were found.
#[derive(Debug, Default)]
pub(super) struct Salvage {
    pub(super) anomalies: BTreeMap<AnomalyKey, AnomalyRow<Anomaly>>,
    pub(super) signatures: BTreeMap<AnomalyKey, SignatureRow<String>>,
    pub(super) audit: BTreeMap<AuditKey, AuditEntry>,
    /// The rows of the journal by sequence and checksum: a failed commit may have left another row
    /// with its sequence, which may have taken effect. Ids prevent its changes from counting twice.
    pub(super) journal: BTreeMap<(u64, u32), JournalRow>,
    /// Damaged rows by their kind, if that can be read.
    pub(super) damaged: BTreeMap<Option<Kind>, u64>,
}

/// The reason why a file can't be searched.
#[derive(Debug, thiserror::Error)]
pub(super) enum SalvageError {
    #[error(transparent)]
    Disk(#[from] io::Error),
    /// It holds an intact row whose version is not known to this program.
    #[error("it holds rows of version {found}")]
    Newer { found: u8, known: u8 },
}

impl SalvageError {
    pub(super) fn into_open_error(
        self,
        file: &Path,
        of_disk: impl FnOnce(io::Error) -> OpenError,
    ) -> OpenError {
        match self {
            Self::Disk(source) => of_disk(source),
            Self::Newer { found, known } => {
                OpenError::NewerVersion { file: file.to_owned(), found, known }
            }
        }
    }
}

impl Salvage {
    /// Adds the rows in a file. Rows are not searched for inside other rows.
    pub(super) fn add(self, file: &ReadableFile) -> Result<Self, SalvageError> {
        let mut salvage = self;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut begin = 0;
        // The end of the last intact row.
        let mut searched_to = 0;
        loop {
            let length = file.read_at_most(&mut chunk, begin)?;
            for mark in marks(&chunk[..length]) {
                // The version is in front of the mark.
                let Some(row) = (begin + mark as u64).checked_sub(1) else { continue };
                if row >= searched_to {
                    searched_to = row + salvage.take_at(file, row)?;
                }
            }
            if length < chunk.len() {
                return Ok(salvage);
            }
            // A mark may cross the end of the chunk.
            begin += (length - (MARK.len() - 1)) as u64;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.anomalies.is_empty() && self.journal.is_empty()
    }

    /// Adds the row at `offset`. Returns its length, or 0 if it is not intact.
    fn take_at(&mut self, file: &ReadableFile, offset: u64) -> Result<u64, SalvageError> {
        let mut bytes = vec![0; HEADER_BYTES];
        let length = file.read_at_most(&mut bytes, offset)?;
        let Ok(header) = Header::read(&bytes[..length]) else {
            *self.damaged.entry(None).or_default() += 1;
            return Ok(0);
        };
        let mut payload = Vec::new();
        let begin = offset + HEADER_BYTES as u64;
        if begin + header.payload_bytes as u64 <= file.file().metadata()?.len() {
            payload.resize(header.payload_bytes, 0);
            let length = file.read_at_most(&mut payload, begin)?;
            payload.truncate(length);
        }
        match header.verify(&payload).and_then(|()| self.take(header, &payload)) {
            Ok(()) => Ok((HEADER_BYTES + payload.len()) as u64),
            Err(RowError::Newer { found, known }) => Err(SalvageError::Newer { found, known }),
            Err(_) => {
                *self.damaged.entry(Some(header.kind)).or_default() += 1;
                Ok(0)
            }
        }
    }

    fn take(&mut self, header: Header, payload: &[u8]) -> Result<(), RowError> {
        match header.kind {
            Kind::Anomaly => {
                let (key, row) = anomaly_of_payload(header.version, payload)?;
                let key = AnomalyKey::from_bits(key);
                if self.anomalies.get(&key).is_none_or(|known| known.as_of <= row.as_of) {
                    self.anomalies.insert(key, row);
                }
            }
            Kind::Signature => {
                let (key, row) = whole::<(u64, SignatureRow<String>)>(payload)?;
                let key = AnomalyKey::from_bits(key);
                if self.signatures.get(&key).is_none_or(|known| known.as_of <= row.as_of) {
                    self.signatures.insert(key, row);
                }
            }
            Kind::Audit => {
                let (key, entry) = whole(payload)?;
                self.audit.insert(key, entry);
            }
            Kind::Journal => {
                let (sequence, row) = whole::<(u64, JournalRow)>(payload)?;
                self.journal.insert((sequence, header.checksum), row);
            }
        }
        Ok(())
    }
}

/// Returns the positions of marks.
fn marks(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let windows = bytes.windows(MARK.len()).enumerate();
    windows.filter(|(_, window)| *window == MARK).map(|(position, _)| position)
}
