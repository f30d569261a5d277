//! Appends batches of writes to the spool. If the disk does not answer in time, the outcome of an
//! append is known later.

use futures_util::future::{BoxFuture, FutureExt as _, Shared};

use crate::{
    counter::batching::{BatchWork, SubmitError},
    domain::Moment,
    spool::{CallError, Spool, SpoolError, SpoolWrite},
    traces::Parents,
};

/// Maximum size of the operations that are appended with one fsync.
const APPENDED_BYTES: usize = 8 << 20;

/// Appends batches to the spool.
pub(crate) struct SpoolAppend(pub(crate) Spool);

/// The outcome of a batch, when it becomes known.
pub(crate) type LateOutcome = Shared<BoxFuture<'static, Result<(), SpoolError>>>;

/// The reason why a write was not appended.
#[derive(Clone)]
pub(crate) enum AppendError {
    /// The append has failed. The write does not wait.
    Failed(SpoolError),
    /// The disk has not answered in time. The write waits if the outcome is a success.
    Late(SpoolError, LateOutcome),
}

impl From<SubmitError> for AppendError {
    fn from(error: SubmitError) -> Self {
        Self::Failed(match error {
            SubmitError::Full => SpoolError::Full,
            SubmitError::Cancelled => SpoolError::Failed("an append was aborted".to_owned()),
        })
    }
}

impl BatchWork for SpoolAppend {
    type Item = SpoolWrite;
    type Output = Result<(), AppendError>;

    fn bytes(write: &SpoolWrite) -> usize {
        write.operation.bytes()
    }

    fn max_bytes(&self) -> usize {
        APPENDED_BYTES
    }

    async fn run(
        &self,
        _moment: Moment,
        writes: Vec<SpoolWrite>,
        _parents: Parents,
    ) -> Vec<Result<(), AppendError>> {
        let count = writes.len();
        let result = self.0.append(writes).await.map_err(|error| match error {
            CallError::Failed(error) => AppendError::Failed(error),
            CallError::Late(late) => {
                AppendError::Late(late.error(), late.result().boxed().shared())
            }
        });
        vec![result; count]
    }
}
