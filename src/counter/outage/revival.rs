//! Puts dead letters back into the spool.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::fallback::Fallback;
use crate::{
    domain::{Operation, Timestamp},
    spool::{CallError, SpoolError},
};

/// Maximum number and size of dead letters that are put back with one fsync.
const REVIVED_LETTERS: usize = 256;
const REVIVED_BYTES: usize = 1 << 20;
/// Pause before the file is read again to find out which letters are dead.
const REVIVAL_RETRY_PAUSE: Duration = Duration::from_millis(500);

impl Fallback {
    /// Puts the dead letter with a sequence back into the spool, or all dead letters. Returns their
    /// number.
    pub(crate) async fn revive_dead(
        self: &Arc<Self>,
        now: Timestamp,
        only: Option<u64>,
    ) -> Result<usize, SpoolError> {
        let (mut next, limit) = only.map_or((0, REVIVED_LETTERS), |sequence| (sequence, 1));
        let last = match only {
            Some(sequence) => sequence,
            // Letters that die again in the meantime have later sequences.
            None => self.spool().last_dead_letter().await?.unwrap_or_default(),
        };
        let mut revived = 0;
        while next <= last {
            let letters = self.spool().dead_letters(next, limit, REVIVED_BYTES).await?;
            let Some(newest) = letters.last() else { break };
            next = newest.sequence + 1;
            let letters = letters.into_iter().filter(|letter| letter.sequence <= last);
            let (sequences, operations): (Vec<u64>, Vec<Operation>) =
                letters.filter_map(|letter| Some((letter.sequence, letter.operation?))).unzip();
            // Added to memory first, as in `accept`.
            self.change(|memory| {
                for operation in &operations {
                    memory.pending.add(now, operation, true);
                }
            });
            let result = match self.spool().revive_dead(sequences.clone()).await {
                Err(CallError::Failed(error)) => Err(error),
                // Operations that wait behind it continue to wait. Its caller does not.
                Err(CallError::Late(late)) => late.result().await,
                Ok(revived) => Ok(revived),
            };
            let letters = sequences.into_iter().zip(operations).collect::<Vec<_>>();
            match &result {
                Ok(found) => self.remove_unless(&letters, |sequence| found.contains(&sequence)),
                Err(SpoolError::Unconfirmed(_)) => {
                    tokio::spawn(Arc::clone(self).end_revival(letters));
                }
                Err(_) => self.remove_unless(&letters, |_| false),
            }
            self.wake_replay();
            revived += result?.len();
        }
        Ok(revived)
    }

    /// Removes letters from memory that are still dead, when the file shows which.
    pub(super) async fn end_revival(self: Arc<Self>, letters: Vec<(u64, Operation)>) {
        let sequences: Vec<u64> = letters.iter().map(|(sequence, _)| *sequence).collect();
        let dead = loop {
            match self.spool().still_dead(sequences.clone()).await {
                Ok(dead) => break dead,
                Err(_) => sleep(REVIVAL_RETRY_PAUSE).await,
            }
        };
        self.remove_unless(&letters, |sequence| !dead.contains(&sequence));
        self.wake_replay();
    }

    /// Removes letters from memory, except for those that wait.
    fn remove_unless(&self, letters: &[(u64, Operation)], waits: impl Fn(u64) -> bool) {
        self.change(|memory| {
            for (_, operation) in letters.iter().filter(|(sequence, _)| !waits(*sequence)) {
                memory.remove(operation);
            }
        });
    }
}
