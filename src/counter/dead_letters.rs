//! Dead letters: the writes that the store refuses for good, or whose ids it can't recognise any
//! more. An operator reads them, and retries or drops them.

use std::sync::Arc;

use super::{Counter, CounterError};
use crate::spool::{DeadLetter, SpoolError};

impl Counter {
    /// Returns the result of `summary` for each dead letter, oldest first.
    ///
    /// # Errors
    /// Fails if the spool can't be read.
    pub async fn dead_letters<T>(
        &self,
        summary: impl FnMut(DeadLetter) -> T,
    ) -> Result<Vec<T>, CounterError> {
        match &self.fallback {
            Some(fallback) => Ok(fallback.spool().all_dead_letters(summary).await?),
            None => Ok(Vec::new()),
        }
    }

    /// Retries the dead letter with a sequence, or all dead letters. Returns their number.
    ///
    /// # Errors
    /// Fails if the spool can't be written, or has no room for them.
    pub async fn retry_dead_letters(&self, only: Option<u64>) -> Result<usize, CounterError> {
        let Some(fallback) = self.fallback.as_ref().map(Arc::clone) else { return Ok(0) };
        let now = self.now();
        // The task runs to its end even if the caller disconnects: if only a part were done, an
        // operation would be in memory but not on disk.
        let revived = tokio::spawn(async move { fallback.revive_dead(now, only).await }).await;
        let aborted = |error: tokio::task::JoinError| SpoolError::Failed(error.to_string());
        Ok(revived.unwrap_or_else(|error| Err(aborted(error)))?)
    }

    /// Drops a dead letter. Returns true if there was one with this sequence.
    ///
    /// # Errors
    /// Fails if the spool can't be written.
    pub async fn drop_dead_letter(&self, sequence: u64) -> Result<bool, CounterError> {
        match &self.fallback {
            Some(fallback) => Ok(fallback.spool().drop_dead(sequence).await?),
            None => Ok(false),
        }
    }
}
