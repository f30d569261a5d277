//! Dead letters: the writes that the store has refused for good, or whose ids it can't recognise
//! any more. An operator reads them, and retries or drops them.

use std::sync::Arc;

use super::{Counter, CounterError};
use crate::spool::{DeadLetter, SpoolError};

impl Counter {
    /// Returns what `summary` makes of each dead letter, oldest first.
    ///
    /// # Errors
    /// When the spool can't be read.
    pub async fn dead_letters<T>(
        &self,
        summary: impl FnMut(DeadLetter) -> T,
    ) -> Result<Vec<T>, CounterError> {
        match &self.fallback {
            Some(fallback) => Ok(fallback.spool().all_dead_letters(summary).await?),
            None => Ok(Vec::new()),
        }
    }

    /// Retries the dead letter of a sequence, or all of them. Returns how many there were.
    ///
    /// # Errors
    /// When the spool can't be written, or has no room for them.
    pub async fn retry_dead_letters(&self, only: Option<u64>) -> Result<usize, CounterError> {
        let Some(fallback) = self.fallback.as_ref().map(Arc::clone) else { return Ok(0) };
        let now = self.now();
        // To the end, also when the caller disconnects: half of it would leave an operation in
        // memory that is not on disk.
        let revived = tokio::spawn(async move { fallback.revive_dead(now, only).await }).await;
        let aborted = |error: tokio::task::JoinError| SpoolError::Failed(error.to_string());
        Ok(revived.unwrap_or_else(|error| Err(aborted(error)))?)
    }

    /// Drops a dead letter, and returns whether there was one of this sequence.
    ///
    /// # Errors
    /// When the spool can't be written.
    pub async fn drop_dead_letter(&self, sequence: u64) -> Result<bool, CounterError> {
        match &self.fallback {
            Some(fallback) => Ok(fallback.spool().drop_dead(sequence).await?),
            None => Ok(false),
        }
    }
}
