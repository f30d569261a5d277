//! A thread that owns data on a disk and does one job after the other. Callers wait for their job
//! up to a timeout: a disk that hangs blocks this thread, and nothing else. A job that was not
//! begun by then is withdrawn; the outcome of a job that was begun is known later.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time};

/// Interval of checking for the end of the thread when it is closed.
const CLOSING_INTERVAL: Duration = Duration::from_millis(5);

/// The state that the thread owns.
pub(crate) trait DiskWork: Send + 'static {
    /// Returns true if there is work to do between two jobs.
    fn has_spare_work(&self) -> bool {
        false
    }

    /// Does a piece of that work.
    fn do_spare_work(&mut self) {}

    /// Restores the state after a panic, which may have left it incomplete.
    fn recover_from_panic(&mut self);
}

type Job<W> = Box<dyn FnOnce(&mut W) + Send>;

/// The reason why a job has no result, or none yet.
#[derive(Debug)]
pub(crate) enum JobError<R> {
    /// It was not begun, and will not be.
    Withdrawn,
    /// It was begun, and has not ended in time.
    Unanswered(Late<R>),
    /// It has panicked, or the thread has ended.
    Aborted,
}

/// A result that is known later.
#[derive(Debug)]
pub(crate) struct Late<R>(oneshot::Receiver<R>);

impl<R> Late<R> {
    /// Waits for the result, however long it takes; `None` if the job was aborted.
    pub(crate) async fn result(self) -> Option<R> {
        self.0.await.ok()
    }

    /// Returns the result if it is known; `Some(None)` if the job was aborted.
    pub(crate) fn try_result(&mut self) -> Option<Option<R>> {
        match self.0.try_recv() {
            Ok(result) => Some(Some(result)),
            Err(oneshot::error::TryRecvError::Closed) => Some(None),
            Err(oneshot::error::TryRecvError::Empty) => None,
        }
    }
}

/// The thread, and its queue of jobs.
pub(crate) struct DiskThread<W> {
    /// Absent after the thread was closed.
    jobs: Mutex<Option<mpsc::Sender<Job<W>>>>,
    /// Disconnected when the thread has ended.
    ended: Mutex<mpsc::Receiver<()>>,
    progress: Arc<Progress>,
    /// True while a job of [`DiskThread::request`] has not ended.
    is_requested: Arc<AtomicBool>,
}

/// The job in progress. Each job and each piece of spare work has a number.
#[derive(Debug)]
struct Progress {
    timeout: Duration,
    started: Instant,
    last: AtomicU64,
    /// The number of the work in progress; 0 while the thread waits for a job.
    running: AtomicU64,
    /// The time at which that work began, in milliseconds since `started`.
    begun_at_ms: AtomicU64,
    /// The number of the last job whose caller stopped waiting after it was begun.
    given_up: AtomicU64,
}

impl Progress {
    fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            started: Instant::now(),
            last: AtomicU64::new(0),
            running: AtomicU64::new(0),
            begun_at_ms: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
        }
    }

    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Does `work` under a number.
    fn run(&self, number: u64, work: impl FnOnce()) {
        self.begun_at_ms.store(self.now_ms(), Ordering::Relaxed);
        self.running.store(number, Ordering::Release);
        // Reset even after a panic.
        let _idle = Idle(&self.running);
        work();
    }

    /// Returns true if the disk does not answer: the work in progress takes longer than the
    /// timeout, or its caller has stopped waiting for it.
    fn is_stalled(&self) -> bool {
        let running = self.running.load(Ordering::Acquire);
        if running == 0 {
            return false;
        }
        let took = self.now_ms().saturating_sub(self.begun_at_ms.load(Ordering::Relaxed));
        self.given_up.load(Ordering::Acquire) == running
            || Duration::from_millis(took) > self.timeout
    }

    fn now_ms(&self) -> u64 {
        // Enough for some five hundred million years.
        self.started.elapsed().as_millis() as u64
    }
}

/// Ends the running work when it is dropped.
struct Idle<'a>(&'a AtomicU64);

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

/// The claim to a job, which is either begun or withdrawn: the first side to claim it decides.
#[derive(Debug, Default)]
struct Claim(AtomicU8);

impl Claim {
    const QUEUED: u8 = 0;
    const BEGUN: u8 = 1;
    const WITHDRAWN: u8 = 2;

    fn begin(&self) -> bool {
        self.claim(Self::BEGUN)
    }

    fn withdraw(&self) -> bool {
        self.claim(Self::WITHDRAWN)
    }

    fn claim(&self, state: u8) -> bool {
        let (queued, order) = (Self::QUEUED, Ordering::AcqRel);
        self.0.compare_exchange(queued, state, order, Ordering::Acquire).is_ok()
    }
}

impl<W: DiskWork> DiskThread<W> {
    /// Starts the thread. It ends, after the queued jobs, when this is closed or dropped. Callers
    /// wait for a job up to `timeout`.
    pub(crate) fn start(work: W, timeout: Duration) -> Self {
        let (jobs, queue) = mpsc::channel();
        let (ending, ended) = mpsc::channel();
        let progress = Arc::new(Progress::new(timeout));
        let of_thread = Arc::clone(&progress);
        thread::spawn(move || {
            let mut work = work;
            while let Ok(job) = next_job(&work, &queue) {
                // A job has its own number.
                if let Some(job) = job {
                    run_safely(&mut work, job);
                }
                if work.has_spare_work() {
                    of_thread.run(of_thread.next(), || {
                        run_safely(&mut work, W::do_spare_work);
                    });
                }
            }
            // A disk that hangs is then noticed, too.
            of_thread.run(of_thread.next(), || drop(work));
            drop(ending);
        });
        Self {
            jobs: Mutex::new(Some(jobs)),
            ended: Mutex::new(ended),
            progress,
            is_requested: Arc::default(),
        }
    }

    /// Does a job on the thread, and returns its result. The job runs to its end even if the caller
    /// no longer waits.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut W) -> R + Send + 'static,
    ) -> Result<R, JobError<R>> {
        if self.is_stalled() {
            return Err(JobError::Withdrawn);
        }
        let (answer, mut answered) = oneshot::channel();
        let claim = Arc::new(Claim::default());
        let (of_job, progress) = (Arc::clone(&claim), Arc::clone(&self.progress));
        let number = self.progress.next();
        let sent = self.send(Box::new(move |work| {
            if of_job.begin() {
                let mut result = None;
                progress.run(number, || result = Some(job(work)));
                // A caller that no longer waits needs no answer.
                let _ = result.map(|result| answer.send(result));
            }
        }));
        if !sent {
            return Err(JobError::Aborted);
        }
        match time::timeout(self.progress.timeout, &mut answered).await {
            Ok(result) => result.map_err(|_| JobError::Aborted),
            Err(_) if claim.withdraw() => Err(JobError::Withdrawn),
            Err(_) => {
                self.progress.given_up.store(number, Ordering::Release);
                Err(JobError::Unanswered(Late(answered)))
            }
        }
    }

    /// Requests a job on the thread without waiting for it. The job is skipped if an earlier one of
    /// this kind has not ended, or if the thread is stalled.
    pub(crate) fn request(&self, job: impl FnOnce(&mut W) + Send + 'static) {
        if self.is_stalled() || self.is_requested.swap(true, Ordering::AcqRel) {
            return;
        }
        let (progress, number) = (Arc::clone(&self.progress), self.progress.next());
        let end = RequestEnd(Arc::clone(&self.is_requested));
        self.send(Box::new(move |work| {
            progress.run(number, || job(work));
            drop(end);
        }));
    }

    /// Returns true if the disk does not answer, so that jobs are withdrawn at once.
    pub(crate) fn is_stalled(&self) -> bool {
        self.progress.is_stalled()
    }

    /// Ends the thread after the queued jobs. Returns true if it has ended. A stalled thread is not
    /// waited for.
    pub(crate) async fn close(&self) -> bool {
        self.jobs.lock().take();
        while !self.has_ended(Duration::ZERO) {
            if self.is_stalled() {
                return false;
            }
            time::sleep(CLOSING_INTERVAL).await;
        }
        true
    }

    fn send(&self, job: Job<W>) -> bool {
        self.jobs.lock().as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
    }
}

impl<W> DiskThread<W> {
    fn has_ended(&self, wait: Duration) -> bool {
        self.ended.lock().recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Disconnected)
    }
}

impl<W> Drop for DiskThread<W> {
    /// Waits until the file is closed, so that it can be opened again.
    fn drop(&mut self) {
        if self.jobs.lock().take().is_some() && !self.progress.is_stalled() {
            self.has_ended(self.progress.timeout);
        }
    }
}

impl<W> fmt::Debug for DiskThread<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskThread").field("progress", &self.progress).finish_non_exhaustive()
    }
}

/// Permits the next request when it is dropped, with its job or because the thread has ended.
struct RequestEnd(Arc<AtomicBool>);

impl Drop for RequestEnd {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Waits for a job, unless there is other work to do.
fn next_job<W: DiskWork>(
    work: &W,
    queue: &mpsc::Receiver<Job<W>>,
) -> Result<Option<Job<W>>, mpsc::RecvError> {
    if !work.has_spare_work() {
        return queue.recv().map(Some);
    }
    match queue.try_recv() {
        Ok(job) => Ok(Some(job)),
        Err(mpsc::TryRecvError::Empty) => Ok(None),
        Err(mpsc::TryRecvError::Disconnected) => Err(mpsc::RecvError),
    }
}

fn run_safely<W: DiskWork>(work: &mut W, job: impl FnOnce(&mut W)) {
    if catch_unwind(AssertUnwindSafe(|| job(work))).is_err() {
        work.recover_from_panic();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);
    /// A timeout for jobs that end by themselves.
    const LONG_TIMEOUT: Duration = Duration::from_secs(60);

    /// A list of the jobs that were done.
    #[derive(Default)]
    struct Done(Vec<&'static str>);

    impl DiskWork for Done {
        fn recover_from_panic(&mut self) {
            self.0.push("recovered");
        }
    }

    type Gate = mpsc::Sender<()>;

    /// A job that hangs until its gate is opened or dropped.
    fn hanging() -> (Gate, impl FnOnce(&mut Done) -> usize + Send + 'static) {
        let (gate, opened) = mpsc::channel();
        let job = move |done: &mut Done| {
            let _ = opened.recv();
            done.0.push("hung");
            done.0.len()
        };
        (gate, job)
    }

    async fn done(thread: &DiskThread<Done>) -> Vec<&'static str> {
        thread.run(|done| done.0.clone()).await.unwrap()
    }

    #[tokio::test]
    async fn a_job_that_was_not_begun_in_time_is_withdrawn_and_one_that_was_ends_late() {
        let thread = DiskThread::start(Done::default(), TIMEOUT);
        let (gate, hangs) = hanging();
        let begun_at = Instant::now();
        let (hung, queued) = tokio::join!(thread.run(hangs), thread.run(|done| done.0.push("b")));
        assert!(begun_at.elapsed() >= TIMEOUT);
        assert!(matches!(queued, Err(JobError::Withdrawn)));
        let Err(JobError::Unanswered(mut late)) = hung else { panic!("{hung:?}") };
        assert_eq!(late.try_result(), None);
        assert!(thread.is_stalled());
        let refused_at = Instant::now();
        assert!(matches!(thread.run(|_| ()).await, Err(JobError::Withdrawn)));
        assert!(refused_at.elapsed() < TIMEOUT, "while it is stalled nothing waits");

        drop(gate);
        assert_eq!(late.result().await, Some(1));
        assert_eq!(done(&thread).await, ["hung"]);
        assert!(!thread.is_stalled());
    }

    #[tokio::test]
    async fn a_stalled_thread_is_neither_waited_for_when_it_is_closed_nor_when_it_is_dropped() {
        let thread = DiskThread::start(Done::default(), TIMEOUT);
        let (gate, hangs) = hanging();
        thread.request(move |done| {
            hangs(done);
        });
        let begun_at = Instant::now();
        assert!(!thread.close().await);
        drop(thread);
        assert!(begun_at.elapsed() < TIMEOUT * 10);
        drop(gate);
    }

    #[tokio::test]
    async fn a_request_waits_for_no_earlier_one() {
        let thread = DiskThread::start(Done::default(), LONG_TIMEOUT);
        let (gate, hangs) = hanging();
        thread.request(move |done| {
            hangs(done);
        });
        thread.request(|done| done.0.push("not done"));
        drop(gate);
        assert_eq!(done(&thread).await, ["hung"]);
        thread.request(|done| done.0.push("done"));
        assert_eq!(done(&thread).await, ["hung", "done"]);
    }

    #[tokio::test]
    async fn a_panic_aborts_one_job() {
        let thread = DiskThread::start(Done::default(), LONG_TIMEOUT);
        let aborted = thread.run(|_: &mut Done| panic!("as the test wants it")).await;
        assert!(matches!(aborted, Err(JobError::<()>::Aborted)));
        assert!(!thread.is_stalled());
        assert_eq!(done(&thread).await, ["recovered"]);
        assert!(thread.close().await);
        assert!(matches!(thread.run(|_| ()).await, Err(JobError::Aborted)), "it is closed");
    }
}
