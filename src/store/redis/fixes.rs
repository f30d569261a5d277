//! Marks permanent fixes and removes the marks.

use super::{
    RedisStore,
    reply::{self, Reply},
    script::Call,
};
use crate::{
    domain::{AnomalyKey, FixMark, FixRemoval, Moment, PermanentFix, Timestamp},
    store::StoreError,
};

/// Maximum number of calls for a change that meets later ones.
const MAX_CALLS: usize = 3;

impl RedisStore {
    pub(super) async fn mark(
        &self,
        moment: Moment,
        mark: FixMark,
    ) -> Result<Option<PermanentFix>, StoreError> {
        let call = |later| self.calls.mark_fixed(moment, &mark, later);
        let mut reply = self.change_fix(mark.key, call).await?;
        reply.if_known("marked", |_| Ok(mark.into()))
    }

    pub(super) async fn unmark(
        &self,
        moment: Moment,
        removal: FixRemoval,
    ) -> Result<Option<bool>, StoreError> {
        let call = |later| self.calls.unmark_fixed(moment, &removal, later);
        match self.change_fix(removal.key, call).await?.tag()? {
            "unmarked" => Ok(Some(true)),
            "not_marked" => Ok(Some(false)),
            "unknown" => Ok(None),
            other => Err(reply::unexpected(other)),
        }
    }

    /// Makes a change. If it meets a later one, which an instance with a clock that is ahead has
    /// made before, it is made once more, after that one. The script does not do this by itself: a
    /// call that is delivered late, when its caller no longer waits, must not undo what was changed
    /// since.
    async fn change_fix(
        &self,
        key: AnomalyKey,
        call: impl Fn(Option<Timestamp>) -> Call,
    ) -> Result<Reply, StoreError> {
        let mut later = None;
        for _ in 0..MAX_CALLS {
            let reply = self.run_one(key, call(later)).await?;
            later = reply.later_change()?;
            if later.is_none() {
                return Ok(reply);
            }
        }
        Err(reply::unexpected("later"))
    }
}
